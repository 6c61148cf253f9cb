//! An inference server with continuous batching, on a clock of seconds that its caller gives it: a virtual one in
//! tests, or the real one behind HTTP (`engine`).
//!
//! All running sequences make one token a step. A step takes longer the more sequences run and the longer they are.
//! Prompts that are taken in stall the others. If the KV cache is full, the youngest sequence is preempted and computed
//! again. Calls without a slot wait in order, without bound, unless a rule refuses them.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::domain::rate_limits::RateLimit;

/// What a server is and what it refuses.
#[derive(Debug, Clone, Copy)]
pub struct BatchingSettings {
    /// Sequences that run at once, at least 1.
    pub slots: usize,
    /// Tokens in the KV cache.
    pub kv: f64,
    /// Seconds of a step, in which every sequence that runs makes a token.
    pub base: f64,
    /// Seconds that a sequence adds to it.
    pub per_sequence: f64,
    /// Seconds that a token of context adds to it.
    pub per_context: f64,
    /// Prompt tokens a second.
    pub prefill: f64,
    /// Whether calls beyond the slots are refused. Otherwise they wait.
    pub refuses: bool,
    /// Seconds to wait after a refusal.
    pub retry_after: Option<f64>,
    /// Calls that may come in a second, with as many at once.
    pub calls_per_second: Option<f64>,
    /// Prompt tokens and highest output tokens that calls may have a minute.
    pub tokens_per_minute: Option<f64>,
    /// Whether answers state what is left of them.
    pub has_headers: bool,
    /// The status of calls during an outage.
    pub status_when_down: CallStatus,
    /// Seconds that each answer takes beside the server's work.
    pub overhead: f64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStatus {
    /// 200.
    Answered,
    /// 429.
    Refused,
    /// 503.
    Unavailable,
    /// No answer at all.
    NoConnection,
}

/// One row of the load.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedRow {
    /// Tokens of the prompt.
    pub prompt: f64,
    /// Those of them that the server need not compute again.
    pub cached: f64,
    /// Tokens that the server will make.
    pub output: f64,
    /// Tokens that it might have to make.
    pub most_output: f64,
}

/// What the server says to a call, and when.
#[derive(Debug, Clone, Copy)]
pub struct BatchingReply {
    /// When it is sent.
    pub at: f64,
    /// The call.
    pub call: usize,
    /// How the call ended.
    pub status: CallStatus,
    /// Seconds to wait before the next call.
    pub retry_after: Option<f64>,
    /// The tokens that are left of those of a minute, if the answer states them.
    pub tokens: Option<RateLimit>,
}

/// A call that runs or waits. `made` are its output tokens so far, `held` its tokens in the KV cache when it began.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    call: usize,
    row: SimulatedRow,
    tokens: Option<RateLimit>,
    made: f64,
    held: f64,
    began: f64,
}

/// A time, with the order of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds(pub f64);

/// The server.
#[derive(Debug)]
pub struct BatchingServer {
    settings: BatchingSettings,
    is_down: bool,
    /// The time of the state below; steps made, tokens of context, and seconds of prefill ahead.
    time: f64,
    steps: f64,
    context: f64,
    stall: f64,
    /// By admission: the last is the youngest.
    running: BTreeMap<u64, Sequence>,
    finishes: BinaryHeap<Reverse<(Seconds, u64)>>,
    waiting: VecDeque<Sequence>,
    admissions: u64,
    /// Raised whenever the time of the next event has changed.
    version: u64,
    tokens_left: f64,
    filled: f64,
    calls_left: f64,
    calls_filled: f64,
    /// Output tokens made, without those of calls that were lost.
    pub delivered: f64,
    /// What was said and not taken away yet.
    pub replies: Vec<BatchingReply>,
}

impl Default for BatchingSettings {
    fn default() -> Self {
        Self {
            slots: 64,
            kv: 1e9,
            base: 0.008,
            per_sequence: 1e-4,
            per_context: 2e-8,
            prefill: 30_000.0,
            refuses: false,
            retry_after: None,
            calls_per_second: None,
            tokens_per_minute: None,
            has_headers: false,
            status_when_down: CallStatus::NoConnection,
            overhead: 0.0,
        }
    }
}

