// The dashboard in a real browser.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';

import { AxeBuilder } from '@axe-core/playwright';

import { Stage, completion, row, rows, until } from './stage.mjs';

const ROW = 'custom_id';
let stage;

before(async () => {
  const settings = `
[[tools]]
name = "add"
description = "Adds."
parameters = { type = "object", properties = { a = { type = "number" } } }
url = "TOOLS/tool"
`;
  stage = await Stage.start({ settings, flags: ['--max-concurrency', '4', '--concurrency', 'fixed'] });
});
after(() => stage?.stop());

const rowUrl = (id, name) => `/dashboard/batches/${id}/rows?${ROW}=${encodeURIComponent(name)}`;

function isQuiet(page) {
  assert.deepEqual(page.complaints, []);
}

/** Only colours differ in the dark. */
async function axe(page, isDark = false) {
  const builder = new AxeBuilder({ page });
  const { violations } = await (isDark ? builder.withRules(['color-contrast']) : builder).analyze();
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`);
  assert.deepEqual(told, [], page.url());
}

/** Answers that fail, and one that is as hostile as it can be. */
function failing(body) {
  const said = body.messages?.[0]?.content ?? '';
  return said.startsWith('fail:')
    ? { httpStatus: 400, error: { message: said.slice(5), code: 'refused' } }
    : completion(said);
}

test('every page is in order for axe, in light and dark, and nobody complains', async () => {
  stage.upstream.answer = failing;
  const done = await stage.submit([row('good'), row('bad', { messages: [{ role: 'user', content: 'fail:No.' }] })], {
    metadata: { team: 'search', purpose: 'evaluation' },
  });
  await stage.ended(done);
  const release = stage.upstream.hold();
  const running = await stage.submit(rows(30));
  await until('running rows', async () => (await stage.api(`/v1/batches/${running}/progress`)).rows.running > 0);
  const file = await stage.upload(rows(3));
  const refused = await stage.submit([row('twice'), row('twice')]);
  await stage.ended(refused);
  const pages = [
    '/dashboard', '/dashboard/batches', '/dashboard/batches?status=failed', `/dashboard/batches/${done}`,
    `/dashboard/batches/${running}`, `/dashboard/batches/${refused}`, rowUrl(done, 'bad'), rowUrl(running, 'row-3'), '/dashboard/upstreams',
    '/dashboard/submit', `/dashboard/submit/${file.id}`, `/dashboard/submit/${file.id}?endpoint=%2Fv1%2Fembeddings`,
  ];
  for (const colorScheme of ['light', 'dark']) {
    const page = await stage.tab({ colorScheme });
    for (const url of pages) {
      const answer = await page.goto(url);
      assert.equal(answer.status(), 200, url);
      await axe(page, colorScheme === 'dark');
      isQuiet(page);
    }
    await page.goto('/dashboard/none');
    await axe(page, colorScheme === 'dark');
    await page.context().close();
  }
  release();
  await stage.ended(running);
});

test('a batch is paused and resumed, and its rows that failed run again, once', async () => {
  stage.upstream.answer = failing;
  const release = stage.upstream.hold();
  const failed = [0, 1, 2].map((no) => row(`bad-${no}`, { messages: [{ role: 'user', content: 'fail:No.' }] }));
  const id = await stage.submit([...rows(20), ...failed]);
  const page = await stage.tab();
  const act = async (button, sure, effect) => {
    await page.getByRole('button', { name: button }).click();
    const dialog = page.getByRole('dialog');
    assert.match(await dialog.textContent(), effect);
    await axe(page);
    await dialog.getByRole('button', { name: sure }).click();
  };
  await page.goto(`/dashboard/batches/${id}`);
  await page.locator('#every').selectOption('1');
  await page.getByText(/running [1-4]/).waitFor();

  await act('Pause…', 'Pause the batch', /23 rows without a result/);
  await page.locator('.notice', { hasText: 'paused by request' }).waitFor();
  release();
  await page.getByText('running 0').waitFor();
  const { waiting } = (await stage.api(`/v1/batches/${id}/progress`)).rows;
  assert.ok(waiting >= 19, `${waiting} rows wait`);
  await act('Resume…', 'Resume the batch', new RegExp(`${waiting} rows without a result`));
  await page.locator('.status.completed').waitFor();

  await act('Retry…', 'Run them again', /3 rows will run again/);
  await page.waitForURL((url) => url.pathname.startsWith('/dashboard/batches/') && !url.pathname.endsWith(id));
  const again = page.url();
  await page.getByText('of 3 rows').waitFor();
  // The same button leads to the same batch.
  await page.goto(`/dashboard/batches/${id}`);
  await act('Retry…', 'Run them again', /3 rows will run again/);
  await page.waitForURL(again);
  await stage.ended(again.split('/').pop());
  isQuiet(page);
  await page.context().close();
});

test('a batch page follows its batch, in two tabs, and is cancelled once', async () => {
  stage.upstream.answer = failing;
  const release = stage.upstream.hold();
  const id = await stage.submit(rows(40));
  const [one, other] = [await stage.tab(), await stage.tab()];
  for (const page of [one, other]) {
    await page.goto(`/dashboard/batches/${id}`);
    await page.locator('#every').selectOption('1');
    await page.getByText('running 4').waitFor();
  }
  assert.match(await one.locator('.notice').textContent(), /as many calls|--max-concurrency/i);

  await one.getByRole('button', { name: 'Cancel…' }).click();
  const dialog = one.getByRole('dialog');
  assert.match(await dialog.textContent(), /40 rows without a result/);
  await dialog.getByRole('button', { name: 'Keep it running' }).click();
  assert.equal((await stage.api(`/v1/batches/${id}`)).status, 'in_progress');

  // Both ask, and both are told that it is cancelled.
  for (const page of [one, other]) await page.getByRole('button', { name: 'Cancel…' }).click();
  for (const page of [one, other]) await page.getByRole('button', { name: 'Cancel the batch' }).click();
  for (const page of [one, other]) {
    await page.locator('.status.cancelled').waitFor();
    assert.equal(await page.getByRole('button', { name: 'Cancel…' }).count(), 0);
    isQuiet(page);
    await page.context().close();
  }
  release();
});

test('a page asks only while it is seen, and not when it is told to be still', async () => {
  const page = await stage.tab();
  let asked = 0;
  await page.goto('/dashboard');
  page.on('request', () => (asked += 1));
  await page.locator('#every').selectOption('1');
  await until('two requests', () => asked >= 2);

  await page.locator('#every').selectOption('0');
  await page.waitForLoadState('networkidle');
  asked = 0;
  await page.waitForTimeout(2500);
  assert.equal(asked, 0);
  await page.reload();
  assert.equal(await page.locator('#every').inputValue(), '0', 'it is remembered');

  await page.locator('#every').selectOption('1');
  await page.evaluate(() => Object.defineProperty(document, 'hidden', { get: () => true }));
  await page.waitForLoadState('networkidle');
  asked = 0;
  await page.waitForTimeout(2500);
  assert.equal(asked, 0);
  isQuiet(page);
  await page.context().close();
});

test('a page that is put together anew keeps focus, scroll, open parts and selections', async () => {
  stage.upstream.answer = failing;
  const id = await stage.submit(rows(60));
  await stage.ended(id);
  const page = await stage.tab({ viewport: { width: 900, height: 420 } });
  await page.goto(`/dashboard/batches/${id}`);
  await page.locator('#every').selectOption('1');
  await page.locator('summary').click();
  await page.locator('summary').focus();
  await page.evaluate(() => {
    scrollTo(0, 160);
    window.plotted = document.querySelector('#plot canvas');
  });
  const before = await page.evaluate(() => scrollY);
  const asked = [];
  page.on('response', (response) => asked.push(response.status()));

  await until('three answers', () => asked.length >= 3);

  const stays = await page.evaluate(() => ({
    scroll: scrollY,
    focus: document.activeElement.tagName,
    open: document.querySelector('details').open,
    plot: document.querySelector('#plot canvas') === window.plotted,
  }));
  assert.deepEqual(new Set(asked.slice(1)), new Set([304]), 'what is unchanged is not sent');
  assert.deepEqual(stays, { scroll: before, focus: 'SUMMARY', open: true, plot: true });
  isQuiet(page);
  await page.context().close();
});

test('a server that is gone is said to be, and what was seen stays', async () => {
  const page = await stage.tab();
  await page.goto('/dashboard/batches');
  await page.locator('#every').selectOption('1');
  const seen = await page.locator('tbody tr').count();
  assert.ok(seen > 0);
  await page.context().setOffline(true);
  await page.getByText('cannot be reached').waitFor();
  assert.equal(await page.locator('tbody tr').count(), seen);
  await page.context().setOffline(false);
  await until('a fresh page', async () => (await page.locator('#connection').textContent()) === '');
  await page.context().close();
});

test('a row that has no result yet is followed until it has one', async () => {
  const release = stage.upstream.hold();
  const id = await stage.submit([row('first'), row('second')]);
  const page = await stage.tab();
  await until('it runs', async () => (await stage.api(`/v1/batches/${id}`)).status === 'in_progress');
  await page.goto(rowUrl(id, 'second'));
  await page.locator('#every').selectOption('1');
  assert.equal(await page.locator('#result').count(), 0);
  release();
  await page.locator('.status.completed').waitFor();
  await page.locator('#result').waitFor();
  let asked = 0;
  page.on('request', () => (asked += 1));
  await page.waitForTimeout(2500);
  assert.equal(asked, 0, 'it does not change any more');
  isQuiet(page);
  await page.context().close();
});

const HOSTILE = [
  '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' onfocus=alert(1) autofocus x='", '</pre><h1>big',
  '{{7*7}}', '../../x', '..', '.', 'a/b c?d#e&f', '\u202etxt.exe', '</textarea><svg/onload=alert(1)>', 'javascript:alert(1)',
  '<a data-hx-get="/v1/files" data-hx-trigger="load">', '%2e%2e%2f', 'é"\'`\\', '<!--', ']]>',
];

