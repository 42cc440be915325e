-- Whom else to tell of a tree: what A2A clients ask for, each task by task.
CREATE TABLE push_configs (
    root      TEXT NOT NULL,
    -- The client's name for it, or ours.
    id        TEXT NOT NULL,
    principal TEXT NOT NULL,
    -- The generation it was asked for in, whose words are said: 1.0 or 0.3.
    version   TEXT NOT NULL,
    url       TEXT NOT NULL,
    -- What a message proves itself with (token, scheme, credentials), sealed.
    proof     TEXT NOT NULL,
    -- The scheme alone, which may be shown; NULL: none.
    scheme    TEXT,
    at        INTEGER NOT NULL,
    endpoint  TEXT NOT NULL GENERATED ALWAYS AS (
        substr(url, 1, instr(url, '://') + 1 + instr(substr(url, instr(url, '://') + 3) || '/', '/'))
        || ' ' || principal) VIRTUAL,
    PRIMARY KEY (root, id)
) STRICT, WITHOUT ROWID;

-- A message is now of a tree's webhook, or of one of those; the numbers go on where they were.
DROP TRIGGER events_webhook;
CREATE TABLE outbox_too (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    root     TEXT NOT NULL,
    -- Of push_configs; NULL: the tree's webhook.
    config   TEXT,
    run      TEXT NOT NULL,
    seq      INTEGER NOT NULL,
    type     TEXT NOT NULL,
    at       INTEGER NOT NULL,
    -- pending, delivered, dead
    state    TEXT NOT NULL DEFAULT 'pending',
    tries    INTEGER NOT NULL DEFAULT 0,
    -- When it is tried next, milliseconds since 1970 UTC; never, while one of its config is before it; when it
    -- was settled, once it is.
    next     INTEGER NOT NULL,
    why      TEXT,
    -- The process that tells it just now, as `owner.rs` writes it.
    taker    TEXT,
    endpoint TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO outbox_too (id, root, run, seq, type, at, state, tries, next, why, taker, endpoint)
    SELECT id, root, run, seq, type, at, state, tries, next, why, taker, endpoint FROM outbox;
DELETE FROM sqlite_sequence WHERE name = 'outbox_too';
INSERT INTO sqlite_sequence (name, seq) SELECT 'outbox_too', seq FROM sqlite_sequence WHERE name = 'outbox';
DROP TABLE outbox;
ALTER TABLE outbox_too RENAME TO outbox;
CREATE INDEX outbox_due ON outbox (endpoint, next, id) WHERE state = 'pending';
CREATE INDEX outbox_taken ON outbox (taker) WHERE taker IS NOT NULL;
CREATE INDEX outbox_root ON outbox (root);
CREATE INDEX outbox_settled ON outbox (next) WHERE state <> 'pending';
CREATE INDEX outbox_config ON outbox (root, config, id) WHERE state = 'pending' AND config IS NOT NULL;

CREATE TRIGGER events_webhook AFTER INSERT ON events WHEN NEW.type IN ('run.finished', 'run.waiting') BEGIN
    INSERT INTO outbox (root, run, seq, type, at, next, endpoint)
        SELECT w.root, NEW.run, NEW.seq, NEW.type, NEW.at, NEW.at, w.endpoint
        FROM runs AS r JOIN webhooks AS w ON w.root = r.root
        WHERE r.run = NEW.run AND CASE NEW.type
            -- Who waits for its children only has nothing to ask.
            WHEN 'run.waiting' THEN coalesce(json_extract(NEW.body, '$.id'), '') <> ''
            ELSE NEW.run = r.root END;
END;
-- What may change how a task stands. What came of it is seen when it is told, in the order it came about: of each
-- config the first is due, and the next when that one is settled.
CREATE TRIGGER events_push AFTER INSERT ON events WHEN NEW.type IN ('model.requested', 'model.replied', 'run.waiting',
        'run.answered', 'run.timed_out', 'message.received', 'artifact.emitted', 'run.finished') BEGIN
    INSERT INTO outbox (root, config, run, seq, type, at, next, endpoint)
        SELECT c.root, c.id, NEW.run, NEW.seq, NEW.type, NEW.at,
            CASE WHEN EXISTS (
                SELECT 1 FROM outbox AS o WHERE o.root = c.root AND o.config = c.id AND o.state = 'pending')
            THEN 9223372036854775807 ELSE NEW.at END, c.endpoint
        FROM runs AS r JOIN push_configs AS c ON c.root = r.root
        WHERE r.run = NEW.run AND CASE NEW.type
            WHEN 'run.waiting' THEN coalesce(json_extract(NEW.body, '$.id'), '') <> ''
            WHEN 'model.replied' THEN NEW.run = r.root AND json_array_length(NEW.body, '$.calls') > 0
            WHEN 'model.requested' THEN NEW.run = r.root
            WHEN 'message.received' THEN NEW.run = r.root
            WHEN 'run.finished' THEN NEW.run = r.root
            ELSE 1 END;
END;
