// A server with a dashboard, an upstream that the tests command, and a browser that complains.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { chromium } from 'playwright-core';

const ROOT = path.resolve(import.meta.dirname, '../..');
export const BINARY = path.resolve(process.env.BATCHWRIGHT_BIN ?? path.join(ROOT, 'target/debug/batchwright'));
const PATIENCE = 30_000;

export const CHAT = '/v1/chat/completions';

/** Polls until `read` gives something. */
export async function until(what, read) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const found = await read();
    if (found) return found;
    assert.ok(Date.now() < deadline, `no sign of ${what}`);
    await pause(30);
  }
}

/** One `batchwright` process. */
export class Process {
  log = '';

  constructor(...args) {
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('BATCHWRIGHT_')));
    this.child = spawn(BINARY, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    this.child.on('error', (error) => (this.log += `${error}\n`));
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.log += text));
    }
    this.kill = () => this.child.kill('SIGKILL');
    process.once('exit', this.kill);
  }

  /** Its address, as soon as it says it. */
  async address() {
    const said = /(?:listening|simulating) address=(http:\/\/[^/\s]+)/;
    return (await until('an address', () => {
      assert.equal(this.child.exitCode, null, this.log);
      return this.log.match(said);
    }))[1];
  }

  async stop() {
    process.off('exit', this.kill);
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    const forced = setTimeout(this.kill, 5000);
    await ended;
    clearTimeout(forced);
  }
}

/** An upstream, and the tools behind it. `answer` says how it answers a request: a status, a body, or a promise. */
export class Upstream {
  answer = async (body) => completion(`You said: ${JSON.stringify(body.messages ?? body.input ?? '')}`);
  held = null;

  constructor() {
    this.server = http.createServer(async (request, response) => {
      let text = '';
      for await (const piece of request) text += piece;
      const { httpStatus = 200, ...body } = await this.reply(request, text);
      response.writeHead(httpStatus, { 'content-type': 'application/json' }).end(JSON.stringify(body.raw ?? body));
    });
  }

  async reply(request, text) {
    if (request.url.endsWith('/models')) return { object: 'list', data: [] };
    if (request.url.startsWith('/tool')) return { raw: { sum: 3, html: '<b onclick=alert(1)>three</b>' } };
    if (this.held) await this.held;
    return this.answer(JSON.parse(text || '{}'), request);
  }

  /** Keeps every answer back until the returned function is called. */
  hold() {
    let release;
    this.held = new Promise((resolve) => (release = resolve));
    return () => {
      this.held = null;
      release();
    };
  }

  async listen() {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    this.url = `http://127.0.0.1:${this.server.address().port}`;
  }
}

export function completion(content, rest = {}) {
  const message = { role: 'assistant', content };
  return {
    id: 'chatcmpl-1', object: 'chat.completion', created: 1, model: 'm',
    choices: [{ index: 0, message, finish_reason: 'stop' }],
    usage: { prompt_tokens: 2, completion_tokens: 3, total_tokens: 5 }, ...rest,
  };
}

export function row(custom_id, body = {}, url = CHAT) {
  const chat = { model: 'm', messages: [{ role: 'user', content: 'Hello.' }] };
  return { custom_id, method: 'POST', url, body: { ...chat, ...body } };
}

export function rows(count, body = {}) {
  return Array.from({ length: count }, (_, no) => row(`row-${no}`, body));
}

/** Everything that a test needs, until `stop`. */
export class Stage {
  static async start({ flags = [], settings = '', upstream = new Upstream() } = {}) {
    const stage = new Stage();
    stage.upstream = upstream;
    await upstream.listen?.();
    stage.directory = await mkdtemp(path.join(tmpdir(), 'batchwright-dashboard-'));
    const config = path.join(stage.directory, 'settings.toml');
    await writeFile(config, settings.replaceAll('TOOLS', upstream.url));
    stage.serve = new Process(
      ...['serve', '--listen', '127.0.0.1:0', '--upstream', `${upstream.url}/v1`, '--config', config],
      ...['--data-dir', path.join(stage.directory, 'data'), '--grace', '100ms', '--max-retries', '0', ...flags],
    );
    stage.url = await stage.serve.address();
    stage.browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
    return stage;
  }

  async stop() {
    await this.browser?.close();
    await this.serve.stop();
    this.upstream.server?.closeAllConnections();
    this.upstream.server?.close();
    await rm(this.directory, { recursive: true, force: true });
  }

  async api(route, options) {
    const answer = await fetch(`${this.url}${route}`, options);
    return answer.json();
  }

  async upload(lines, name = 'input.jsonl') {
    const text = typeof lines === 'string' ? lines : lines.map((line) => JSON.stringify(line)).join('\n');
    const form = new FormData();
    form.append('purpose', 'batch');
    form.append('file', new File([text], name));
    return this.api('/v1/files', { method: 'POST', body: form });
  }

  async submit(lines, { name, ...rest } = {}) {
    const file = await this.upload(lines, name);
    assert.ok(file.id, JSON.stringify(file));
    const body = { input_file_id: file.id, endpoint: CHAT, completion_window: '24h', ...rest };
    const headers = { 'content-type': 'application/json' };
    const batch = await this.api('/v1/batches', { method: 'POST', headers, body: JSON.stringify(body) });
    assert.ok(batch.id, JSON.stringify(batch));
    return batch.id;
  }

  async ended(id) {
    const isOver = (status) => ['completed', 'failed', 'expired', 'cancelled'].includes(status);
    return until('the end of the batch', async () => {
      const batch = await this.api(`/v1/batches/${id}`);
      return isOver(batch.status) && batch;
    });
  }

  /** A tab. What it complains about, and what it asks of other hosts, is in `complaints`. */
  async tab(options = {}) {
    const context = await this.browser.newContext({ baseURL: this.url, ...options });
    const page = await context.newPage();
    page.complaints = [];
    page.on('console', (message) => page.complaints.push(`console: ${message.text()}`));
    page.on('pageerror', (error) => page.complaints.push(`error: ${error}`));
    page.on('dialog', async (dialog) => {
      page.complaints.push(`dialog: ${dialog.message()}`);
      await dialog.dismiss();
    });
    page.on('request', (request) => {
      const url = new URL(request.url());
      if (url.protocol.startsWith('http') && url.origin !== this.url) page.complaints.push(`asks ${url}`);
    });
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => {
        console.log(`violation: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
      });
    });
    return page;
  }
}
