-- Builds an index over the batches that have the new column, of which there are none.
--
-- The API that a batch is listed in besides OpenAI's: 'messages' is Anthropic's Message Batches, until the batch is
-- deleted there.
ALTER TABLE batches ADD COLUMN api TEXT;
CREATE INDEX message_batches ON batches (owner, id) WHERE api = 'messages';
