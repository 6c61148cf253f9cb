// Batches of the AI SDK, by its providers for OpenAI and for Anthropic.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import {
  experimental_cancelBatch as cancelBatch,
  experimental_getBatchResults as getBatchResults,
  experimental_getBatchStatus as getBatchStatus,
  experimental_listBatches as listBatches,
  experimental_startBatch as startBatch,
} from 'ai';

import { server } from './server.mjs';

const BATCH_MS = 60_000;

const here = await server();
const options = { baseURL: here.client.baseURL, apiKey: 'any' };
const providers = { openai: createOpenAI(options), anthropic: createAnthropic(options) };

function request(id, model = 'simulator') {
  return { id, type: 'text', model, prompt: `What is ${id}?`, maxOutputTokens: 64 };
}

async function ended(provider, batch) {
  const deadline = Date.now() + BATCH_MS;
  while (Date.now() < deadline) {
    const status = await getBatchStatus({ provider, batch });
    if (status.status !== 'pending') return status;
    await pause(50);
  }
  return assert.fail(`waited in vain for the end of ${JSON.stringify(batch)}`);
}

async function resultsOf(provider, batch) {
  const results = {};
  for await (const item of getBatchResults({ provider, batch })) results[item.id] = item;
  return results;
}

for (const [name, provider] of Object.entries(providers)) {
  test(`a batch of ${name} runs from its start to its results`, async () => {
    const batch = await startBatch({ provider, requests: [request('a'), request('b')] });

    const status = await ended(provider, batch);
    const results = await resultsOf(provider, batch);

    assert.equal(status.status, 'completed');
    assert.deepEqual(Object.keys(results).sort(), ['a', 'b']);
    for (const item of Object.values(results)) {
      assert.equal(item.status, 'succeeded', JSON.stringify(item));
      assert.ok(item.text.length > 0 && item.usage.outputTokens > 0, JSON.stringify(item));
    }
  });

  test(`requests of ${name} that fail are told apart`, async () => {
    const model = 'simulator-fail-400';
    const batch = await startBatch({ provider, requests: [request('a', model), request('b', model)] });

    await ended(provider, batch);
    const results = await resultsOf(provider, batch);

    assert.deepEqual(Object.values(results).map((item) => item.status), ['failed', 'failed']);
  });

  test(`a batch of ${name} is cancelled and listed`, async () => {
    const batch = await startBatch({ provider, requests: [request('a', 'simulator-hang')] });

    await cancelBatch({ provider, batch });
    await ended(provider, batch);
    const { batches } = await listBatches({ provider, limit: 5 });

    assert.ok(batches.some((listed) => listed.id === batch.id));
    const [item] = Object.values(await resultsOf(provider, batch));
    assert.equal(item.status, 'cancelled');
  });
}
