-- Builds two indexes over all batches; statements that write the table wait for it.
--
-- The batches of an owner with a status, newest first; and those in progress whose windows close first. The status comes
-- first in the one, and the other has one status, so that what asks by the owner alone keeps its own index.
CREATE INDEX batches_by_status ON batches (status, owner, id);
CREATE INDEX batches_by_window ON batches (owner, expires_at) WHERE status = 'in_progress';
