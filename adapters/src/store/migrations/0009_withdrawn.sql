-- A rule now says whose calls it is for, a client's own or its runs', and which server it is about.
-- What was made before says neither: it stands no more, and a person is asked again.
UPDATE rules SET revoked_by = 'pleach: it said neither whose calls it was for nor which server',
                 revoked_at = CAST(unixepoch('subsec') * 1000 AS INTEGER)
    WHERE revoked_at IS NULL;

-- What ended without an answer (nobody in time, taken back) is put on record: when that was done.
ALTER TABLE questions ADD COLUMN noted_at INTEGER;
UPDATE questions SET noted_at = closed_at WHERE closed_at IS NOT NULL;
CREATE INDEX questions_unnoted ON questions (closed_at)
    WHERE closed_at IS NOT NULL AND noted_at IS NULL;
-- The newest question about a call is the one whose answer holds, open or not.
DROP INDEX questions_given;
CREATE INDEX questions_of_call ON questions (principal, digest) WHERE digest IS NOT NULL;
-- What ended long ago is deleted.
CREATE INDEX questions_ended ON questions (closed_at) WHERE closed_at IS NOT NULL AND noted_at IS NOT NULL;
