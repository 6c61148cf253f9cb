-- Builds two indexes over all batches; statements that write the table wait for it.
--
-- The batches of an owner with a status, newest first; and those whose windows close first.
CREATE INDEX batches_by_status ON batches (owner, status, id);
CREATE INDEX batches_by_window ON batches (owner, status, expires_at);
