-- The calls that a row for /v1/responses is made of.
CREATE TABLE response_steps (
    batch_id    UUID NOT NULL,
    row         BIGINT NOT NULL,
    -- The order in which the steps of a row were begun.
    seq         BIGINT NOT NULL,
    -- Which step it is: 2 is the third call of the model, 2.0 the first tool that call asked for, and so on into agents.
    path        TEXT NOT NULL,
    -- NULL for calls of models.
    call_id     TEXT,
    state       TEXT NOT NULL,
    attempts    BIGINT NOT NULL,
    request     TEXT,
    response    TEXT,
    error       TEXT,
    started_at  BIGINT NOT NULL,
    ended_at    BIGINT,
    PRIMARY KEY (batch_id, row, seq)
);
