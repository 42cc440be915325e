-- Which processes wait for the answer to a client's own call: one whose call is taken back takes
-- nothing from another.
CREATE TABLE question_waits (
    question TEXT NOT NULL REFERENCES questions (id) ON DELETE CASCADE,
    -- The process, as it marks what it works on.
    mark     TEXT NOT NULL,
    PRIMARY KEY (question, mark)
) STRICT, WITHOUT ROWID;
-- An older pleach beside a newer one put answers on record when they came, and knew no mark for that.
UPDATE questions SET noted_at = closed_at
    WHERE closed_at IS NOT NULL AND noted_at IS NULL AND answer IS NOT NULL AND closed_by <> 'the end of the run';