test('what others wrote is text: names, bodies, metadata, file names and messages of errors', async () => {
  stage.upstream.answer = failing;
  const lines = HOSTILE.map((text) => row(text, { messages: [{ role: 'user', content: `fail:${text}` }], user: text }));
  const answers = HOSTILE.map((text, no) => row(`answered-${no}`, { messages: [{ role: 'user', content: text }] }));
  const metadata = Object.fromEntries(HOSTILE.slice(0, 12).map((text) => [text, text]));
  const id = await stage.submit([...lines, ...answers], { name: '"><img src=x onerror=alert(1)>.jsonl', metadata });
  await stage.ended(id);
  const page = await stage.tab();

  await page.goto(`/dashboard/batches/${id}`);
  const shown = await page.locator('main').innerText();
  for (const text of HOSTILE.slice(0, 12)) assert.ok(shown.includes(text), text);
  assert.ok(shown.includes('<img src=x onerror=alert(1)>.jsonl'));
  for (const [no, text] of HOSTILE.entries()) {
    await page.goto(`/dashboard/batches/${id}`);
    await page.getByLabel(ROW, { exact: true }).fill(text);
    await page.getByRole('button', { name: 'Open' }).click();
    await page.getByRole('heading', { level: 1 }).waitFor();
    assert.equal(await page.locator('h1 .name').textContent(), text);
    const result = await page.locator('pre').first().textContent();
    assert.equal(JSON.parse(result).response.body.error.message, text);
    await page.goto(rowUrl(id, `answered-${no}`));
    const answer = JSON.parse(await page.locator('pre').first().textContent());
    assert.equal(answer.response.body.choices[0].message.content, text);
  }
  await page.goto(`/dashboard/batches?text=${encodeURIComponent(HOSTILE[1])}`);
  assert.equal(await page.getByLabel('Text').inputValue(), HOSTILE[1]);
  assert.equal(await page.locator('tbody tr').count(), 1);
  assert.equal(await page.locator('img, svg[onload], script:not([src])').count(), 0);
  isQuiet(page);
  await page.context().close();
});

