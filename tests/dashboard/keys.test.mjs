// The sign-in in a real browser.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { AxeBuilder } from '@axe-core/playwright';

import { BINARY, CHAT, Stage, rows, until } from './stage.mjs';

let stage;
let keys;

before(async () => {
  stage = await Stage.start();
  keys = { writer: await makeKey('team-a', 'write'), reader: await makeKey('team-a', 'read') };
  await until('calls to need a key', async () => (await fetch(`${stage.url}/v1/batches`)).status === 401);
});
after(() => stage?.stop());

async function makeKey(project, scopes) {
  const made = ['keys', 'create', '--project', project, '--scopes', scopes, '--data-dir', `${stage.directory}/data`];
  return (await promisify(execFile)(BINARY, made)).stdout.trim();
}

async function axe(page) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    const { violations } = await new AxeBuilder({ page }).analyze();
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`), []);
  }
}

async function signIn(page, key) {
  await page.getByLabel('API key').fill(key);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

test('a visitor signs in with a key, sees what is of its project, and signs out', async () => {
  const page = await stage.tab();
  await page.goto('/dashboard/batches?status=active');
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  assert.equal(await page.getByRole('navigation').count(), 0);
  await axe(page);

  await signIn(page, 'bw-wrong');
  await page.getByRole('alert').getByText('not accepted').waitFor();
  await axe(page);
  // A refused sign-in is answered 401, which browsers tell.
  assert.equal(page.complaints.filter((complaint) => !complaint.includes('401')).length, 0, page.complaints.join('\n'));
  page.complaints.length = 0;

  await signIn(page, keys.writer);
  await page.getByRole('heading', { name: 'Batches' }).waitFor();
  assert.ok(page.url().endsWith('/dashboard/batches?status=active'), page.url());
  await page.getByText('team-a').waitFor();
  assert.equal(await page.evaluate(() => document.cookie), '', 'no script can read the session');

  await page.getByRole('link', { name: 'Submit' }).click();
  const file = rows(3).map((row) => JSON.stringify(row)).join('\n');
  await page.getByLabel('Drop a file here').setInputFiles({ name: 'in.jsonl', mimeType: 'text/plain', buffer: Buffer.from(file) });
  await page.getByRole('button', { name: 'Upload and check' }).click();
  await page.getByRole('button', { name: 'Create the batch: 3 rows' }).click();
  await page.getByText('completed', { exact: true }).first().waitFor();
  const download = page.waitForEvent('download');
  await page.getByRole('row', { name: 'Output' }).getByRole('link').click();
  assert.ok((await download).url().includes('/dashboard/files/file-'));
  await axe(page);
  assert.deepEqual(page.complaints, []);

  const batch = page.url();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await page.goto(batch);
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
});

/** A call of the API by a program with a key that may write. */
async function api(route, options) {
  const answer = await fetch(`${stage.url}${route}`, { method: 'POST', ...options, headers: { ...options.headers, 'x-api-key': keys.writer } });
  return answer.json();
}

test('a key that may only read has no buttons', async () => {
  const form = new FormData();
  form.append('purpose', 'batch');
  form.append('file', new File([JSON.stringify(rows(1)[0])], 'in.jsonl'));
  const file = await api('/v1/files', { body: form });
  const body = JSON.stringify({ input_file_id: file.id, endpoint: CHAT, completion_window: '24h' });
  const batch = await api('/v1/batches', { body, headers: { 'content-type': 'application/json' } });
  const page = await stage.tab();
  await page.goto(`/dashboard/batches/${batch.id}`);
  await signIn(page, keys.reader);
  await page.getByRole('heading', { name: batch.id }).waitFor();
  assert.equal(await page.locator('[data-dialog]').count(), 0);
  assert.equal(await page.getByRole('link', { name: 'Submit' }).count(), 0);
  await axe(page);
  assert.deepEqual(page.complaints, []);
});
