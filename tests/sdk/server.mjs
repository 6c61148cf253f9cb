// Starting and stopping `batchwright` processes, and what the tests do with batches over and over.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import OpenAI from 'openai';

const ROOT = path.resolve(import.meta.dirname, '../..');
const BINARY = path.resolve(process.env.BATCHWRIGHT_BIN ?? path.join(ROOT, 'target/debug/batchwright'));

// Generous, because machines that run tests are often busy. Nothing waits this long unless something is wrong.
const START_MS = 60_000;
const STOP_MS = 20_000;
const BATCH_MS = 60_000;

export const CHAT = '/v1/chat/completions';
export const BATCH_KEYS = [
  ...['id', 'object', 'endpoint', 'model', 'errors', 'input_file_id', 'completion_window', 'status'],
  ...['output_file_id', 'error_file_id', 'created_at', 'in_progress_at', 'expires_at', 'finalizing_at'],
  ...['completed_at', 'failed_at', 'expired_at', 'cancelling_at', 'cancelled_at'],
  ...['request_counts', 'usage', 'metadata'],
];

const TERMINAL = ['completed', 'failed', 'expired', 'cancelled'];

/** One `batchwright` process; `log` is all it has said. */
class Process {
  log = '';

  constructor(name, ...args) {
    this.name = name;
    // Settings of the shell that runs the tests must not change the servers under test.
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('BATCHWRIGHT_')));
    this.child = spawn(BINARY, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    this.child.on('error', (error) => (this.log += `${error}\n`));
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.log += text));
    }
    // Should this process end without its hooks, its servers must not stay behind.
    this.kill = () => this.child.kill('SIGKILL');
    process.once('exit', this.kill);
  }

  get hasEnded() {
    return this.child.pid === undefined || this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Polls until `read` gives something. */
  async until(what, read) {
    const deadline = Date.now() + START_MS;
    while (Date.now() < deadline) {
      const found = await read();
      if (found) return found;
      if (this.hasEnded) throw new Error(`${this.name} ended before ${what}:\n${this.log}`);
      await pause(20);
    }
    throw new Error(`${this.name}: no sign of ${what} within ${START_MS} ms:\n${this.log}`);
  }

  async listening() {
    const address = /(?:listening|simulating) address=(http:\/\/\S+)/;
    this.baseURL = (await this.until('its address', () => this.log.match(address)))[1];
  }

  async ready() {
    await this.listening();
    const url = `${this.baseURL.replace(/\/v1$/, '')}/readyz`;
    await this.until('its readiness', async () => {
      const reply = await fetch(url);
      await reply.arrayBuffer();
      return reply.ok;
    });
  }

  async stop() {
    process.off('exit', this.kill);
    if (this.hasEnded) return;
    const ended = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    const forced = setTimeout(this.kill, STOP_MS);
    await ended;
    clearTimeout(forced);
  }
}

/**
 * Starts a simulator and a batch server for the tests of a file, and stops them at its end.
 *
 * Gives the official client, changed in nothing but its base URL, and the requests it sends.
 */
export async function server(...args) {
  const upstream = new Process('simulate', 'simulate', '--listen', '127.0.0.1:0', '--latency', '5ms');
  await upstream.listening();
  const here = await inFrontOf(upstream.baseURL, ...args);
  stopAtTheEnd(upstream, args);
  return here;
}

/** Starts a batch server in front of an inference server, otherwise as `server`. */
export async function inFrontOf(upstreamURL, ...args) {
  const directory = await mkdtemp(path.join(tmpdir(), 'batchwright-sdk-'));
  const serve = new Process(
    'serve',
    'serve',
    ...['--listen', '127.0.0.1:0'],
    ...['--upstream', upstreamURL],
    ...['--data-dir', path.join(directory, 'data')],
    // Calls that hang on purpose must not hold up the end of the run.
    ...['--grace', '100ms'],
    ...args,
  );
  await serve.ready();
  stopAtTheEnd(serve, args);
  after(() => rm(directory, { recursive: true, force: true }));

  const sent = [];
  const recording = (url, init) => {
    sent.push({ url: String(url), init });
    return fetch(url, init);
  };
  return { client: new OpenAI({ baseURL: serve.baseURL, apiKey: 'any', fetch: recording }), sent };
}

/** Stops a process once the tests of a file have ended, and shows its log if one of them has failed. */
function stopAtTheEnd(one, args) {
  let hasFailed = false;
  afterEach((test) => {
    hasFailed ||= !test.passed;
  });
  after(async () => {
    await one.stop();
    if (hasFailed) console.error(`--- log of ${one.name} ${args.join(' ')}\n${one.log}`);
  });
}

export function chatRow(customId, model = 'simulator') {
  const body = { model, messages: [{ role: 'user', content: `What is ${customId}?` }] };
  return { custom_id: customId, method: 'POST', url: CHAT, body };
}

export function jsonl(rows) {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}

export async function upload(client, content, name = 'input.jsonl') {
  return client.files.create({ file: new File([content], name), purpose: 'batch' });
}

/** A batch for the content of an input file. */
export async function create(client, content, params = {}) {
  const file = await upload(client, content);
  return client.batches.create({ input_file_id: file.id, endpoint: CHAT, completion_window: '24h', ...params });
}

/** Polls a batch until a condition holds; without one, until its end. */
export async function wait(client, batch, condition = (batch) => TERMINAL.includes(batch.status)) {
  const deadline = Date.now() + BATCH_MS;
  while (Date.now() < deadline) {
    batch = await client.batches.retrieve(batch.id);
    if (condition(batch)) return batch;
    if (TERMINAL.includes(batch.status)) break;
    await pause(50);
  }
  return assert.fail(`waited in vain for ${condition}; the batch is ${JSON.stringify(batch)}`);
}

/** A batch from its input to its end. */
export async function run(client, content, params) {
  return wait(client, await create(client, content, params));
}

/** The lines of a result file, each parsed on its own. No file has none. */
export async function linesOf(client, fileId) {
  if (fileId === null) return [];
  const text = await (await client.files.content(fileId)).text();
  assert.ok(text.endsWith('\n'), 'the last line of a result file ends like all others');
  return text.slice(0, -1).split('\n').map((line) => JSON.parse(line));
}

/** The custom_ids of lines or rows; sorted, because the order of result lines means nothing. */
export function ids(lines) {
  return lines.map((line) => line.custom_id).sort();
}
