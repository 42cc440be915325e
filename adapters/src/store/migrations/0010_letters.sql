-- How many letters of a message were heard before one was not: the next try goes on from there.
ALTER TABLE outbox ADD COLUMN heard INTEGER NOT NULL DEFAULT 0;
