// Message Batches with Anthropic's Node SDK.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import Anthropic from '@anthropic-ai/sdk';

import { server } from './server.mjs';

const BATCH_MS = 60_000;

const here = await server();
const client = new Anthropic({ baseURL: here.client.baseURL.replace(/\/v1$/, ''), apiKey: 'any' });
const { batches } = client.messages;

function request(customId, model = 'simulator') {
  const messages = [{ role: 'user', content: `What is ${customId}?` }];
  return { custom_id: customId, params: { model, max_tokens: 64, messages } };
}

async function ended(batch) {
  const deadline = Date.now() + BATCH_MS;
  while (Date.now() < deadline) {
    batch = await batches.retrieve(batch.id);
    if (batch.processing_status === 'ended') return batch;
    await pause(50);
  }
  return assert.fail(`waited in vain for the end of ${JSON.stringify(batch)}`);
}

test('a new batch has all keys', async () => {
  const batch = await batches.create({ requests: [request('a')] });

  assert.deepEqual(Object.keys(batch).sort(), [
    ...['archived_at', 'cancel_initiated_at', 'created_at', 'ended_at', 'expires_at', 'id', 'processing_status'],
    ...['request_counts', 'results_url', 'type'],
  ]);
  assert.equal(batch.request_counts.processing, 1);
  assert.match(batch._request_id, /^req_/);
});

test('results are decoded as they come', async () => {
  const batch = await ended(await batches.create({ requests: [request('good'), request('bad', 'simulator-fail-400')] }));

  const results = {};
  for await (const line of await batches.results(batch.id)) results[line.custom_id] = line.result;

  assert.deepEqual(batch.request_counts, { processing: 0, succeeded: 1, errored: 1, canceled: 0, expired: 0 });
  assert.equal(results.good.message.content[0].type, 'text');
  assert.equal(results.bad.error.error.type, 'invalid_request_error');
});

test('batches are listed over pages, newest first', async () => {
  const made = [];
  for (let number = 0; number < 3; number += 1) {
    made.unshift((await batches.create({ requests: [request('a')] })).id);
  }

  const listed = [];
  for await (const batch of batches.list({ limit: 2 })) {
    listed.push(batch.id);
    if (listed.length === made.length) break;
  }

  assert.deepEqual(listed, made);
});

test('a batch is canceled and deleted', async () => {
  const batch = await batches.create({ requests: [request('a', 'simulator-hang')] });
  await assert.rejects(batches.delete(batch.id), Anthropic.BadRequestError);

  await batches.cancel(batch.id);
  const { request_counts } = await ended(batch);
  const deleted = await batches.delete(batch.id);

  assert.equal(request_counts.canceled, 1);
  assert.deepEqual({ ...deleted }, { id: batch.id, type: 'message_batch_deleted' });
  await assert.rejects(batches.retrieve(batch.id), Anthropic.NotFoundError);
});

test('errors are those of the SDK', async () => {
  await assert.rejects(batches.create({ requests: [request('a b')] }), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.equal(error.error.error.type, 'invalid_request_error');
    assert.equal(error.requestID, error.error.request_id);
    return true;
  });
});