test('numbers are shown as they came, and what is long is a download', async () => {
  const odd = '{"custom_id":"odd","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[],' +
    '"seed":12345678901234567890,"temperature":1.10,"x":1e2}}';
  const long = JSON.stringify(row('long', { messages: [{ role: 'user', content: 'x'.repeat(300 << 10) }] }));
  stage.upstream.answer = () => completion('short');
  const id = await stage.submit(`${odd}\n${long}`);
  await stage.ended(id);
  const page = await stage.tab();
  await page.goto(rowUrl(id, 'odd'));
  const request = await page.locator('section[aria-labelledby="request"] pre').textContent();
  for (const number of ['12345678901234567890', '1.10', '1e2']) assert.ok(request.includes(number), number);

  await page.goto(rowUrl(id, 'long'));
  await page.getByText('It is too long to be shown').waitFor();
  const coming = page.waitForEvent('download');
  await page.locator('section[aria-labelledby="request"] a').click();
  const download = await coming;
  assert.equal(await readFile(await download.path(), 'utf8'), long);
  isQuiet(page);
  await page.context().close();
});

test('the steps of a tool loop are a tree', async () => {
  stage.upstream.answer = (body) => {
    const has = body.input?.some?.((item) => item.type === 'function_call_output');
    const call = { type: 'function_call', id: 'fc_1', call_id: 'call_1', name: 'add', arguments: '{"a":1.0}', status: 'completed' };
    const text = { type: 'message', id: 'msg_1', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: 'Three.', annotations: [] }] };
    return { id: 'resp_1', object: 'response', created_at: 1, model: 'm', status: 'completed', output: [has ? text : call] };
  };
  const body = { model: 'm', messages: undefined, input: 'Add.', tools: [{ type: 'function', name: 'add' }] };
  const id = await stage.submit([row('loop', body, '/v1/responses')], { endpoint: '/v1/responses' });
  await stage.ended(id);
  const page = await stage.tab();
  await page.goto(rowUrl(id, 'loop'));
  assert.deepEqual(await page.locator('.step-path').allTextContents(), ['0', '0.0', '1']);
  await page.locator('summary', { hasText: 'tool add' }).click();
  const texts = await page.locator('.steps details[open] pre').allTextContents();
  assert.ok(texts[0].includes('1.0'), texts[0]);
  assert.ok(texts[1].includes('<b onclick=alert(1)>three</b>'), texts[1]);
  await axe(page);
  isQuiet(page);
  await page.context().close();
});

