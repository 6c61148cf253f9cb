CREATE TABLE lanes (
    batch_id  UUID NOT NULL,
    no        BIGINT NOT NULL,
    model     TEXT NOT NULL,
    -- Positions of the row index: the lane is first..last, and what is before next is claimed.
    first     BIGINT NOT NULL,
    last      BIGINT NOT NULL,
    next      BIGINT NOT NULL,
    PRIMARY KEY (batch_id, no)
);

CREATE INDEX lanes_with_work ON lanes (batch_id) WHERE next < last;

CREATE TABLE leases (
    id         UUID PRIMARY KEY NOT NULL,
    batch_id   UUID NOT NULL,
    model      TEXT NOT NULL,
    first      BIGINT NOT NULL,
    last       BIGINT NOT NULL,
    -- Rows of the range without a recorded outcome; the lease goes when it reaches 0.
    owed       BIGINT NOT NULL,
    -- NULL once given back.
    daemon_id  UUID,
    token      BIGINT NOT NULL
);

CREATE INDEX leases_by_batch ON leases (batch_id);
CREATE INDEX leases_by_daemon ON leases (daemon_id);

CREATE TABLE daemons (
    id           UUID PRIMARY KEY NOT NULL,
    started_at   BIGINT NOT NULL,
    -- By the database's clock. The leases of a daemon are its own until then.
    alive_until  BIGINT NOT NULL
);
