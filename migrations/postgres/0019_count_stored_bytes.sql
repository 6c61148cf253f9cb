-- Builds an index over all files, and one over all uploads; statements that write the tables wait for it.
--
-- The bytes that an owner stores are added up from the first index alone, which has all that the sum asks for. It is not
-- a partial index, and the size stands before the times, so that what asks for one file or for a list keeps its own.
CREATE INDEX files_by_size ON files (owner, bytes, expires_at, deleted_at);
CREATE INDEX uploads_by_owner ON uploads (owner);
