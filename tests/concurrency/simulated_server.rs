//! An inference server with continuous batching, on a virtual clock of seconds.
//!
//! All running sequences make one token a step. A step takes longer the more sequences run and the longer they are.
//! Prompts that are taken in stall the others. If the KV cache is full, the youngest sequence is preempted and computed
//! again. Calls without a slot wait in order, without bound, unless a rule refuses them.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use batchwright::domain::rate_limits::RateLimit;

/// What a server is and what it refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerSettings {
    /// Sequences that run at once.
    pub(crate) slots: usize,
    /// Tokens in the KV cache.
    pub(crate) kv: f64,
    /// Seconds of a step, and what each sequence and each token of context adds.
    pub(crate) base: f64,
    pub(crate) per_sequence: f64,
    pub(crate) per_context: f64,
    /// Prompt tokens a second.
    pub(crate) prefill: f64,
    /// Whether calls beyond the slots are refused. Otherwise they wait.
    pub(crate) refuses: bool,
    /// Seconds to wait after a refusal.
    pub(crate) retry_after: Option<f64>,
    /// Prompt tokens and highest output tokens that calls may have a minute.
    pub(crate) tokens_per_minute: Option<f64>,
    /// Whether answers state what is left of them.
    pub(crate) has_headers: bool,
    /// The status of calls during an outage.
    pub(crate) status_when_down: Status,
    /// Seconds that each answer takes beside the server's work.
    pub(crate) overhead: f64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Answered,
    /// 429.
    Refused,
    /// 503.
    Unavailable,
    NoConnection,
}

/// One row of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) prompt: f64,
    pub(crate) output: f64,
    pub(crate) most_output: f64,
}

/// What the server says to a call, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) at: f64,
    pub(crate) call: usize,
    pub(crate) status: Status,
    pub(crate) retry_after: Option<f64>,
    /// The tokens that are left of those of a minute, if the answer states them.
    pub(crate) tokens: Option<RateLimit>,
}

/// A call that runs or waits. `made` are its output tokens so far, `held` its tokens in the KV cache when it began.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    call: usize,
    row: Row,
    tokens: Option<RateLimit>,
    made: f64,
    held: f64,
    began: f64,
}

/// A number with the order of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ordered(pub(crate) f64);

#[derive(Debug)]
pub(crate) struct SimulatedServer {
    settings: ServerSettings,
    is_down: bool,
    /// The time of the state below; steps made, tokens of context, and seconds of prefill ahead.
    time: f64,
    steps: f64,
    context: f64,
    stall: f64,
    /// By admission: the last is the youngest.
    running: BTreeMap<u64, Sequence>,
    finishes: BinaryHeap<Reverse<(Ordered, u64)>>,
    waiting: VecDeque<Sequence>,
    admissions: u64,
    /// Raised whenever the time of the next event has changed.
    version: u64,
    tokens_left: f64,
    filled: f64,
    /// Output tokens made, without those of calls that were lost.
    pub(crate) delivered: f64,
    pub(crate) replies: Vec<Reply>,
}

impl Default for ServerSettings {
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
            tokens_per_minute: None,
            has_headers: false,
            status_when_down: Status::NoConnection,
            overhead: 0.0,
        }
    }
}

impl SimulatedServer {
    pub(crate) fn new(settings: ServerSettings) -> Self {
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
            delivered: 0.0,
            replies: Vec::new(),
        }
    }

    /// Makes the tokens of the time until now.
    pub(crate) fn settle(&mut self, now: f64) {
        self.advance(now);
    }

    /// Takes a call, or refuses it.
    pub(crate) fn send(&mut self, now: f64, call: usize, row: Row) {
        let retry_after = self.settings.retry_after;
        let refused = Reply { at: now, call, status: Status::Refused, retry_after, tokens: None };
        if self.is_down {
            let status = self.settings.status_when_down;
            self.replies.push(Reply { at: now + 0.002, status, retry_after: None, ..refused });
            return;
        }
        let short_for = self.charge(now, row);
        let tokens = self.stated_tokens();
        if let Some(wait) = short_for {
            let retry_after = self.settings.retry_after.map(|_| wait);
            self.replies.push(Reply { at: now + 0.05, retry_after, tokens, ..refused });
            return;
        }
        if self.settings.refuses && self.running.len() + self.waiting.len() >= self.settings.slots {
            self.replies.push(Reply { at: now + 0.005, ..refused });
            return;
        }
        self.advance(now);
        self.waiting.push_back(Sequence { call, row, tokens, made: 0.0, held: 0.0, began: 0.0 });
        self.admit();
        self.version += 1;
    }

    /// Changes the number of slots. Sequences that run finish.
    pub(crate) fn resize(&mut self, now: f64, slots: usize) {
        self.advance(now);
        self.settings.slots = slots;
        self.admit();
        self.version += 1;
    }

    pub(crate) fn go_down(&mut self, now: f64) {
        self.advance(now);
        self.is_down = true;
        let running = std::mem::take(&mut self.running);
        let since = |sequence: &Sequence| sequence.made + self.steps - sequence.began;
        let lost: f64 = running.values().map(since).chain(self.waiting.iter().map(|waiting| waiting.made)).sum();
        self.delivered -= lost;
        for sequence in running.into_values().chain(std::mem::take(&mut self.waiting)) {
            let status = self.settings.status_when_down;
            self.replies.push(Reply { at: now, call: sequence.call, status, retry_after: None, tokens: None });
        }
        self.finishes.clear();
        (self.context, self.stall) = (0.0, 0.0);
        self.version += 1;
    }

    pub(crate) fn come_up(&mut self, now: f64) {
        self.advance(now);
        self.is_down = false;
    }

    /// When the server has to be woken next, and the version that the time belongs to.
    pub(crate) fn next_wake(&mut self) -> (Option<f64>, u64) {
        while self.finishes.peek().is_some_and(|Reverse((_, id))| !self.running.contains_key(id)) {
            self.finishes.pop();
        }
        let Some(Reverse((finish, _))) = self.finishes.peek() else { return (None, self.version) };
        let (start, growth) = self.step_seconds();
        let room = (self.settings.kv - self.context) / number(self.running.len());
        let steps = (finish.0 - self.steps).min(room).max(0.0);
        (Some(self.time + self.stall + start * steps + growth * steps * steps / 2.0), self.version)
    }

    /// Finishes and admits sequences at a time that [`SimulatedServer::next_wake`] has named.
    pub(crate) fn wake(&mut self, now: f64, version: u64) {
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
                self.replies.push(Reply { at, call, status: Status::Answered, retry_after: None, tokens });
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

    /// Takes a call's tokens from the bucket. The seconds until they suffice, if they do not.
    fn charge(&mut self, now: f64, row: Row) -> Option<f64> {
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
        let ServerSettings { base, per_sequence, per_context, .. } = self.settings;
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
            self.stall += need / self.settings.prefill;
            self.context += need;
            (next.held, next.began) = (need, self.steps);
            self.admissions += 1;
            let finish = self.steps + (next.row.output - next.made).max(1.0);
            self.finishes.push(Reverse((Ordered(finish), self.admissions)));
            self.running.insert(self.admissions, next);
        }
    }
}

impl Eq for Ordered {}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of sequences are small")]
fn number(count: usize) -> f64 {
    count as f64
}
