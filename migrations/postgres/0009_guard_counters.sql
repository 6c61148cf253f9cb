-- Counters that passed the total before there was a guard: the batch ends, and what it ends with follows from its ledger.
UPDATE batches
SET completed = LEAST(completed, total),
    failed = total - LEAST(completed, total),
    status = CASE WHEN status = 'in_progress' THEN 'finalizing' ELSE status END
WHERE completed + failed > total;

UPDATE leases SET owed = 0 WHERE owed < 0;

ALTER TABLE batches ADD CONSTRAINT counters_within_total CHECK (completed + failed <= total);
ALTER TABLE leases ADD CONSTRAINT owed_not_negative CHECK (owed >= 0);
