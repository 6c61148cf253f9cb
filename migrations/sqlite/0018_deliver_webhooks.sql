-- The receiver that the request for a batch named. When the batch ends, the secret moves to its delivery.
ALTER TABLE batches ADD COLUMN webhook_url TEXT;
ALTER TABLE batches ADD COLUMN webhook_secret TEXT;

-- The events of batches on their way to receivers, written when a batch ends. A delivery has all that it needs: the
-- batch may be gone.
CREATE TABLE webhook_deliveries (
    id            BLOB PRIMARY KEY NOT NULL,
    -- A batch ends once, so its event is named after it.
    batch_id      BLOB NOT NULL,
    owner         TEXT NOT NULL,
    event         TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    -- The name of a receiver of the settings, or the origin of the URL.
    receiver      TEXT NOT NULL,
    -- NULL for a receiver of the settings.
    url           TEXT,
    secret        TEXT,
    state         TEXT NOT NULL,
    -- Tries that were begun; the number of the last is its fencing token.
    tries         BIGINT NOT NULL,
    -- The daemon that makes the last try. One that is not among the daemons is dead.
    holder        BLOB,
    due_at        BIGINT NOT NULL,
    forget_after  BIGINT NOT NULL,
    error         TEXT,
    UNIQUE (batch_id, receiver)
);

CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (receiver, due_at, id) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (forget_after);
