-- A run and its events. Events are only ever appended; a row of runs is what its events add up to.
CREATE TABLE runs (
    run        TEXT PRIMARY KEY,
    parent     TEXT,
    root       TEXT NOT NULL,
    depth      INTEGER NOT NULL,
    agent      TEXT NOT NULL,
    state      TEXT NOT NULL,
    turns      INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL,
    tokens     INTEGER NOT NULL,
    started    INTEGER NOT NULL,
    ended      INTEGER,
    -- Who works on it: boot id, pid and start time of the process.
    owner      TEXT NOT NULL
) STRICT;
CREATE INDEX runs_started ON runs (started);
CREATE INDEX runs_root ON runs (root);
CREATE TABLE events (
    run  TEXT NOT NULL REFERENCES runs (run),
    seq  INTEGER NOT NULL,
    at   INTEGER NOT NULL,
    type TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;
