// Webhooks, as the Node SDK's `unwrap` reads and checks them (contract §10.5).

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, test } from 'node:test';
import { text } from 'node:stream/consumers';

import OpenAI from 'openai';

import { CHAT, chatRow, jsonl, server, upload } from './server.mjs';

const SECRET = 'whsec_c2VjcmV0IG9mIGEgdGVzdA==';

const here = await server('--webhook-allow-private');

const received = [];
const receiver = createServer(async (request, response) => {
  received.push({ headers: request.headers, body: await text(request) });
  response.writeHead(204).end();
  receiver.emit('told');
});
receiver.listen(0, '127.0.0.1');
await once(receiver, 'listening');
after(() => receiver.close());

test('unwrap takes the event, and refuses another secret', async () => {
  const input = await upload(here.client, jsonl([chatRow('one')]));
  const url = `http://127.0.0.1:${receiver.address().port}/hook`;
  const told = once(receiver, 'told');
  const batch = await here.client.batches.create({
    input_file_id: input.id,
    endpoint: CHAT,
    completion_window: '24h',
    webhook: { url, secret: SECRET },
  });
  await told;

  const [{ body, headers }] = received;
  const client = new OpenAI({ apiKey: 'any', webhookSecret: SECRET });
  const event = await client.webhooks.unwrap(body, headers);

  assert.equal(event.type, 'batch.completed');
  assert.equal(event.data.id, batch.id);
  await assert.rejects(client.webhooks.unwrap(body, headers, 'another'), OpenAI.InvalidWebhookSignatureError);
});
