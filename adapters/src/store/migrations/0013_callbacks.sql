-- What came along with tasks from other gateways to call back with, sealed: no file of ours has a
-- token in clear. A later message to the same task brings a later one.
CREATE TABLE callbacks (
    -- What the task remembers of it.
    id TEXT NOT NULL PRIMARY KEY,
    sealed TEXT NOT NULL,
    -- When it is good for nothing any more, milliseconds since 1970 UTC.
    until INTEGER NOT NULL
);
CREATE INDEX callbacks_old ON callbacks (until);
