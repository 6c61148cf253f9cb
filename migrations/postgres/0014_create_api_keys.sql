-- Keys of clients. Only a hash of each is kept, by which it is found.
CREATE TABLE api_keys (
    id            UUID PRIMARY KEY NOT NULL,
    owner         TEXT NOT NULL,
    name          TEXT NOT NULL,
    -- Names with commas between them.
    scopes        TEXT NOT NULL,
    -- SHA-256 of the key.
    hash          BYTEA NOT NULL UNIQUE,
    -- The last characters of the key, for people.
    ending        TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    last_used_at  BIGINT,
    -- A revoked key stays: the first key closes a deployment to calls without one, for good.
    revoked_at    BIGINT
);

CREATE INDEX api_keys_by_owner ON api_keys (owner, id);

-- Visits of the dashboard. A key that is revoked ends its sessions.
CREATE TABLE dashboard_sessions (
    -- SHA-256 of the token that the browser has.
    hash        BYTEA PRIMARY KEY NOT NULL,
    key_id      UUID NOT NULL,
    expires_at  BIGINT NOT NULL
);

CREATE INDEX dashboard_sessions_by_end ON dashboard_sessions (expires_at);