impl BatchingServer {
    /// A server without calls, at the time 0.
    #[must_use]
    pub fn new(settings: BatchingSettings) -> Self {
        Self {
            settings,
            is_down: false,
            time: 0.0,
            steps: 0.0,
            context: 0.0,
            stall: 0.0,
            running: BTreeMap::new(),
            finishes: BinaryHeap::new(),
            waiting: VecDeque::new(),
            admissions: 0,
            version: 0,
            tokens_left: settings.tokens_per_minute.unwrap_or_default(),
            filled: 0.0,
            calls_left: settings.calls_per_second.unwrap_or_default(),
            calls_filled: 0.0,
            delivered: 0.0,
            replies: Vec::new(),
        }
    }

    /// Makes the tokens of the time until now.
    pub fn settle(&mut self, now: f64) {
        self.advance(now);
    }

    /// Takes a call, or refuses it.
    pub fn send(&mut self, now: f64, call: usize, row: SimulatedRow) {
        let retry_after = self.settings.retry_after;
        let refused = BatchingReply { at: now, call, status: CallStatus::Refused, retry_after, tokens: None };
        if self.is_down {
            let status = self.settings.status_when_down;
            self.replies.push(BatchingReply { at: now + 0.002, status, retry_after: None, ..refused });
            return;
        }
        if self.is_beyond_rate(now) {
            self.replies.push(BatchingReply { at: now + 0.005, ..refused });
            return;
        }
        let short_for = self.charge(now, row);
        let tokens = self.stated_tokens();
        if let Some(wait) = short_for {
            let retry_after = self.settings.retry_after.map(|_| wait);
            self.replies.push(BatchingReply { at: now + 0.05, retry_after, tokens, ..refused });
            return;
        }
        if self.settings.refuses && self.running.len() + self.waiting.len() >= self.settings.slots {
            self.replies.push(BatchingReply { at: now + 0.005, ..refused });
            return;
        }
        self.advance(now);
        self.waiting.push_back(Sequence { call, row, tokens, made: 0.0, held: 0.0, began: 0.0 });
        self.admit();
        self.version += 1;
    }

    /// Changes the number of slots. Sequences that run finish.
    pub fn resize(&mut self, now: f64, slots: usize) {
        self.advance(now);
        self.settings.slots = slots;
        self.admit();
        self.version += 1;
    }

    /// Ends a call whose client has gone away.
    pub fn abort(&mut self, now: f64, call: usize) {
        self.advance(now);
        self.waiting.retain(|waiting| waiting.call != call);
        let Some((&id, _)) = self.running.iter().find(|(_, running)| running.call == call) else { return };
        if let Some(aborted) = self.running.remove(&id) {
            self.context -= aborted.held + self.steps - aborted.began;
        }
        self.admit();
        self.version += 1;
    }

    /// Refuses all calls from now on, those that run among them.
    pub fn go_down(&mut self, now: f64) {
        self.advance(now);
        self.is_down = true;
        let running = std::mem::take(&mut self.running);
        let since = |sequence: &Sequence| sequence.made + self.steps - sequence.began;
        let lost: f64 = running.values().map(since).chain(self.waiting.iter().map(|waiting| waiting.made)).sum();
        self.delivered -= lost;
        for sequence in running.into_values().chain(std::mem::take(&mut self.waiting)) {
            let status = self.settings.status_when_down;
            self.replies.push(BatchingReply { at: now, call: sequence.call, status, retry_after: None, tokens: None });
        }
        self.finishes.clear();
        (self.context, self.stall) = (0.0, 0.0);
        self.version += 1;
    }

    /// Takes calls again.
    pub fn come_up(&mut self, now: f64) {
        self.advance(now);
        self.is_down = false;
    }

    /// When the server has to be woken next, and the version that the time belongs to.
    pub fn next_wake(&mut self) -> (Option<f64>, u64) {
        while self.finishes.peek().is_some_and(|Reverse((_, id))| !self.running.contains_key(id)) {
            self.finishes.pop();
        }
        let Some(Reverse((finish, _))) = self.finishes.peek() else { return (None, self.version) };
        let (start, growth) = self.step_seconds();
        let room = (self.settings.kv - self.context) / number(self.running.len());
        let steps = (finish.0 - self.steps).min(room).max(0.0);
        (Some(self.time + self.stall + start * steps + growth * steps * steps / 2.0), self.version)
    }

