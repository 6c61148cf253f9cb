CREATE TABLE files (
    id          BLOB PRIMARY KEY NOT NULL,
    purpose     TEXT NOT NULL,
    filename    TEXT NOT NULL,
    bytes       BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    deleted_at  BIGINT,
    -- The row index of a batch input file, and what intake found in it (JSON).
    index_blob  BLOB,
    report      TEXT
);

CREATE INDEX files_by_age ON files (created_at, id);

CREATE TABLE file_parts (
    file_id  BLOB NOT NULL,
    no       BIGINT NOT NULL,
    -- Unique, so that a commit whose answer was lost can be asked for by its blobs.
    blob     BLOB NOT NULL UNIQUE,
    bytes    BIGINT NOT NULL,
    -- The ledger: the rows this part answers, as a serialised roaring bitmap. NULL for uploads.
    rows     BLOB,
    PRIMARY KEY (file_id, no)
);
