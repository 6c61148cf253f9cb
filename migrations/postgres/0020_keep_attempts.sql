-- The attempts of the rows that were tried again, written with the row's result.
CREATE TABLE row_attempts (
    batch_id    UUID NOT NULL,
    row         BIGINT NOT NULL,
    -- JSON: how many there were, and the last of them.
    attempts    TEXT NOT NULL,
    PRIMARY KEY (batch_id, row)
);
