// Batches with the Node SDK, from their creation to their result files (contract §6 to §9).

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

import { BATCH_KEYS, CHAT, chatRow, create, ids, jsonl, linesOf, run, server, upload, wait } from './server.mjs';

const GOOD = chatRow('good');
const BAD = chatRow('bad', 'simulator-fail-400');
const HANGING = chatRow('hanging', 'simulator-hang');
const NO_USAGE = {
  input_tokens: 0,
  input_tokens_details: { cached_tokens: 0 },
  output_tokens: 0,
  output_tokens_details: { reasoning_tokens: 0 },
  total_tokens: 0,
};

const here = await server();
// Without a worker, batches stay `validating`, and `cancelling` once they are called off.
const idle = await server('--role', 'api');
const hasty = await server('--completion-windows', '24h,2s');

test('a new batch has all keys', async () => {
  const batch = await create(here.client, jsonl([GOOD]));

  assert.deepEqual(Object.keys(batch), BATCH_KEYS);
});

test('a new batch is validating and counts nothing', async () => {
  const batch = await create(here.client, jsonl([GOOD]));

  assert.equal(batch.status, 'validating');
  assert.deepEqual(batch.request_counts, { total: 0, completed: 0, failed: 0 });
  assert.deepEqual(batch.usage, NO_USAGE);
  assert.equal(batch.expires_at, batch.created_at + 86_400);
});

test('every row that succeeds has an output line', async () => {
  const rows = Array.from({ length: 30 }, (_, number) => chatRow(`r-${number}`));

  const batch = await run(here.client, jsonl(rows));

  const lines = await linesOf(here.client, batch.output_file_id);
  assert.equal(batch.status, 'completed');
  assert.deepEqual(ids(lines), ids(rows));
  for (const line of lines) {
    assert.deepEqual(Object.keys(line), ['id', 'custom_id', 'response', 'error']);
    assert.deepEqual(Object.keys(line.response), ['status_code', 'request_id', 'body']);
    assert.equal(line.response.status_code, 200);
    assert.equal(line.response.body.object, 'chat.completion');
    assert.equal(line.error, null);
  }
});

test('rows that fail have an error line and the others an output line', async () => {
  const batch = await run(here.client, jsonl([GOOD, BAD]));

  const [failed, ...others] = await linesOf(here.client, batch.error_file_id);
  assert.deepEqual(batch.request_counts, { total: 2, completed: 1, failed: 1 });
  assert.deepEqual(ids(await linesOf(here.client, batch.output_file_id)), ['good']);
  assert.deepEqual([failed.custom_id, failed.response.status_code, failed.error], ['bad', 400, null]);
  assert.deepEqual(others, []);
});

test('a batch whose rows all fail is completed without an output file', async () => {
  const batch = await run(here.client, jsonl([BAD]));

  assert.equal(batch.status, 'completed');
  assert.equal(batch.output_file_id, null);
  assert.deepEqual(batch.request_counts, { total: 1, completed: 0, failed: 1 });
});

test('usage is the sum over the output lines', async () => {
  const batch = await run(here.client, jsonl([chatRow('r-1'), chatRow('r-2'), chatRow('r-3')]));

  const lines = await linesOf(here.client, batch.output_file_id);
  const sum = (name) => lines.reduce((total, line) => total + line.response.body.usage[name], 0);
  assert.equal(batch.usage.input_tokens, sum('prompt_tokens'));
  assert.equal(batch.usage.output_tokens, sum('completion_tokens'));
  assert.equal(batch.usage.total_tokens, sum('total_tokens'));
});

test('every bad line is reported with its number', async () => {
  const batch = await run(here.client, `${jsonl([GOOD])}{"custom_id":\n${jsonl([{ custom_id: 'r-3' }])}`);

  assert.equal(batch.status, 'failed');
  assert.deepEqual(
    batch.errors.data.map(({ code, line }) => [code, line]),
    [
      ['invalid_json_line', 2],
      ['missing_required_parameter', 3],
    ],
  );
  assert.deepEqual([batch.output_file_id, batch.error_file_id], [null, null]);
  assert.deepEqual(batch.request_counts, { total: 0, completed: 0, failed: 0 });
});

test('a custom_id that comes twice is reported at the later line', async () => {
  const batch = await run(here.client, jsonl([GOOD, GOOD]));

  assert.deepEqual(batch.errors.data.map(({ code, line }) => [code, line]), [['duplicate_custom_id', 2]]);
});

test('an unknown input file fails the batch and not its creation', async () => {
  const batch = await here.client.batches.create({
    input_file_id: 'file-000000000000000000000a',
    endpoint: CHAT,
    completion_window: '24h',
  });

  const failed = await wait(here.client, batch);
  assert.equal(failed.status, 'failed');
  assert.deepEqual([failed.errors.data[0].code, failed.errors.data[0].line], ['invalid_request', null]);
});

