-- NULL: the batch runs. The reason stays when it is resumed, so that failures alike pause a batch once.
ALTER TABLE batches ADD COLUMN paused_at BIGINT;
ALTER TABLE batches ADD COLUMN pause_reason TEXT;
-- How many rows run first, as the metadata says it; NULL once they have run.
ALTER TABLE batches ADD COLUMN canary TEXT;
-- The batch whose rows it runs again, and which of them, with which changes.
ALTER TABLE batches ADD COLUMN retry_of BLOB;
ALTER TABLE batches ADD COLUMN retry_options TEXT;

-- Rows from this position on are not claimed yet; NULL: all may be.
ALTER TABLE lanes ADD COLUMN held_from BIGINT;
