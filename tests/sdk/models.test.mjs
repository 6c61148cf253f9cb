// The models that rows may name, with the Node SDK: listing them, and retrieving one.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

import { server } from './server.mjs';

const { client } = await server();

test('each listed model can be retrieved', async () => {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model);

  assert.deepEqual(listed.map((model) => model.id), ['simulator']);
  assert.deepEqual({ ...(await client.models.retrieve('simulator')) }, { ...listed[0] });
});

for (const model of ['gpt', 'Qwen/Qwen3-8B']) {
  test(`a model that is not listed is not found: ${model}`, async () => {
    await assert.rejects(client.models.retrieve(model), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError, `${error}`);
      assert.equal(error.code, 'model_not_found');
      assert.ok(error.message.includes(`'${model}'`), error.message);
      return true;
    });
  });
}
