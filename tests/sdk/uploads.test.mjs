// Uploading a file in parts with the Node SDK (contract §5).

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BadRequestError, toFile } from 'openai';

import { chatRow, jsonl, server } from './server.mjs';

const CONTENT = Buffer.from(jsonl([chatRow('r-1'), chatRow('r-2'), chatRow('r-3')]));

const { client } = await server();

function create(purpose = 'batch') {
  const bytes = CONTENT.length;
  return client.uploads.create({ filename: 'mine.jsonl', purpose, bytes, mime_type: 'application/jsonl' });
}

test('a file is uploaded in parts, whose order is that of the completion', async () => {
  const upload = await create();
  const [first, second] = [CONTENT.subarray(0, 100), CONTENT.subarray(100)];
  const sent = [second, first].map(async (bytes) =>
    client.uploads.parts.create(upload.id, { data: await toFile(bytes, 'part') }),
  );
  const part_ids = (await Promise.all(sent)).map((part) => part.id).reverse();

  const completed = await client.uploads.complete(upload.id, { part_ids });

  assert.equal(completed.status, 'completed');
  assert.equal(completed.file.filename, 'mine.jsonl');
  const content = await client.files.content(completed.file.id);
  assert.deepEqual(Buffer.from(await content.arrayBuffer()), CONTENT);
});

test('a cancelled upload cannot be completed', async () => {
  const upload = await create('user_data');

  assert.equal((await client.uploads.cancel(upload.id)).status, 'cancelled');
  await assert.rejects(client.uploads.complete(upload.id, { part_ids: [] }), BadRequestError);
});