for (const [what, content] of [
  ['a byte order mark', `\ufeff${jsonl([GOOD])}`],
  ['lines that end in carriage return and line feed', jsonl([GOOD]).replace('\n', '\r\n')],
  ['blank lines', `\n${jsonl([GOOD])}\n\n`],
  ['no end of the last line', jsonl([GOOD]).trimEnd()],
]) {
  test(`an input file with ${what} is read`, async () => {
    const batch = await run(here.client, content);

    assert.deepEqual(ids(await linesOf(here.client, batch.output_file_id)), ['good']);
  });
}

test('metadata is echoed', async () => {
  const metadata = { project: 'größe 日本' };

  assert.deepEqual((await create(here.client, jsonl([GOOD]), { metadata })).metadata, metadata);
});

test('metadata may be null', async () => {
  assert.equal((await create(here.client, jsonl([GOOD]), { metadata: null })).metadata, null);
});

test('result files are kept as long as was asked', async () => {
  const output_expires_after = { anchor: 'created_at', seconds: 3600 };

  const batch = await run(here.client, jsonl([GOOD]), { output_expires_after });

  const file = await here.client.files.retrieve(batch.output_file_id);
  assert.equal(file.purpose, 'batch_output');
  assert.equal(file.expires_at, file.created_at + 3600);
});

test('result files are listed', async () => {
  const batch = await run(here.client, jsonl([GOOD, BAD]));

  const listed = [];
  for await (const file of here.client.files.list({ purpose: 'batch_output', limit: 5 })) listed.push(file.id);
  assert.ok(listed.includes(batch.output_file_id));
  assert.ok(listed.includes(batch.error_file_id));
});

test('an idempotency key makes a repetition return the first batch', async () => {
  const file = await upload(here.client, jsonl([GOOD]));
  const params = { input_file_id: file.id, endpoint: CHAT, completion_window: '24h' };
  const options = { headers: { 'Idempotency-Key': `key-${file.id}` } };

  const first = await here.client.batches.create(params, options);
  const second = await here.client.batches.create(params, options);

  assert.equal(second.id, first.id);
});

/** A batch in progress: its good row has run, the other never ends. */
async function halfDone() {
  const batch = await create(here.client, jsonl([GOOD, HANGING]));
  return wait(here.client, batch, (batch) => batch.request_counts.completed === 1);
}

test('a batch is called off while it runs', async () => {
  const batch = await halfDone();

  const cancelled = await here.client.batches.cancel(batch.id);

  assert.equal(cancelled.status, 'cancelling');
  assert.deepEqual([cancelled.output_file_id, cancelled.error_file_id], [null, null]);
});

test('every row of a batch called off has a line', async () => {
  const batch = await halfDone();
  await here.client.batches.cancel(batch.id);

  const cancelled = await wait(here.client, batch);

  const [line, ...others] = await linesOf(here.client, cancelled.error_file_id);
  assert.equal(cancelled.status, 'cancelled');
  assert.deepEqual(ids(await linesOf(here.client, cancelled.output_file_id)), ['good']);
  assert.deepEqual([line.custom_id, line.response, line.error.code], ['hanging', null, 'batch_cancelled']);
  assert.deepEqual(others, []);
  assert.deepEqual(cancelled.request_counts, { total: 2, completed: 1, failed: 0 });
});

test('calling off a cancelled batch returns it unchanged', async () => {
  const batch = await halfDone();
  await here.client.batches.cancel(batch.id);
  const cancelled = await wait(here.client, batch);

  assert.deepEqual(await here.client.batches.cancel(batch.id), cancelled);
});

test('a completed batch cannot be called off, and the SDK does not try again', async () => {
  const batch = await run(here.client, jsonl([GOOD]));
  assert.equal(here.client.maxRetries, 2);
  here.sent.length = 0;

  await assert.rejects(here.client.batches.cancel(batch.id), (error) => {
    assert.ok(error instanceof OpenAI.ConflictError);
    assert.equal(error.message, "409 Cannot cancel a batch with status 'completed'.");
    return true;
  });
  assert.equal(here.sent.length, 1);
});

test('a batch is called off while it is validated', async () => {
  const batch = await create(idle.client, jsonl([GOOD]));

  const cancelled = await idle.client.batches.cancel(batch.id);

  assert.equal(cancelled.status, 'cancelling');
  assert.equal(cancelled.in_progress_at, null);
});

test('calling off again while cancelling changes nothing', async () => {
  const batch = await create(idle.client, jsonl([GOOD]));
  const first = await idle.client.batches.cancel(batch.id);

  assert.deepEqual(await idle.client.batches.cancel(batch.id), first);
});

test('rows that are not through when the window closes have a line that says so', async () => {
  const batch = await run(hasty.client, jsonl([GOOD, HANGING]), { completion_window: '2s' });

  const [line] = await linesOf(hasty.client, batch.error_file_id);
  assert.equal(batch.status, 'expired');
  assert.deepEqual(ids(await linesOf(hasty.client, batch.output_file_id)), ['good']);
  assert.deepEqual([line.custom_id, line.response, line.error.code], ['hanging', null, 'batch_expired']);
  assert.deepEqual(batch.request_counts, { total: 2, completed: 1, failed: 0 });
});
