// Lists and their pages with the Node SDK (contract §1.8, §3 and §8.6).

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

import { CHAT, chatRow, jsonl, server, upload } from './server.mjs';

// More than two pages of batches, and created so fast that many have the same `created_at`.
const OBJECTS = 45;

// Without a worker: no result file joins the list while it is read.
const here = await server('--role', 'api');
const created = { files: [], batches: [] };
for (let number = 0; number < OBJECTS; number++) {
  created.files.push((await upload(here.client, jsonl([chatRow('r-1')]))).id);
}
const params = { input_file_id: created.files[0], endpoint: CHAT, completion_window: '24h' };
for (let number = 0; number < OBJECTS; number++) {
  created.batches.push((await here.client.batches.create(params)).id);
}

async function visit(list) {
  const visited = [];
  for await (const item of list) visited.push(item.id);
  return visited;
}

for (const kind of ['files', 'batches']) {
  test(`paging over ${kind} visits each once, newest first`, async () => {
    assert.deepEqual(await visit(here.client[kind].list({ limit: 7 })), created[kind].toReversed());
  });

  test(`paging over ${kind} asks no more often than there are pages`, async () => {
    here.sent.length = 0;

    assert.equal((await visit(here.client[kind].list({ limit: 15 }))).length, OBJECTS);
    assert.equal(here.sent.length, 3);
  });

  test(`a limit of zero gives an empty page of ${kind}`, async () => {
    const page = await here.client[kind].list({ limit: 0 });

    assert.deepEqual(page.data, []);
    assert.equal(page.has_more, false);
  });

  test(`a negative limit of ${kind} is refused`, async () => {
    await refused(here.client[kind].list({ limit: -1 }), 'integer_below_min_value');
  });

  test(`a limit of ${kind} that is no number is refused`, async () => {
    await refused(here.client[kind].list({ limit: 'x' }), 'invalid_type');
  });
}

test('a limit of batches above the maximum is refused', async () => {
  await refused(here.client.batches.list({ limit: 101 }), 'integer_above_max_value');
});

test('a limit of files above the maximum is refused', async () => {
  await refused(here.client.files.list({ limit: 10_001 }), 'integer_above_max_value');
});

test('files are listed from old to new if asked', async () => {
  assert.deepEqual(await visit(here.client.files.list({ order: 'asc', limit: 7 })), created.files);
});

test('files are filtered by purpose', async () => {
  assert.equal((await visit(here.client.files.list({ purpose: 'batch', limit: 20 }))).length, OBJECTS);
  assert.deepEqual(await visit(here.client.files.list({ purpose: 'batch_output' })), []);
});

async function refused(promise, code) {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError, `${error}`);
    assert.deepEqual([error.code, error.param], [code, 'limit']);
    return true;
  });
}