test('the attempts of a row that was tried again are a table', async () => {
  let calls = 0;
  stage.upstream.answer = () => ((calls += 1) === 1 ? { httpStatus: 503, error: { message: '<b>Busy.</b>' } } : completion('ok'));
  const id = await stage.submit([row('again')]);
  await stage.ended(id);
  const page = await stage.tab();
  await page.goto(rowUrl(id, 'again'));
  const table = page.getByRole('region', { name: 'Attempts' }).getByRole('table');
  assert.deepEqual(await table.locator('tbody th').allTextContents(), ['–', '1']);
  assert.deepEqual(await table.locator('.status').allTextContents(), ['waited', 'completed']);
  assert.match(await table.locator('tbody tr').first().textContent(), /default/);
  await axe(page);
  isQuiet(page);
  await page.context().close();
  const dark = await stage.tab({ colorScheme: 'dark' });
  await dark.goto(rowUrl(id, 'again'));
  await axe(dark, true);
  isQuiet(dark);
  await dark.context().close();
});

test('a file is checked before anything runs, and becomes a batch once', async () => {
  stage.upstream.answer = () => completion('ok');
  const page = await stage.tab();
  const file = (name, text) => ({ name, mimeType: 'application/jsonl', buffer: Buffer.from(text) });
  const lines = (many) => many.map((line) => JSON.stringify(line)).join('\n');
  const before = (await stage.api('/v1/batches')).data.length;

  await page.goto('/dashboard/submit');
  const wrong = `${JSON.stringify(row('a'))}\n{"custom_id":\n${JSON.stringify(row('a'))}`;
  await page.getByLabel('Drop a file here').setInputFiles(file('wrong.jsonl', wrong));
  await page.getByRole('button', { name: 'Upload and check' }).click();
  await page.getByText('The file cannot be run').waitFor();
  assert.deepEqual(await page.locator('tbody td:first-child').allTextContents(), ['2', '3']);
  assert.equal(await page.getByRole('button', { name: 'Create the batch' }).count(), 0);
  assert.equal((await stage.api('/v1/batches')).data.length, before);

  await page.goto('/dashboard/submit');
  await page.getByLabel('Drop a file here').setInputFiles(file('none.jsonl', 'no json'));
  await page.getByRole('button', { name: 'Upload and check' }).click();
  await page.locator('#upload-status', { hasText: 'JSON' }).waitFor();
  assert.match(page.complaints.pop(), /400/, 'the browser says so by itself');

  await page.goto('/dashboard/submit');
  await page.evaluate((text) => {
    const data = new DataTransfer();
    data.items.add(new File([text], 'dropped.jsonl'));
    document.querySelector('#upload').dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
  }, lines(rows(5)));
  await page.getByText('The file is in order.').waitFor();
  const url = page.url();
  await page.getByRole('button', { name: 'Create the batch: 5 rows' }).click();
  await page.locator('.status.completed').waitFor();
  const id = page.url().split('/').pop();
  assert.equal((await stage.ended(id)).request_counts.completed, 5);

  // The same form again, as a browser that goes back sends it.
  await page.goto(url);
  const again = await page.evaluate(async () => {
    const form = new FormData(document.querySelectorAll('form')[1]);
    const body = () => new URLSearchParams(form);
    const send = () => fetch(location.pathname, { method: 'POST', body: body() });
    return [(await send()).url, (await send()).url];
  });
  assert.equal(again[0], again[1]);
  isQuiet(page);
  await page.context().close();
});

