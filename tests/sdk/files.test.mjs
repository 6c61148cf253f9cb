// Uploading, listing, downloading and deleting files with the Node SDK (contract §2, §3 and §4).

import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';

import OpenAI, { toFile } from 'openai';

import { chatRow, jsonl, server, upload } from './server.mjs';

const CONTENT = jsonl([chatRow('r-1'), chatRow('größe 日本')]);
const THIRTY_DAYS = 2_592_000;
const UNKNOWN = 'file-000000000000000000000a';

const here = await server();
const directory = await mkdtemp(path.join(tmpdir(), 'batchwright-sdk-files-'));
after(() => rm(directory, { recursive: true, force: true }));
const questions = path.join(directory, 'questions.jsonl');
await writeFile(questions, CONTENT);

async function stored(file) {
  return (await here.client.files.content(file.id)).text();
}

async function refused(promise, Class, members) {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof Class, `${error}`);
    for (const [name, value] of Object.entries(members)) assert.equal(error[name], value, name);
    return true;
  });
}

/** Passes requests on unchanged, and keeps the head and the first bytes of each: what was on the wire. */
async function eavesdrop(target, use) {
  const heard = [];
  const proxy = createServer((incoming, outgoing) => {
    const note = { headers: incoming.headers, body: '' };
    heard.push(note);
    incoming.on('data', (chunk) => (note.body += chunk));
    const { host, ...headers } = incoming.headers;
    const onward = request(new URL(incoming.url, target), { method: incoming.method, headers }, (reply) => {
      outgoing.writeHead(reply.statusCode, reply.headers);
      reply.pipe(outgoing);
    });
    onward.on('error', (error) => outgoing.destroy(error));
    incoming.pipe(onward);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  try {
    const client = new OpenAI({ baseURL: `http://127.0.0.1:${proxy.address().port}/v1`, apiKey: 'any' });
    await use(client);
  } finally {
    proxy.closeAllConnections();
    proxy.close();
  }
  return heard;
}

test('a read stream is uploaded under its name', async () => {
  const file = await here.client.files.create({ file: createReadStream(questions), purpose: 'batch' });

  assert.equal(file.filename, 'questions.jsonl');
  assert.equal(file.bytes, Buffer.byteLength(CONTENT));
  assert.equal(await stored(file), CONTENT);
});

test('a form in chunks, with the file before its purpose, is taken', async () => {
  // What the SDK makes of a stream. That it does is part of the test, or a change of the SDK would go unnoticed.
  let file;
  const [heard] = await eavesdrop(here.client.baseURL, async (client) => {
    file = await client.files.create({ file: createReadStream(questions), purpose: 'batch' });
  });

  assert.equal(heard.headers['transfer-encoding'], 'chunked');
  assert.equal(heard.headers['content-length'], undefined);
  assert.ok(heard.body.indexOf('name="file"') < heard.body.indexOf('name="purpose"'));
  assert.equal(file.purpose, 'batch');
  assert.equal(await stored(file), CONTENT);
});

test('a form in chunks, with the file after its purpose, is taken', async () => {
  const file = await here.client.files.create({ purpose: 'batch', file: createReadStream(questions) });

  assert.equal(await stored(file), CONTENT);
});

test('several megabytes of a stream come back byte for byte', async () => {
  const rows = Array.from({ length: 3000 }, (_, number) => chatRow(`r-${number} ${'é'.repeat(1000)}`));
  const large = path.join(directory, 'large.jsonl');
  await writeFile(large, jsonl(rows));

  const file = await here.client.files.create({ file: createReadStream(large), purpose: 'batch' });

  assert.ok(file.bytes > 5_000_000);
  assert.equal(await stored(file), jsonl(rows));
});

test('a buffer is uploaded by toFile under the name given', async () => {
  const file = await here.client.files.create({
    file: await toFile(Buffer.from(CONTENT), 'mine.jsonl'),
    purpose: 'batch',
  });

  assert.equal(file.filename, 'mine.jsonl');
  assert.equal(await stored(file), CONTENT);
});

test('a buffer without a name is uploaded all the same', async () => {
  const file = await here.client.files.create({ file: await toFile(Buffer.from(CONTENT)), purpose: 'batch' });

  assert.ok(file.filename);
  assert.equal(await stored(file), CONTENT);
});

test('the type given to toFile is not judged', async () => {
  const file = await here.client.files.create({
    file: await toFile(Buffer.from(CONTENT), 'mine.jsonl', { type: 'text/csv' }),
    purpose: 'batch',
  });

  assert.equal(await stored(file), CONTENT);
});

test('a web File is uploaded under its name', async () => {
  const file = await here.client.files.create({ file: new File([CONTENT], 'web.jsonl'), purpose: 'batch' });

  assert.equal(file.filename, 'web.jsonl');
  assert.equal(await stored(file), CONTENT);
});

test('a name that is not ASCII comes back as it was', async () => {
  const file = await upload(here.client, CONTENT, 'größe-日本.jsonl');

  assert.equal(file.filename, 'größe-日本.jsonl');
});

test('a file for a batch is kept for thirty days', async () => {
  const file = await upload(here.client, CONTENT);

  assert.equal(file.expires_at, file.created_at + THIRTY_DAYS);
});

test('expires_after says how long a file is kept', async () => {
  const expires_after = { anchor: 'created_at', seconds: 3600 };

  const file = await here.client.files.create({
    file: new File([CONTENT], 'a.jsonl'),
    purpose: 'batch',
    expires_after,
  });

  assert.equal(file.expires_at, file.created_at + 3600);
});

test('expires_after is read from a form in chunks, where it comes after the file', async () => {
  const expires_after = { anchor: 'created_at', seconds: 7200 };

  const file = await here.client.files.create({ file: createReadStream(questions), purpose: 'batch', expires_after });

  assert.equal(file.expires_at, file.created_at + 7200);
});

test('expires_after out of range is refused', async () => {
  const expires_after = { anchor: 'created_at', seconds: 3599 };

  const promise = here.client.files.create({ file: new File([CONTENT], 'a.jsonl'), purpose: 'batch', expires_after });

  await refused(promise, OpenAI.BadRequestError, { status: 400 });
});

test('a file is retrieved as it was created', async () => {
  const file = await upload(here.client, CONTENT);

  assert.deepEqual(await here.client.files.retrieve(file.id), file);
});

test('waiting for processing asks once', async () => {
  const file = await upload(here.client, CONTENT);
  here.sent.length = 0;

  const waited = await here.client.files.waitForProcessing(file.id);

  assert.equal(waited.status, 'processed');
  assert.equal(here.sent.length, 1);
});

test('content is declared as bytes to be saved', async () => {
  const file = await upload(here.client, CONTENT, 'mine.jsonl');

  const { headers } = await here.client.files.content(file.id);

  assert.equal(headers.get('content-type'), 'application/octet-stream');
  assert.equal(headers.get('content-disposition'), 'attachment; filename="mine.jsonl"');
});

test('deleting says so', async () => {
  const file = await upload(here.client, CONTENT);

  assert.deepEqual(await here.client.files.delete(file.id), { object: 'file', deleted: true, id: file.id });
});

for (const action of ['retrieve', 'content', 'delete']) {
  test(`a deleted file is gone for ${action}`, async () => {
    const file = await upload(here.client, CONTENT);
    await here.client.files.delete(file.id);

    const expected = { status: 404, type: 'invalid_request_error', param: 'id', code: null };
    await refused(here.client.files[action](file.id), OpenAI.NotFoundError, expected);
  });

  test(`an unknown file is not found by ${action}`, async () => {
    await refused(here.client.files[action](UNKNOWN), OpenAI.NotFoundError, {
      param: 'id',
      message: `404 No such File object: ${UNKNOWN}`,
    });
  });
}

test('an empty file is no batch input file', async () => {
  await refused(upload(here.client, ''), OpenAI.BadRequestError, { type: 'invalid_request_error' });
});

test('a first line that is no JSON is refused', async () => {
  await refused(upload(here.client, `custom_id,method\n${CONTENT}`), OpenAI.BadRequestError, {
    message: '400 Invalid file format for Batch API. Must be .jsonl',
  });
});

test('bytes that are not UTF-8 are refused', async () => {
  await refused(upload(here.client, Buffer.from(`${CONTENT}{"custom_id":"é"}\n`, 'latin1')), OpenAI.BadRequestError, {
    message: '400 Invalid file for Batch API. Must be utf-8 encoded',
  });
});

test('a txt file is no batch input file', async () => {
  await refused(upload(here.client, CONTENT, 'mine.txt'), OpenAI.BadRequestError, {
    message: '400 Invalid file format for Batch API. Must be .jsonl',
  });
});

test('a stream that is refused for its purpose is answered, not cut off', async () => {
  // The purpose comes after all of the file; a server that closed early would look like a broken connection.
  const promise = here.client.files.create({ file: createReadStream(questions), purpose: 'leisure' });

  await refused(promise, OpenAI.BadRequestError, { param: 'purpose', code: null });
});
