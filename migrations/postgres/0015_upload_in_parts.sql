CREATE TABLE uploads (
    id                  UUID PRIMARY KEY NOT NULL,
    owner               TEXT NOT NULL,
    filename            TEXT NOT NULL,
    purpose             TEXT NOT NULL,
    -- The size that the file must have.
    bytes               BIGINT NOT NULL,
    created_at          BIGINT NOT NULL,
    expires_at          BIGINT NOT NULL,
    -- How long the file is kept, in milliseconds; NULL if the client did not say.
    file_expires_after  BIGINT,
    -- 'pending', 'completed' or 'cancelled'. That an upload has expired follows from the time.
    status              TEXT NOT NULL,
    -- How many parts were added.
    parts               BIGINT NOT NULL,
    -- Of a completed upload.
    file_id             UUID
);

CREATE INDEX uploads_by_expiry ON uploads (expires_at, id);

-- The parts of uploads that are not completed. When one is, the blobs of its parts become parts of its file.
CREATE TABLE upload_parts (
    id          UUID PRIMARY KEY NOT NULL,
    upload_id   UUID NOT NULL,
    blob        UUID NOT NULL UNIQUE,
    bytes       BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);

CREATE INDEX upload_parts_by_upload ON upload_parts (upload_id);
