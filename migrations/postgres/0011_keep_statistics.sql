-- What is kept of a batch beside its ledger: throughput, failures by kind, tokens by model (JSON).
CREATE TABLE batch_statistics (
    batch_id    UUID PRIMARY KEY NOT NULL,
    statistics  TEXT NOT NULL
);

-- By the database's clock, and only to show how long a daemon has been silent. NULL of earlier versions.
ALTER TABLE daemons ADD COLUMN beat_at BIGINT;

-- What the daemon does (JSON).
ALTER TABLE daemons ADD COLUMN activity TEXT;
