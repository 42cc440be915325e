-- Trees have one owner at a time; runs say for whom they act, what they cost and what they wait for.
ALTER TABLE runs ADD COLUMN principal TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN door TEXT;
-- What it waits for: approval, question, children, pause.
ALTER TABLE runs ADD COLUMN waiting TEXT;
-- Billionths of a dollar; NULL is unknown.
ALTER TABLE runs ADD COLUMN usd INTEGER;
UPDATE runs SET principal = coalesce(
    (SELECT json_extract(body, '$.principal') FROM events WHERE events.run = runs.run AND type = 'run.started' LIMIT 1),
    '');
CREATE INDEX runs_principal ON runs (principal, started);
CREATE INDEX runs_open ON runs (root) WHERE ended IS NULL;

CREATE TABLE trees (
    root        TEXT PRIMARY KEY,
    -- Which claim this is. A write of an earlier one is refused.
    epoch       INTEGER NOT NULL,
    -- The process that works on it, as `owner.rs` writes it; NULL is nobody.
    owner       TEXT,
    -- Milliseconds since 1970 UTC; decides only where the owner cannot be looked at.
    lease_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Epoch 0 is the claim of an older version, which knew of none: a live one keeps its trees.
INSERT INTO trees (root, epoch, owner, lease_until)
    SELECT run, 0, owner, 0 FROM runs AS r
    WHERE parent IS NULL AND EXISTS (SELECT 1 FROM runs WHERE root = r.run AND ended IS NULL);
CREATE INDEX trees_owner ON trees (owner) WHERE owner IS NOT NULL;

CREATE TABLE questions (
    id        TEXT PRIMARY KEY,
    run       TEXT NOT NULL REFERENCES runs (run),
    root      TEXT NOT NULL,
    principal TEXT NOT NULL,
    asked     INTEGER NOT NULL,
    expires   INTEGER,
    -- The whole question, JSON.
    body      TEXT NOT NULL,
    closed_by TEXT,
    closed_at INTEGER,
    answer    TEXT
) STRICT;
CREATE INDEX questions_open ON questions (asked) WHERE closed_at IS NULL;
CREATE INDEX questions_expiring ON questions (expires) WHERE closed_at IS NULL AND expires IS NOT NULL;
CREATE INDEX questions_open_root ON questions (root) WHERE closed_at IS NULL;
CREATE INDEX questions_open_principal ON questions (principal, asked) WHERE closed_at IS NULL;

-- By the SHA-256 of what they hold.
CREATE TABLE blobs (
    name  TEXT PRIMARY KEY,
    size  INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

-- What somebody wants of a tree that another process owns, until that one takes it.
CREATE TABLE inbox (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    root TEXT NOT NULL,
    at   INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX inbox_root ON inbox (root, id);
