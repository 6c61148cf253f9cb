//! How many calls a server takes at once, found from its answers and its refusals.
//!
//! ```text
//!   start: one more call with every answer, so twice as many after the time of a call
//!     | throughput does not follow, calls wait in the server, or the server refuses
//!     v
//!   a round of answers at one limit ------> calls wait in the server:   down by those calls
//!     ^                                |--> the step up gained nothing: back, and a pause
//!     |                                |--> near a refused level:       stay for 200 answers
//!     '---- up within a third of a call <--'--> none of these
//! ```
//!
//! `Round` measures, `LimitSearch` judges throughput and waiting calls, and `RefusedLevel` remembers refusals. Where a
//! server itself reports its waiting calls, the limit also falls by those, and does not rise while there are too many.
//!
//! It is a pure state machine: times are those of any clock that starts anywhere and only goes forward. An answer costs
//! a few additions and no memory.

mod refusal;
mod round;
mod search;

use std::time::Duration;

use self::refusal::RefusedLevel;
use self::round::{Round, count, seconds_of, tokens};
use self::search::{DEEPEST, LimitSearch, Move, tolerated};

/// Calls at once before anything is known. A server with fewer slots queues a few calls or refuses them, which costs
/// little. A start with half as many would cost one more call time, which is ten minutes for long answers.
const START: f64 = 16.0;
/// A step up takes this share of a mean call, so that a refusal is heard before more calls are sent.
const RISE_TIME: f64 = 1.0 / 3.0;
/// The means follow about so many answers, or four times the limit.
const LEAST_MEMORY: f64 = 100.0;
/// While calls are under way and none has been answered, the limit doubles whenever so much time has passed: long
/// answers show nothing of the server before the first of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Finds the number of calls at once that keeps a server busy and lets few calls wait in it.
#[derive(Debug)]
pub struct ConcurrencyController {
    ceiling: usize,
    limit: f64,
    /// The step up that is under way.
    rise: Option<Rise>,
    reason: LimitReason,
    round: Round,
    search: LimitSearch,
    refused: RefusedLevel,
    /// The limit and what it rests on, before the refusals since the last answer.
    proven: Option<(f64, RefusedLevel, LimitSearch)>,
    means: Means,
    /// Whether too many calls wait in the server by its own metrics.
    is_told_of_queue: bool,
    /// When the limit was last raised without an answer, or calls were first seen to be under way.
    waiting_since: Option<Duration>,
}

/// The server's answer to one call.
#[derive(Debug, Clone, Copy)]
pub struct AnsweredCall {
    /// When the call was sent.
    pub sent: Duration,
    /// Calls under way when it was sent, itself included.
    pub in_flight_at_send: usize,
    /// Calls still under way, itself not included.
    pub in_flight: usize,
    /// The tokens that the server made for it. None if the answer does not state them.
    pub output_tokens: Option<u64>,
}

/// Why the limit is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReason {
    /// Too few answers: the limit grows with each.
    Starting,
    /// The last limit left the server room.
    Rising,
    /// Calls wait in the server: more would only wait longer.
    Queueing,
    /// The server refused calls at a higher limit.
    Refused,
    /// The configuration allows no more.
    Ceiling,
    /// A higher limit brought no more throughput.
    NoGain,
    /// The server was gone, and the limit rises to what it was before.
    Recovering,
}

/// A step up that takes a while.
#[derive(Debug, Clone, Copy)]
struct Rise {
    began: Duration,
    from: f64,
    to: f64,
}

/// Means over the last answers.
#[derive(Debug, Clone, Copy, Default)]
struct Means {
    answers: f64,
    seconds: f64,
    answers_with_tokens: f64,
    tokens: f64,
}

impl ConcurrencyController {
    /// A controller that knows nothing of its server. Its limit never exceeds `ceiling`.
    #[must_use]
    pub fn new(ceiling: usize) -> Self {
        let limit = START.min(highest(ceiling));
        Self {
            ceiling,
            limit,
            rise: None,
            reason: LimitReason::Starting,
            round: Round::first(limit),
            search: LimitSearch::default(),
            refused: RefusedLevel::default(),
            proven: None,
            means: Means::default(),
            is_told_of_queue: false,
            waiting_since: None,
        }
    }

    /// A controller whose limit is the ceiling, unless the server refuses calls.
    #[must_use]
    pub fn fixed(ceiling: usize) -> Self {
        let new = Self::new(ceiling);
        Self { limit: new.highest(), search: LimitSearch::fixed(), ..new }
    }

