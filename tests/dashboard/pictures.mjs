// Makes the pictures of docs/pictures, from a server with simulated batches.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { Process, Stage, Upstream, row, until } from './stage.mjs';

const FOLDER = path.resolve(import.meta.dirname, '../../docs/pictures');
const WORK_MS = Number(process.env.WORK_MS ?? 100_000);

const topics = ['reviews', 'tickets', 'abstracts', 'contracts', 'captions'];

function chats(count, model, failing = 0) {
  return Array.from({ length: count }, (_, no) => {
    const fails = failing && no % failing === failing - 1;
    const content = `Classify this one of our ${topics[no % topics.length]}: number ${no}.`;
    return row(`${topics[no % topics.length]}-${String(no).padStart(5, '0')}`, {
      model: fails ? 'simulator-fail-400' : model,
      messages: [{ role: 'system', content: 'Answer with one word.' }, { role: 'user', content }],
      temperature: 0.0,
      seed: 9007199254740993,
    });
  });
}

function loop() {
  const script = {
    turns: [[{ name: 'add', arguments: { a: 1.5 } }, { name: 'add', arguments: { a: 40 } }], [{ name: 'add', arguments: { a: 2 } }]],
    answer: 'The sum is 43.5.',
  };
  const body = { model: 'Qwen/Qwen3-8B', messages: undefined, input: `simulate:${JSON.stringify(script)}` };
  return [row('invoice-0042', { ...body, tools: [{ type: 'function', name: 'add' }] }, '/v1/responses')];
}

const simulator = new Process('simulate', '--listen', '127.0.0.1:0', '--latency', 'lognormal:1500ms:0.6', '--max-parallel', '160');
const tools = new Upstream();
tools.reply = async () => ({ raw: { sum: 43.5 } });
await tools.listen();
const settings = `
[[tools]]
name = "add"
description = "Adds."
parameters = { type = "object", properties = { a = { type = "number" } } }
url = "${tools.url}/tool"
`;
const stage = await Stage.start({ upstream: { url: await simulator.address() }, settings, flags: ['--max-concurrency', '128'] });
await mkdir(FOLDER, { recursive: true });

const named = (team, task) => ({ metadata: { team, task } });
const loopBatch = await stage.submit(loop(), { endpoint: '/v1/responses', ...named('finance', 'invoices') });
const ended = [];
ended.push(await stage.submit(chats(400, 'Qwen/Qwen3-8B'), named('search', 'labels')));
ended.push(await stage.submit(chats(260, 'mistral-small', 20), named('support', 'routing')));
await Promise.all(ended.map((id) => stage.ended(id)));
await stage.submit(chats(900, 'mistral-small'), named('support', 'summaries'));
const main = await stage.submit(chats(12_000, 'Qwen/Qwen3-8B', 60), { name: 'reviews-2026-11.jsonl', ...named('search', 'evaluation') });
await stage.submit(chats(3_000, 'gpt-oss-20b'), named('research', 'abstracts'));
await stage.ended(loopBatch);
const checked = await stage.upload(chats(2_500, 'Qwen/Qwen3-8B'), 'contracts.jsonl');
await pause(WORK_MS);
await until('failures', async () => (await stage.api(`/v1/batches/${main}/progress`)).failures.length > 0);

const batch = `/dashboard/batches/${main}`;
const pictures = [
  ['overview', '/dashboard', true], ['batches', '/dashboard/batches', false], ['batch', batch, true],
  ['row', `/dashboard/batches/${loopBatch}/rows?custom_id=invoice-0042`, false],
  ['submit', `/dashboard/submit/${checked.id}`, false], ['upstreams', '/dashboard/upstreams', false],
  ['sign-in', '/dashboard/sign-in', false],
];
for (const [name, url, hasDark] of pictures) {
  for (const colorScheme of hasDark ? ['light', 'dark'] : ['light']) {
    const page = await stage.tab({ colorScheme, viewport: { width: 1280, height: 720 }, locale: 'en-GB', timezoneId: 'Europe/Berlin' });
    await page.goto(url);
    if (name === 'row') await page.locator('summary').nth(1).click();
    await page.waitForTimeout(300);
    const suffix = colorScheme === 'dark' ? '-dark' : '';
    await page.screenshot({ path: path.join(FOLDER, `${name}${suffix}.png`), fullPage: name === 'batch' });
    await page.context().close();
  }
}
await stage.stop();
tools.server.closeAllConnections();
tools.server.close();
await simulator.stop();
