// Errors as the Node SDK throws them (contract §1.6, §1.7 and §8.1).

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

import { CHAT, server } from './server.mjs';

const UNKNOWN = 'batch_00000000000000000000000000000000';
const PARAMS = { input_file_id: 'file-000000000000000000000a', endpoint: CHAT, completion_window: '24h' };

const here = await server();

/** Expects an error of a class with members, after one request: what is refused must not be tried again. */
async function refused(call, Class, members) {
  here.sent.length = 0;
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof Class, `${error}`);
    for (const [name, value] of Object.entries(members)) assert.deepEqual(error[name], value, name);
    assert.match(error.requestID, /^req_[0-9a-f]{32}$/);
    assert.deepEqual(Object.keys(error.error).sort(), ['code', 'message', 'param', 'type']);
    return true;
  });
  assert.equal(here.sent.length, 1);
}

for (const name of Object.keys(PARAMS)) {
  test(`a batch without ${name} is refused`, async () => {
    const { [name]: _, ...params } = PARAMS;

    await refused(() => here.client.batches.create(params), OpenAI.BadRequestError, {
      status: 400,
      type: 'invalid_request_error',
      code: 'missing_required_parameter',
      param: name,
      message: `400 Missing required parameter: '${name}'.`,
    });
  });
}

for (const [what, params, expected] of [
  ['an unknown endpoint', { endpoint: '/v1/x' }, { code: 'invalid_value', param: 'endpoint' }],
  ['an unknown window', { completion_window: '48h' }, { code: 'invalid_value', param: 'completion_window' }],
  ['an id that is no file', { input_file_id: 'wrong-id' }, { code: 'invalid_value', param: 'input_file_id' }],
  ['metadata of another type', { metadata: { tags: ['a'] } }, { code: 'invalid_type', param: 'metadata.tags' }],
  [
    'too many pairs of metadata',
    { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, number) => [`key-${number}`, 'value'])) },
    { code: 'object_above_max_properties', param: 'metadata' },
  ],
  [
    'a metadata value that is too long',
    { metadata: { note: 'v'.repeat(513) } },
    { code: 'string_above_max_length', param: 'metadata.note' },
  ],
  [
    'result files kept for too short a time',
    { output_expires_after: { anchor: 'created_at', seconds: 3599 } },
    { code: 'integer_below_min_value', param: 'output_expires_after.seconds' },
  ],
  [
    'result files kept for too long a time',
    { output_expires_after: { anchor: 'created_at', seconds: 2_592_001 } },
    { code: 'integer_above_max_value', param: 'output_expires_after.seconds' },
  ],
]) {
  test(`a batch with ${what} is refused`, async () => {
    await refused(() => here.client.batches.create({ ...PARAMS, ...params }), OpenAI.BadRequestError, {
      status: 400,
      ...expected,
    });
  });
}

for (const action of ['retrieve', 'cancel']) {
  test(`an unknown batch is not found by ${action}`, async () => {
    await refused(() => here.client.batches[action](UNKNOWN), OpenAI.NotFoundError, {
      status: 404,
      type: 'invalid_request_error',
      code: null,
      param: null,
      message: `404 No batch found with id '${UNKNOWN}'.`,
    });
  });

  test(`an id that does not begin like a batch is refused by ${action}`, async () => {
    await refused(() => here.client.batches[action]('wrong-id'), OpenAI.BadRequestError, {
      code: 'invalid_value',
      param: 'batch_id',
    });
  });
}

test('an unknown route is not found', async () => {
  await refused(() => here.client.get('/x'), OpenAI.NotFoundError, { message: '404 Invalid URL (GET /v1/x)' });
});

test('a method that a route does not have is not allowed', async () => {
  await refused(() => here.client.put('/batches'), OpenAI.APIError, {
    status: 405,
    message: '405 Not allowed to PUT on /v1/batches.',
  });
});

test('an answer names its request', async () => {
  assert.match((await here.client.batches.create(PARAMS))._request_id, /^req_[0-9a-f]{32}$/);
});
