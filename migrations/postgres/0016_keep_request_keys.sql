-- The first use of each idempotency key. Those of batches of a file are in batches.
CREATE TABLE idempotency_keys (
    owner        TEXT NOT NULL,
    key          TEXT NOT NULL,
    -- The hash of everything that the request asked for.
    fingerprint  TEXT NOT NULL,
    -- The id of the object that it made, as clients see it.
    object       TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (owner, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
