-- Blobs that nothing refers to any more, kept for those who still read them.
CREATE TABLE retired_blobs (
    blob          BLOB PRIMARY KEY NOT NULL,
    delete_after  BIGINT NOT NULL
);

CREATE INDEX retired_blobs_by_age ON retired_blobs (delete_after);

-- 0 as recorded; one more than the parts that were merged into it.
ALTER TABLE file_parts ADD COLUMN tier BIGINT NOT NULL DEFAULT 0;

-- When the file stopped, or stops, being visible; looked at again later if a batch still runs it.
ALTER TABLE files ADD COLUMN retired_at BIGINT;
UPDATE files SET retired_at = COALESCE(deleted_at, expires_at);

CREATE INDEX files_to_retire ON files (retired_at) WHERE retired_at IS NOT NULL;
CREATE UNIQUE INDEX files_by_index_blob ON files (index_blob) WHERE index_blob IS NOT NULL;
CREATE INDEX batches_by_input ON batches (input_file_id);
