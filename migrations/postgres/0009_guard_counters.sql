-- Counters that passed the total before there was a guard. Those of a batch that runs are counted again when something
-- of it is recorded, or when it ends.
UPDATE batches
SET completed = CASE WHEN status = 'in_progress' THEN 0 ELSE LEAST(completed, total) END,
    failed = CASE WHEN status = 'in_progress' THEN 0 ELSE total - LEAST(completed, total) END
WHERE completed + failed > total;

UPDATE leases SET owed = 0 WHERE owed < 0;

ALTER TABLE batches ADD CONSTRAINT counters_within_total CHECK (completed + failed <= total);
ALTER TABLE leases ADD CONSTRAINT owed_not_negative CHECK (owed >= 0);
