-- Where an event stands in its tree, from 1 without gaps, in the order of the commits: whoever has read up to
-- n has missed nothing before it. Events of one run are in the order of their seq, but a tree has many.
CREATE TABLE positions (
    root TEXT NOT NULL,
    n    INTEGER NOT NULL,
    run  TEXT NOT NULL,
    seq  INTEGER NOT NULL,
    PRIMARY KEY (root, n)
) STRICT, WITHOUT ROWID;
INSERT INTO positions (root, n, run, seq)
    SELECT runs.root, row_number() OVER (PARTITION BY runs.root ORDER BY events.at, runs.depth, events.run, events.seq),
           events.run, events.seq
    FROM events JOIN runs ON runs.run = events.run;
CREATE TRIGGER events_position AFTER INSERT ON events BEGIN
    INSERT INTO positions (root, n, run, seq)
        SELECT r.root, coalesce((SELECT max(n) FROM positions WHERE root = r.root), 0) + 1, NEW.run, NEW.seq
        FROM runs AS r WHERE r.run = NEW.run;
END;

-- The runs of a client, and those of one parent, page by page.
CREATE INDEX runs_parent ON runs (parent, started) WHERE parent IS NOT NULL;
CREATE INDEX runs_roots ON runs (principal, started, run) WHERE parent IS NULL;

-- What a client asked for under a key of its own: asked for again, it is the same run.
CREATE TABLE rest_keys (
    principal TEXT NOT NULL,
    key       TEXT NOT NULL,
    -- What was asked, sealed.
    digest    TEXT NOT NULL,
    run       TEXT NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX rest_keys_at ON rest_keys (at);

-- Whom to tell of a tree.
CREATE TABLE webhooks (
    root      TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    url       TEXT NOT NULL,
    -- Sealed; NULL: nothing is signed.
    secret    TEXT,
    at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is to be told, written in one transaction with the event it tells of.
CREATE TABLE outbox (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    root  TEXT NOT NULL REFERENCES webhooks (root),
    run   TEXT NOT NULL,
    seq   INTEGER NOT NULL,
    type  TEXT NOT NULL,
    at    INTEGER NOT NULL,
    -- pending, delivered, dead
    state TEXT NOT NULL DEFAULT 'pending',
    tries INTEGER NOT NULL DEFAULT 0,
    -- When it is tried next, milliseconds since 1970 UTC; when it was settled, once it is.
    next  INTEGER NOT NULL,
    why   TEXT,
    -- The process that tells it just now, as `owner.rs` writes it.
    taker TEXT
) STRICT;
CREATE INDEX outbox_due ON outbox (next) WHERE state = 'pending';
CREATE INDEX outbox_taken ON outbox (taker) WHERE taker IS NOT NULL;
CREATE INDEX outbox_root ON outbox (root);
CREATE INDEX outbox_settled ON outbox (next) WHERE state <> 'pending';
CREATE TRIGGER events_webhook AFTER INSERT ON events WHEN NEW.type IN ('run.finished', 'run.waiting') BEGIN
    INSERT INTO outbox (root, run, seq, type, at, next)
        SELECT w.root, NEW.run, NEW.seq, NEW.type, NEW.at, NEW.at
        FROM runs AS r JOIN webhooks AS w ON w.root = r.root
        WHERE r.run = NEW.run AND CASE NEW.type
            -- Who waits for its children only has nothing to ask.
            WHEN 'run.waiting' THEN coalesce(json_extract(NEW.body, '$.id'), '') <> ''
            ELSE NEW.run = r.root END;
END;