test('the list is filtered and goes on by its URL', async () => {
  stage.upstream.answer = failing;
  const ids = [];
  for (let no = 0; no < 23; no += 1) ids.push(await stage.submit(rows(1), { metadata: { series: 'many', no: `n${no}` } }));
  await Promise.all(ids.map((id) => stage.ended(id)));
  const page = await stage.tab();
  await page.goto('/dashboard/batches');
  await page.getByLabel('Status').selectOption('completed');
  await page.getByLabel('Text').fill('"series":"many"');
  await page.getByRole('button', { name: 'Filter' }).click();
  await page.waitForURL(/status=completed/);
  const listed = () => page.locator('tbody tr').evaluateAll((lines) => lines.map((line) => line.id));
  const first = await listed();
  assert.deepEqual(first, ids.toReversed().slice(0, 20));
  await page.reload();
  assert.deepEqual(await listed(), first);
  await page.getByRole('link', { name: 'Next page' }).click();
  assert.deepEqual(await listed(), ids.toReversed().slice(20));
  await page.getByRole('link', { name: 'First page' }).click();
  assert.deepEqual(await listed(), first);
  isQuiet(page);
  await page.context().close();
});

test('everything can be done with the keyboard', async () => {
  const release = stage.upstream.hold();
  const id = await stage.submit(rows(10));
  await until('it runs', async () => (await stage.api(`/v1/batches/${id}`)).status === 'in_progress');
  const page = await stage.tab();
  const tabTo = async (isIt) => {
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press('Tab');
      if (await page.evaluate(isIt)) return;
    }
    assert.fail(`the focus does not come to ${isIt}`);
  };
  await page.goto('/dashboard');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  await tabTo(() => document.activeElement.closest('tbody a') !== null);
  await page.keyboard.press('Enter');
  await page.waitForURL(/batches\/batch_/);
  await tabTo(() => document.activeElement.textContent === 'Cancel…');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('dialog[open]').count(), 0);
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Cancel the batch');
  await page.keyboard.press('Enter');
  await page.locator('.status.cancelled').waitFor();
  release();
  await tabTo(() => document.activeElement.id === 'custom_id');
  await page.keyboard.type('row-3');
  await page.keyboard.press('Enter');
  await page.waitForURL(/custom_id=row-3/);
  isQuiet(page);
  await page.context().close();
});

test('copying works with and without the clipboard of scripts', async () => {
  const [batch] = (await stage.api('/v1/batches?limit=1')).data;
  for (const hasClipboard of [true, false]) {
    const page = await stage.tab({ permissions: ['clipboard-read', 'clipboard-write'] });
    if (!hasClipboard) {
      await page.addInitScript(() => Object.defineProperty(Navigator.prototype, 'clipboard', { get: () => undefined }));
    }
    await page.goto(`/dashboard/batches/${batch.id}`);
    await page.getByRole('button', { name: 'Copy the id of the batch' }).click();
    await page.getByRole('button', { name: 'Copy the id of the batch' }).getByText('Copied').waitFor();
    await page.getByLabel(ROW, { exact: true }).focus();
    await page.keyboard.press('Control+V');
    assert.equal(await page.getByLabel(ROW, { exact: true }).inputValue(), batch.id);
    isQuiet(page);
    await page.context().close();
  }
});

test('times are those of the visitor, with UTC as their title', async () => {
  const [batch] = (await stage.api('/v1/batches?limit=1')).data;
  const page = await stage.tab({ timezoneId: 'Asia/Kolkata', locale: 'en-GB' });
  await page.goto(`/dashboard/batches/${batch.id}`);
  const created = page.locator('.timeline time').first();
  const at = new Date(batch.created_at * 1000);
  const utc = at.toISOString().slice(0, 19).replace('T', ' ');
  assert.equal(await created.getAttribute('title'), `${utc} UTC`);
  const there = at.toLocaleTimeString('en-GB', { timeZone: 'Asia/Kolkata', hour12: false });
  assert.equal(await created.textContent(), there);
  isQuiet(page);
  await page.context().close();
});
