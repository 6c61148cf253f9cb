CREATE TABLE batches (
    id                    UUID PRIMARY KEY NOT NULL,
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
    output_file_id        UUID NOT NULL,
    error_file_id         UUID NOT NULL,
    -- How many parts each of the two files has: the number of the next part.
    output_parts          BIGINT NOT NULL DEFAULT 0,
    error_parts           BIGINT NOT NULL DEFAULT 0,
    output_expires_after  BIGINT,
    idempotency_key       TEXT UNIQUE
);

-- Not a partial index, without the terminal statuses: SQLite would not use it for a search by one status.
CREATE INDEX batches_to_work_on ON batches (status, expires_at);
