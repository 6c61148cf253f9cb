-- Builds indexes over all files and all batches; statements that use the two tables wait for it.
--
-- The defaults are for the rows that are there, and for what replicas of the version before still insert.
ALTER TABLE files ADD COLUMN owner TEXT NOT NULL DEFAULT 'default';
ALTER TABLE batches ADD COLUMN owner TEXT NOT NULL DEFAULT 'default';

CREATE INDEX files_by_owner ON files (owner, created_at, id);
DROP INDEX files_by_age;

CREATE INDEX batches_by_owner ON batches (owner, id);

-- Of each owner a key names one batch. An API replica of the version before names the old constraint in its INSERT, and
-- so can create no batch.
ALTER TABLE batches DROP CONSTRAINT batches_idempotency_key_key;
CREATE UNIQUE INDEX batches_by_key ON batches (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- The id of the file comes first: replicas of the version before look for it alone.
DROP INDEX batches_by_input;
CREATE INDEX batches_by_input ON batches (input_file_id, owner);
