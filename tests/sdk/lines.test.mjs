// Result files through every line reader that a client of the Node SDK can use: each counts as many lines as rows.
//
// Some readers end a line at U+2028, U+2029 and U+0085 too, which JSON allows inside of strings.

import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';

import { Stream } from 'openai/core/streaming';

import { chatRow, inFrontOf, jsonl, run } from './server.mjs';

const SEPARATORS = '\u2028 and \u2029 and \u0085';
const ROWS = 300;
const NUMBERS = Array.from({ length: ROWS }, (_, number) => number);

const said = (number) => `${number}: ${SEPARATORS}.`;
const customId = (model, number) => `${model}${SEPARATORS}${number}`;

/** What the row said, as an answer or in an error. The characters stand in it as they are. */
function answer({ model, messages: [{ content }] }) {
  if (model === 'broken') {
    return { error: { message: content, type: 'invalid_request_error', param: null, code: null } };
  }
  const choices = [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }];
  const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
  return { id: 'c', object: 'chat.completion', created: 1, model, choices, usage };
}

const upstream = createServer(async (incoming, outgoing) => {
  if (incoming.method !== 'POST') return outgoing.writeHead(404).end();
  const body = answer(JSON.parse(await text(incoming)));
  outgoing.writeHead(body.error ? 400 : 200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
});
await new Promise((resolve) => upstream.listen(0, '127.0.0.1', resolve));

const directory = await mkdtemp(path.join(tmpdir(), 'batchwright-sdk-lines-'));
const { client } = await inFrontOf(`http://127.0.0.1:${upstream.address().port}/v1`);
after(async () => {
  upstream.closeAllConnections();
  upstream.close();
  await rm(directory, { recursive: true, force: true });
});

function rows(model) {
  return NUMBERS.map((number) => {
    const row = chatRow(customId(model, number), model);
    row.body.messages[0].content = said(number);
    return row;
  });
}

const batch = await run(client, jsonl([...rows('good'), ...rows('broken')]));

const body = async (id) => Readable.fromWeb((await client.files.content(id)).body);

async function onDisk(id) {
  const file = path.join(directory, id);
  await writeFile(file, await body(id));
  return file;
}

async function all(lines) {
  const read = [];
  for await (const line of lines) read.push(line);
  return read;
}

const READERS = {
  'text and split': async (id) => (await (await client.files.content(id)).text()).trimEnd().split('\n'),
  'text and split at every line break': async (id) =>
    (await (await client.files.content(id)).text()).trimEnd().split(/\r\n|[\n\v\f\r\u0085\u2028\u2029]/),
  'text and ^.*$': async (id) => (await (await client.files.content(id)).text()).match(/^.+$/gm),
  'readline of the body': async (id) => all(createInterface({ input: await body(id), crlfDelay: Infinity })),
  'readline of a file': async (id) => all(createInterface({ input: createReadStream(await onDisk(id)) })),
  'readLines of a file': async (id) => all((await open(await onDisk(id))).readLines()),
  'the stream of the SDK': async (id) =>
    all(Stream.fromReadableStream((await client.files.content(id)).body, new AbortController())),
};

/** A line as an object, unless its reader has parsed it. */
const parsed = (line) => (typeof line === 'string' ? JSON.parse(line) : line);

for (const [name, read] of Object.entries(READERS)) {
  test(`each row that succeeds is one line: ${name}`, async () => {
    const lines = (await read(batch.output_file_id)).map(parsed);

    const contents = new Map(lines.map((line) => [line.custom_id, line.response.body.choices[0].message.content]));
    assert.equal(lines.length, ROWS);
    for (const number of NUMBERS) assert.equal(contents.get(customId('good', number)), said(number));
  });

  test(`each row that fails is one line: ${name}`, async () => {
    const lines = (await read(batch.error_file_id)).map(parsed);

    const messages = new Map(lines.map((line) => [line.custom_id, line.response.body.error.message]));
    assert.equal(lines.length, ROWS);
    for (const number of NUMBERS) assert.equal(messages.get(customId('broken', number)), said(number));
  });
}