    /// Sequences that wait for a slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Finishes and admits sequences at a time that [`BatchingServer::next_wake`] has named.
    pub fn wake(&mut self, now: f64, version: u64) {
        if version != self.version {
            return;
        }
        self.advance(now);
        while let Some(Reverse((finish, id))) = self.finishes.peek().copied() {
            if self.running.contains_key(&id) && finish.0 > self.steps + 1e-6 {
                break;
            }
            self.finishes.pop();
            if let Some(done) = self.running.remove(&id) {
                self.context -= done.held + self.steps - done.began;
                let at = now + self.settings.overhead;
                let Sequence { call, tokens, .. } = done;
                self.replies.push(BatchingReply { at, call, status: CallStatus::Answered, retry_after: None, tokens });
            }
        }
        if self.context >= self.settings.kv - 1e-6 && self.running.len() > 1 {
            self.preempt();
        } else {
            self.admit();
        }
        self.version += 1;
    }

    /// What the headers of an answer state of the bucket.
    fn stated_tokens(&self) -> Option<RateLimit> {
        let most = self.settings.tokens_per_minute.filter(|_| self.settings.has_headers)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they are small and positive")]
        let [limit, remaining] = [most as u64, self.tokens_left as u64];
        let reset = Duration::from_secs_f64((most - self.tokens_left) * 60.0 / most);
        Some(RateLimit { limit, remaining, reset })
    }

    /// Takes a call from the bucket of calls. Whether there was none left.
    fn is_beyond_rate(&mut self, now: f64) -> bool {
        let Some(most) = self.settings.calls_per_second else { return false };
        self.calls_left = most.min(self.calls_left + (now - self.calls_filled) * most);
        self.calls_filled = now;
        let is_beyond = self.calls_left < 1.0;
        if !is_beyond {
            self.calls_left -= 1.0;
        }
        is_beyond
    }

    /// Takes a call's tokens from the bucket. The seconds until they suffice, if they do not.
    fn charge(&mut self, now: f64, row: SimulatedRow) -> Option<f64> {
        let most = self.settings.tokens_per_minute?;
        let charge = row.prompt + row.most_output;
        self.tokens_left = most.min(self.tokens_left + (now - self.filled) * most / 60.0);
        self.filled = now;
        if charge > self.tokens_left {
            return Some((charge - self.tokens_left) * 60.0 / most);
        }
        self.tokens_left -= charge;
        None
    }

    /// Seconds of the next step, and by how much each further one is longer.
    fn step_seconds(&self) -> (f64, f64) {
        let BatchingSettings { base, per_sequence, per_context, .. } = self.settings;
        let running = number(self.running.len());
        (base + per_sequence * running + per_context * self.context, per_context * running)
    }

    /// Makes the tokens of the time until now.
    fn advance(&mut self, now: f64) {
        let passed = now - self.time;
        self.time = now;
        let stalled = passed.min(self.stall);
        self.stall -= stalled;
        let left = passed - stalled;
        if self.running.is_empty() || left <= 0.0 {
            return;
        }
        let (start, growth) = self.step_seconds();
        let steps =
            if growth > 0.0 { ((start * start + 2.0 * growth * left).sqrt() - start) / growth } else { left / start };
        let made = steps * number(self.running.len());
        self.steps += steps;
        self.context += made;
        self.delivered += made;
    }

    fn preempt(&mut self) {
        let Some((_, mut youngest)) = self.running.pop_last() else { return };
        let made = self.steps - youngest.began;
        self.context -= youngest.held + made;
        youngest.made += made;
        self.waiting.push_front(youngest);
    }

    fn admit(&mut self) {
        while self.running.len() < self.settings.slots {
            let Some(mut next) = self.waiting.front().copied() else { return };
            let need = next.row.prompt + next.made;
            let running = number(self.running.len());
            if running > 0.0 && self.context + need + running > self.settings.kv {
                return;
            }
            self.waiting.pop_front();
            self.stall += (need - next.row.cached).max(0.0) / self.settings.prefill;
            self.context += need;
            (next.held, next.began) = (need, self.steps);
            self.admissions += 1;
            let finish = self.steps + (next.row.output - next.made).max(1.0);
            self.finishes.push(Reverse((Seconds(finish), self.admissions)));
            self.running.insert(self.admissions, next);
        }
    }
}

impl Eq for Seconds {}

impl Ord for Seconds {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Seconds {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of sequences are small")]
fn number(count: usize) -> f64 {
    count as f64
}
