-- A client's own call is asked about too, and no run asks it: its question has no run. So the table is made anew.
CREATE TABLE asked (
    id        TEXT PRIMARY KEY,
    -- NULL: a client's own call.
    run       TEXT REFERENCES runs (run),
    root      TEXT,
    principal TEXT NOT NULL,
    -- approval, question
    kind      TEXT NOT NULL DEFAULT 'question',
    asked     INTEGER NOT NULL,
    expires   INTEGER,
    -- The whole question, JSON.
    body      TEXT NOT NULL,
    closed_by TEXT,
    closed_at INTEGER,
    answer    TEXT,
    -- What a client's own call is: the same for the same call only.
    digest    TEXT,
    -- Until when its answer holds for that call, and when a yes was used up.
    good_until INTEGER,
    used_at    INTEGER
) STRICT;
INSERT INTO asked (id, run, root, principal, kind, asked, expires, body, closed_by, closed_at, answer)
    SELECT id, run, root, principal, coalesce(json_extract(body, '$.kind'), 'question'), asked, expires, body,
           closed_by, closed_at, answer
    FROM questions;
DROP TABLE questions;
ALTER TABLE asked RENAME TO questions;
CREATE INDEX questions_open ON questions (asked, id) WHERE closed_at IS NULL;
CREATE INDEX questions_open_principal ON questions (principal, asked, id) WHERE closed_at IS NULL;
CREATE INDEX questions_open_root ON questions (root, asked, id) WHERE closed_at IS NULL;
CREATE INDEX questions_expiring ON questions (expires, root) WHERE closed_at IS NULL AND expires IS NOT NULL;
-- How many approvals are open, of a client and of a tree.
CREATE INDEX questions_approvals ON questions (principal, root) WHERE closed_at IS NULL AND kind = 'approval';
-- One question for one call, however often it is made.
CREATE UNIQUE INDEX questions_same ON questions (principal, digest) WHERE digest IS NOT NULL AND closed_at IS NULL;
CREATE INDEX questions_given ON questions (principal, digest) WHERE digest IS NOT NULL AND closed_at IS NOT NULL;

-- Standing rules: what a person said yes to from then on.
CREATE TABLE rules (
    id         TEXT PRIMARY KEY,
    principal  TEXT NOT NULL,
    tool       TEXT NOT NULL,
    at         INTEGER NOT NULL,
    -- The whole rule, JSON.
    body       TEXT NOT NULL,
    revoked_by TEXT,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX rules_standing ON rules (principal, tool) WHERE revoked_at IS NULL;
CREATE INDEX rules_newest ON rules (at DESC, id) WHERE revoked_at IS NULL;
