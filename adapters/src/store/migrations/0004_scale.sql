-- What is asked for now and then, while many trees wait: each question has an index that holds its answer.
DROP INDEX runs_open;
-- Runs somebody must work on; not those that wait for a person.
CREATE INDEX runs_going ON runs (root) WHERE ended IS NULL AND waiting IS NULL AND state <> 'waiting';
CREATE INDEX runs_above ON runs (root, run) WHERE ended IS NULL AND waiting = 'children';

-- The newest, as they are listed.
DROP INDEX runs_started;
CREATE INDEX runs_newest ON runs (started DESC, depth, run);

-- Open questions page by page: all, a client's, a tree's; and those that expired.
DROP INDEX questions_open;
DROP INDEX questions_open_principal;
DROP INDEX questions_open_root;
DROP INDEX questions_expiring;
CREATE INDEX questions_open ON questions (asked, id) WHERE closed_at IS NULL;
CREATE INDEX questions_open_principal ON questions (principal, asked, id) WHERE closed_at IS NULL;
CREATE INDEX questions_open_root ON questions (root, asked, id) WHERE closed_at IS NULL;
CREATE INDEX questions_expiring ON questions (expires, root) WHERE closed_at IS NULL AND expires IS NOT NULL;

-- Where a message goes: an origin, a space, and the client that named it. What hangs there holds up nothing that goes elsewhere.
-- An address is kept as its parser writes it: with a path, and without a user.
ALTER TABLE webhooks ADD COLUMN endpoint TEXT NOT NULL GENERATED ALWAYS AS (
    substr(url, 1, instr(url, '://') + 1 + instr(substr(url, instr(url, '://') + 3) || '/', '/'))
    || ' ' || principal) VIRTUAL;
ALTER TABLE outbox ADD COLUMN endpoint TEXT NOT NULL DEFAULT '';
UPDATE outbox SET endpoint = (SELECT endpoint FROM webhooks AS w WHERE w.root = outbox.root);
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (endpoint, next, id) WHERE state = 'pending';
DROP TRIGGER events_webhook;
CREATE TRIGGER events_webhook AFTER INSERT ON events WHEN NEW.type IN ('run.finished', 'run.waiting') BEGIN
    INSERT INTO outbox (root, run, seq, type, at, next, endpoint)
        SELECT w.root, NEW.run, NEW.seq, NEW.type, NEW.at, NEW.at, w.endpoint
        FROM runs AS r JOIN webhooks AS w ON w.root = r.root
        WHERE r.run = NEW.run AND CASE NEW.type
            -- Who waits for its children only has nothing to ask.
            WHEN 'run.waiting' THEN coalesce(json_extract(NEW.body, '$.id'), '') <> ''
            ELSE NEW.run = r.root END;
END;
