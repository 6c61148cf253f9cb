-- Counters that passed the total before there was a guard. Those of a batch that runs are counted again when something
-- of it is recorded, or when it ends.
UPDATE batches
SET completed = CASE WHEN status = 'in_progress' THEN 0 ELSE MIN(completed, total) END,
    failed = CASE WHEN status = 'in_progress' THEN 0 ELSE total - MIN(completed, total) END
WHERE completed + failed > total;

UPDATE leases SET owed = 0 WHERE owed < 0;

-- SQLite cannot add a constraint to a table that is there; a trigger that refuses the update is one.
CREATE TRIGGER batches_counters_within_total
BEFORE UPDATE OF completed, failed, total ON batches
WHEN NEW.completed + NEW.failed > NEW.total
BEGIN
    SELECT RAISE(ABORT, 'the counters of a batch may not pass its total');
END;

CREATE TRIGGER leases_owed_not_negative
BEFORE UPDATE OF owed ON leases
WHEN NEW.owed < 0
BEGIN
    SELECT RAISE(ABORT, 'a lease may not owe less than no row');
END;
