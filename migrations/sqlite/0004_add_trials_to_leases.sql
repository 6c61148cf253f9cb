-- Holders that died since anything was recorded under the lease; from three on its rows are run one by one.
ALTER TABLE leases ADD COLUMN deaths BIGINT NOT NULL DEFAULT 0;

-- How often the first of its owed rows was started alone.
ALTER TABLE leases ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;

CREATE INDEX daemons_by_life ON daemons (alive_until);
