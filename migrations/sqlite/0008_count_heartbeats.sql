-- A daemon is dead when another has seen it silent for its lifetime, and then has no row here: no clock decides.
-- Workers of an earlier version that still run find no table of theirs, and stop starting rows.
DROP TABLE daemons;

CREATE TABLE daemons (
    id        BLOB PRIMARY KEY NOT NULL,
    -- How long it may be silent, in milliseconds.
    lifetime  BIGINT NOT NULL,
    -- Raised by each heartbeat.
    beats     BIGINT NOT NULL
);