    /// Notes that the time is `now`, and whether calls are under way.
    pub fn tick(&mut self, now: Duration, is_waiting: bool) {
        if !is_waiting {
            self.waiting_since = None;
            return;
        }
        if self.means.answers > 0.0 || !self.search.is_starting() {
            return;
        }
        let since = *self.waiting_since.get_or_insert(now);
        if now.saturating_sub(since) >= PATIENCE {
            self.waiting_since = Some(now);
            self.limit = self.highest().min(self.limit * 2.0);
        }
    }

    /// Changes the highest limit. A limit above it falls at once; a limit below it rises as the answers allow. A
    /// ceiling of 0 stops the calls, and what is known of the server remains.
    pub fn set_ceiling(&mut self, ceiling: usize) {
        if ceiling == self.ceiling {
            return;
        }
        self.ceiling = ceiling;
        if self.limit > self.highest() || self.search.is_fixed() && self.refused.is_none() {
            self.limit = self.highest();
            self.rise = None;
        }
    }

    /// The number of calls that may be under way: at least 1, unless the ceiling is 0.
    #[must_use]
    pub fn limit(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and is not negative"
        )]
        let limit = self.limit.max(1.0) as usize;
        limit.min(self.ceiling)
    }

    /// Why the limit is what it is.
    #[must_use]
    pub fn reason(&self) -> LimitReason {
        if self.limit() >= self.ceiling { LimitReason::Ceiling } else { self.reason }
    }

    /// Notes an answer. Only answers of a server that is well count: no refusals, and no errors of the server.
    pub fn answered(&mut self, now: Duration, call: &AnsweredCall) {
        self.proven = None;
        self.refused.answered();
        self.means.add(now, call, self.limit);
        if let Some(rise) = self.rise {
            self.continue_rise(now, rise);
        } else if self.search.is_starting() {
            self.round.add(now, call);
            // A limit that the load does not use proves nothing, so it stays near the calls in flight.
            if count(call.in_flight) + 1.0 >= self.limit / 2.0 && !self.is_told_of_queue {
                let most = self.search.start_bound().max(self.limit);
                self.limit = self.highest().min(self.limit + 1.0).min(most);
            }
            self.finish_round(now);
        } else if self.round.includes(call.sent) {
            self.round.add(now, call);
            self.finish_round(now);
        }
    }

    /// Notes that the server refused a call that was sent at `sent`, with `others` still under way.
    pub fn refused(&mut self, now: Duration, sent: Duration, others: usize, retry_after: Option<Duration>) {
        self.proven.get_or_insert((self.limit, self.refused, self.search));
        let level = self.refused.refused(now, sent, others, retry_after, self.means.seconds);
        self.search.refused(refusal::SMALL_STEP);
        if level < self.limit {
            self.limit = level;
            self.rise = None;
            self.search.forget_level();
            self.round = Round::starting_at(now, self.limit);
        }
        self.reason = LimitReason::Refused;
    }

    /// Notes how many calls wait in the server by its own metrics, those of other clients included, while `in_flight`
    /// of ours are under way. The limit does not rise while too many wait. If they still do at the next report, it
    /// falls by them: a burst may be worked off in between.
    pub fn note_waiting(&mut self, now: Duration, waiting: usize, in_flight: usize) {
        let in_flight = count(in_flight);
        let is_queue = count(waiting) > tolerated(in_flight) && !self.search.is_fixed();
        let was_queue = std::mem::replace(&mut self.is_told_of_queue, is_queue);
        let limit = (in_flight - count(waiting)).max(in_flight * DEEPEST).max(1.0);
        if is_queue && was_queue && limit < self.limit {
            (self.limit, self.rise, self.reason) = (limit, None, LimitReason::Queueing);
            self.search.found_queue();
            self.round = Round::starting_at(now, self.limit);
        }
    }

    /// Notes that the server is gone: its refusals since the last answer say nothing about how many calls it takes.
    pub fn went_down(&mut self, now: Duration) {
        if let Some((limit, refused, search)) = self.proven.take() {
            (self.limit, self.refused, self.search) = (limit, refused, search);
        }
        if let Some(rise) = self.rise.take()
            && self.reason == LimitReason::Recovering
        {
            self.limit = rise.to;
        }
        self.round = Round::starting_at(now, self.limit);
    }

    /// Notes that the server is back: half of the limit before, and soon all of it.
    pub fn came_back(&mut self, now: Duration) {
        let before = self.limit.min(self.highest());
        self.limit = (before / 2.0).max(1.0);
        self.search.forget_level();
        self.go(now, before);
        self.reason = if self.rise.is_some() { LimitReason::Recovering } else { self.rising() };
    }

    fn continue_rise(&mut self, now: Duration, rise: Rise) {
        let time = (self.means.seconds * RISE_TIME).max(f64::MIN_POSITIVE);
        let part = now.saturating_sub(rise.began).as_secs_f64() / time;
        self.limit = self.highest().min(rise.to).min(rise.from + (rise.to - rise.from) * part);
        if part >= 1.0 {
            self.rise = None;
            self.round = Round::starting_at(now, self.limit);
            if self.reason == LimitReason::Recovering {
                self.reason = self.rising();
            }
        }
    }

    /// Moves the limit as the round says, if it is complete.
    fn finish_round(&mut self, now: Duration) {
        if !self.round.is_complete() {
            return;
        }
        let was_starting = self.search.is_starting();
        let is_conclusive = if was_starting { self.round.reached_limit() } else { self.round.used_limit() };
        if !is_conclusive {
            self.round = Round::starting_at(now, self.limit);
            return;
        }
        let level = if was_starting { self.round.growing_level(now) } else { self.round.level() };
        let step = self.search.judge(level, self.limit, self.means.tokens);
        self.round = Round::starting_at(now, self.limit);
        match step {
            Move::StayQueueing => self.reason = LimitReason::Queueing,
            Move::StayResting => {}
            Move::Rise(_) if was_starting => {
                self.reason = self.rising();
                if self.limit >= self.highest() {
                    self.search.reached_ceiling();
                }
            }
            Move::Rise(factor) => self.rise(now, factor),
            Move::Drain(limit) => {
                self.reason = LimitReason::Queueing;
                self.go(now, limit);
            }
            Move::Return(limit) => {
                self.reason = LimitReason::NoGain;
                self.go(now, limit.min(self.limit));
            }
            Move::Restore(limit) => {
                self.reason = self.rising();
                let bound = self.refused.bound(now, self.limit, limit).unwrap_or(limit);
                self.go(now, bound.max(self.limit));
            }
        }
    }

    fn rising(&self) -> LimitReason {
        if self.search.is_starting() { LimitReason::Starting } else { LimitReason::Rising }
    }

    /// Raises the limit by a ratio, unless it would exceed a refused level too early.
    fn rise(&mut self, now: Duration, factor: f64) {
        let goal = (self.limit + 1.0).max(self.limit * factor);
        match self.refused.bound(now, self.limit, goal) {
            Some(bound) if bound <= self.limit => self.reason = LimitReason::Refused,
            Some(bound) => {
                self.reason = LimitReason::Rising;
                self.go(now, bound);
            }
            None => {
                if self.refused.is_below(goal) {
                    self.search.forget_level();
                    self.search.lengthen_step();
                }
                self.reason = LimitReason::Rising;
                self.go(now, goal);
            }
        }
    }

    fn go(&mut self, now: Duration, goal: f64) {
        let goal = if self.is_told_of_queue { goal.min(self.limit) } else { goal };
        let to = goal.min(self.highest()).max(1.0);
        self.rise = (to > self.limit).then_some(Rise { began: now, from: self.limit, to });
        if self.rise.is_none() {
            self.limit = to;
        }
        self.round = Round::starting_at(now, self.limit);
    }

    /// The highest limit. A ceiling of 0 bounds nothing here, because it says nothing about the server.
    fn highest(&self) -> f64 {
        highest(self.ceiling)
    }
}

fn highest(ceiling: usize) -> f64 {
    if ceiling == 0 { f64::INFINITY } else { count(ceiling) }
}

impl Means {
    fn add(&mut self, now: Duration, call: &AnsweredCall, limit: f64) {
        let memory = LEAST_MEMORY.max(4.0 * limit);
        self.answers = memory.min(self.answers + 1.0);
        self.seconds += (seconds_of(now, call) - self.seconds) / self.answers;
        if let Some(output_tokens) = call.output_tokens {
            self.answers_with_tokens = memory.min(self.answers_with_tokens + 1.0);
            self.tokens += (tokens(output_tokens) - self.tokens) / self.answers_with_tokens;
        }
    }
}

#[cfg(test)]
mod tests;
