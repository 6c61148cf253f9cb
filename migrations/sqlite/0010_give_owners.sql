-- Builds an index over all files, and the table of batches anew.
ALTER TABLE files ADD COLUMN owner TEXT NOT NULL DEFAULT 'default';

CREATE INDEX files_by_owner ON files (owner, created_at, id);
DROP INDEX files_by_age;

-- SQLite cannot drop the constraint that made idempotency keys unique among all owners, so that the table is made anew.
CREATE TABLE batches_with_owner (
    id                    BLOB PRIMARY KEY NOT NULL,
    owner                 TEXT NOT NULL DEFAULT 'default',
    -- As the client gave it: it need not be the id of a file.
    input_file_id         TEXT NOT NULL,
    endpoint              TEXT NOT NULL,
    completion_window     TEXT NOT NULL,
    status                TEXT NOT NULL,
    created_at            BIGINT NOT NULL,
    expires_at            BIGINT NOT NULL,
    in_progress_at        BIGINT,
    finalizing_at         BIGINT,
    completed_at          BIGINT,
    failed_at             BIGINT,
    expired_at            BIGINT,
    cancelling_at         BIGINT,
    cancelled_at          BIGINT,
    model                 TEXT,
    total                 BIGINT NOT NULL DEFAULT 0,
    completed             BIGINT NOT NULL DEFAULT 0,
    failed                BIGINT NOT NULL DEFAULT 0,
    input_tokens          BIGINT NOT NULL DEFAULT 0,
    cached_tokens         BIGINT NOT NULL DEFAULT 0,
    output_tokens         BIGINT NOT NULL DEFAULT 0,
    reasoning_tokens      BIGINT NOT NULL DEFAULT 0,
    total_tokens          BIGINT NOT NULL DEFAULT 0,
    metadata              TEXT,
    errors                TEXT,
    output_file_id        BLOB NOT NULL,
    error_file_id         BLOB NOT NULL,
    -- How many parts each of the two files has: the number of the next part.
    output_parts          BIGINT NOT NULL DEFAULT 0,
    error_parts           BIGINT NOT NULL DEFAULT 0,
    output_expires_after  BIGINT,
    idempotency_key       TEXT
);

INSERT INTO batches_with_owner (
    id, input_file_id, endpoint, completion_window, status, created_at, expires_at, in_progress_at, finalizing_at,
    completed_at, failed_at, expired_at, cancelling_at, cancelled_at, model, total, completed, failed, input_tokens,
    cached_tokens, output_tokens, reasoning_tokens, total_tokens, metadata, errors, output_file_id, error_file_id,
    output_parts, error_parts, output_expires_after, idempotency_key
)
SELECT
    id, input_file_id, endpoint, completion_window, status, created_at, expires_at, in_progress_at, finalizing_at,
    completed_at, failed_at, expired_at, cancelling_at, cancelled_at, model, total, completed, failed, input_tokens,
    cached_tokens, output_tokens, reasoning_tokens, total_tokens, metadata, errors, output_file_id, error_file_id,
    output_parts, error_parts, output_expires_after, idempotency_key
FROM batches;

-- Its indexes and its trigger go with it.
DROP TABLE batches;
ALTER TABLE batches_with_owner RENAME TO batches;

CREATE INDEX batches_by_owner ON batches (owner, id);
CREATE UNIQUE INDEX batches_by_key ON batches (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX batches_to_work_on ON batches (status, expires_at);
CREATE INDEX batches_by_input ON batches (input_file_id, owner);

CREATE TRIGGER batches_counters_within_total
BEFORE UPDATE OF completed, failed, total ON batches
WHEN NEW.completed + NEW.failed > NEW.total
BEGIN
    SELECT RAISE(ABORT, 'the counters of a batch may not pass its total');
END;
