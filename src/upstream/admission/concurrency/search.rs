//! Where the limit goes after a round: up while throughput rises, down by the calls that wait in the server.
//!
//! A wait that does not depend on the length of an answer is a queue, or it is the network and the prompt. The search
//! tells them apart by moving: the wait was no queue if more calls brought proportionally more throughput, or if a
//! large step down lost throughput. The search subtracts that base wait from the waits of later rounds.

use super::round::Level;

/// Steps up, as ratios: the largest, the first one after a failed step, and the first one after a step down. Each step
/// that succeeds squares the next one.
const LARGEST_STEP: f64 = 2.0;
const STEP_AFTER_FAILURE: f64 = 1.41;
const SMALLEST_STEP: f64 = 1.1;
/// Levels further apart than this ratio are compared by throughput. Nearer ones differ by less than the noise.
const FAR: f64 = 1.3;
/// Levels nearer than this (as a logarithm) are the same level.
const SAME: f64 = 0.05;
/// A step up gains at least this share of its size (in logarithms), or the limit returns. The second share is for
/// answers without a fit, whose throughput varies more.
const WORTH: f64 = 0.05;
const WORTH_WITHOUT_FIT: f64 = 0.25;
/// A step up that gains this share of its size shows that no call waited in a queue before.
const FOLLOWS: f64 = 0.5;
/// A step up that gains less than this share of its size shows that the server is bound by its own work. From then on
/// the start exceeds the last level by this factor at most, until the next round has been judged: answers tell of a
/// queue only one call later.
const UNBOUND: f64 = 0.9;
const REACH: f64 = 2.0;
/// A step down that loses more than this share of its size shows the same.
const LOSS: f64 = 0.4;
/// The server has changed if throughput at the same level has risen by so much (as a logarithm).
const CHANGED: f64 = 0.3;
/// The longest pause after a failed step, in rounds.
const LONGEST_REST: u32 = 16;
/// Rounds in which a few calls wait before a step up shows whether they do. The second number holds after such a step.
const FIRST_PROBE: u32 = 8;
const LONGEST_PROBE: u32 = 16;
/// Rounds for which a large base wait is trusted. Each further one is trusted for twice as long.
const FIRST_TRUST: u32 = 32;
/// A base wait below this share of a call is trusted without end: a queue that it hides is short.
const SMALL_SHARE: f64 = 0.15;
/// Seconds. A shorter wait is no queue, and if a whole call takes no longer, only a loss of throughput counts.
const HARMLESS: f64 = 0.025;
/// Such a loss (as a logarithm).
const HARM: f64 = -0.15;
/// A limit of so many calls is not lowered because of calls that wait.
const FEW: f64 = 4.0;
/// One round lowers the limit to this share at most.
pub(super) const DEEPEST: f64 = 0.25;

/// The memory of the search.
#[derive(Debug, Clone, Copy)]
pub(super) struct LimitSearch {
    /// The level that further levels are compared with.
    anchor: Option<Level>,
    /// The next step up, as a ratio.
    factor: f64,
    /// Rounds until the next step up, and the pause after the next failed step.
    rest: u32,
    patience: u32,
    /// Rounds in which a few calls waited, and those until the next step up all the same.
    waited: u32,
    probe_after: u32,
    /// Seconds that a call waits without a queue, the rounds for which that is trusted, and those of the next one.
    base_wait: f64,
    trusted_rounds: u32,
    next_trust: u32,
    start: Start,
    /// The highest limit of the start until the next level is known.
    start_bound: f64,
    /// Whether the limit rises whatever the throughput is.
    is_fixed: bool,
}

/// Whether the limit grows with every answer because the server has shown no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Growing,
    /// Most calls seemed to wait at the first limit: a lower one shows whether they did.
    Verifying,
    Over,
}

/// What the controller does with the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Move {
    /// The limit stays: calls wait in the server.
    StayQueueing,
    /// The limit stays for some rounds after a step that did not help.
    StayResting,
    /// The limit rises by this ratio.
    Rise(f64),
    /// The limit falls to this many calls: the others wait in the server.
    Drain(f64),
    /// The limit returns to this many calls: the step up from them brought no throughput.
    Return(f64),
    /// The limit returns to this many calls: the step down from them lost throughput.
    Restore(f64),
}

impl Default for LimitSearch {
    fn default() -> Self {
        Self {
            anchor: None,
            factor: LARGEST_STEP,
            rest: 0,
            patience: 1,
            waited: 0,
            probe_after: FIRST_PROBE,
            base_wait: 0.0,
            trusted_rounds: 0,
            next_trust: FIRST_TRUST,
            start: Start::Growing,
            start_bound: f64::INFINITY,
            is_fixed: false,
        }
    }
}

impl LimitSearch {
    /// A search that always goes up.
    pub(super) fn fixed() -> Self {
        Self { start: Start::Over, is_fixed: true, ..Self::default() }
    }

    /// Whether the limit rises whatever the throughput is.
    pub(super) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// Whether the limit grows with every answer.
    pub(super) fn is_starting(&self) -> bool {
        self.start == Start::Growing
    }

    /// The highest limit of the start until the next level is known.
    pub(super) fn start_bound(&self) -> f64 {
        self.start_bound
    }

    /// A refusal has shown the bound: the next step is small, and may follow at once.
    pub(super) fn refused(&mut self, step: f64) {
        self.start = Start::Over;
        (self.factor, self.rest) = (step, 0);
    }

    /// The limit cannot grow further: rounds at one limit follow.
    pub(super) fn reached_ceiling(&mut self) {
        self.start = Start::Over;
    }

    /// The server itself says that calls wait in it: the limit has fallen by those.
    pub(super) fn found_queue(&mut self) {
        self.end_start();
        (self.factor, self.rest) = (SMALLEST_STEP, 1);
    }

    /// The server was away, or the limit has reached a refused level: earlier levels are no comparison.
    pub(super) fn forget_level(&mut self) {
        self.anchor = None;
    }

    /// Steps up have succeeded: the next one is larger.
    pub(super) fn lengthen_step(&mut self) {
        self.factor = LARGEST_STEP.min(self.factor * self.factor);
    }

    /// Judges a round with `limit` calls in use; `tokens` are those of a mean answer.
    pub(super) fn judge(&mut self, level: Level, limit: f64, tokens: f64) -> Move {
        if self.is_fixed {
            return Move::Rise(self.factor);
        }
        if self.anchor.is_some_and(|anchor| anchor.has_tokens != level.has_tokens) {
            self.anchor = None;
        }
        if self.is_starting() {
            return self.judge_start(level, tokens);
        }
        if let Some(anchor) = self.anchor.filter(|anchor| follows(&level, anchor, tokens)) {
            self.learn_base_wait(&level, &anchor);
            self.probe_after = FIRST_PROBE;
        }
        let waiting = self.waiting(&level, tokens);
        let is_crowded = waiting.is_some_and(|waiting| waiting > tolerated(level.in_flight));
        if let Some(back) = self.compare(level, limit, is_crowded, tokens) {
            return back;
        }
        match waiting {
            Some(waiting) if is_crowded => {
                self.rest = 2;
                Move::Drain(limit * drained(&level, waiting))
            }
            Some(waiting) if waiting > wanted(level.in_flight) => self.probe(),
            _ if self.rest > 0 => {
                self.rest -= 1;
                Move::StayResting
            }
            _ => Move::Rise(self.factor),
        }
    }

    /// Stays where a few calls wait. A base wait looks the same, so that a step up sometimes finds out which it is.
    fn probe(&mut self) -> Move {
        self.waited += 1;
        if self.waited < self.probe_after {
            return Move::StayQueueing;
        }
        self.waited = 0;
        self.probe_after = LONGEST_PROBE.min(self.probe_after * 2);
        Move::Rise(STEP_AFTER_FAILURE)
    }

    /// Grows while throughput follows. Whether calls wait is not asked before, because the base wait is unknown.
    fn judge_start(&mut self, level: Level, tokens: f64) -> Move {
        let waiting = self.waiting(&level, tokens);
        let Some(anchor) = self.anchor else {
            self.anchor = Some(level);
            return match waiting {
                Some(waiting) if waiting > level.in_flight / 2.0 && level.in_flight > FEW => {
                    self.start = Start::Verifying;
                    Move::Drain(level.in_flight / 2.0)
                }
                _ => Move::Rise(LARGEST_STEP),
            };
        };
        let (moved, gain) = difference(&level, &anchor, tokens);
        if moved < 2.0 * SAME {
            return Move::Rise(LARGEST_STEP);
        }
        if gain >= FOLLOWS * moved {
            self.learn_base_wait(&level, &anchor);
        } else if let Some(waiting) = waiting.filter(|waiting| *waiting > 2.0 * tolerated(level.in_flight)) {
            self.end_start();
            self.rest = 1;
            return Move::Drain(level.in_flight * drained(&level, waiting));
        } else if is_flat(&level, &anchor, moved, gain) {
            self.end_start();
            (self.rest, self.patience) = (1, 2);
            // A little gain shows that the best limit is between the two levels.
            return Move::Return(if gain > 0.0 { level.in_flight } else { anchor.in_flight });
        }
        self.anchor = Some(level);
        let is_bound = level.wait.is_some() && gain < UNBOUND * moved;
        self.start_bound = if is_bound { level.in_flight * REACH } else { f64::INFINITY };
        Move::Rise(LARGEST_STEP)
    }

    /// Levels of the start are no comparison for later ones: the queue grew during the round, and long answers, which
    /// were sent before it did, seem to show a fast server.
    fn end_start(&mut self) {
        (self.start, self.anchor, self.factor) = (Start::Over, None, STEP_AFTER_FAILURE);
    }

    /// Compares the level with the anchor. The move back, if the step from there did not help.
    fn compare(&mut self, level: Level, limit: f64, is_crowded: bool, tokens: f64) -> Option<Move> {
        let anchor = *self.anchor.get_or_insert(level);
        let (moved, gain) = difference(&level, &anchor, tokens);
        let is_far = moved.abs() > FAR.ln();
        if moved.abs() < SAME {
            self.anchor = Some(level);
            if gain > CHANGED {
                (self.factor, self.rest, self.patience) = (LARGEST_STEP, 0, 1);
            }
        } else if is_far && moved > 0.0 {
            if !is_crowded && is_flat(&level, &anchor, moved, gain) {
                return Some(Move::Return(self.step_back(anchor)));
            }
            (self.anchor, self.patience) = (Some(level), 1);
            self.lengthen_step();
        } else if is_far && limit >= anchor.in_flight {
            // The load has shrunk, not the limit: less throughput shows nothing.
            self.anchor = Some(level);
        } else if is_far {
            let has_lost = gain < LOSS * moved - 0.05;
            self.verify(has_lost);
            if has_lost {
                self.trust_for_longer(anchor.wait);
                return Some(Move::Restore(self.step_back(anchor)));
            }
            (self.anchor, self.factor, self.patience) = (Some(level), SMALLEST_STEP, 1);
        } else if moved > 0.0 {
            self.lengthen_step();
        } else {
            self.factor = SMALLEST_STEP;
        }
        None
    }

    /// Ends the verification of the first limit: if half of it lost throughput, the start goes on.
    fn verify(&mut self, has_lost: bool) {
        if self.start == Start::Verifying {
            self.start = if has_lost { Start::Growing } else { Start::Over };
        }
    }

    fn step_back(&mut self, anchor: Level) -> f64 {
        self.rest = self.patience;
        self.patience = LONGEST_REST.min(self.patience * 2);
        self.factor = STEP_AFTER_FAILURE;
        anchor.in_flight
    }

    /// How many calls wait in the server. None if the answers do not show it.
    fn waiting(&mut self, level: &Level, tokens: f64) -> Option<f64> {
        let wait = level.wait?;
        self.trusted_rounds = self.trusted_rounds.saturating_sub(1);
        let is_trusted = self.trusted_rounds > 0 || self.base_wait < SMALL_SHARE * level.seconds_of(tokens);
        self.base_wait = if is_trusted { self.base_wait.min(wait) } else { 0.0 };
        let queued = (wait - self.base_wait.max(HARMLESS)).max(0.0);
        Some(level.in_flight * queued / level.seconds_of(tokens))
    }

    /// Throughput has followed a step up from the anchor: there, calls waited without a queue.
    fn learn_base_wait(&mut self, level: &Level, anchor: &Level) {
        let (Some(before), Some(now)) = (anchor.wait, level.wait) else { return };
        self.base_wait = self.base_wait.max(before.min(now));
        self.trusted_rounds = self.trusted_rounds.max(FIRST_TRUST * 2);
    }

    fn trust_for_longer(&mut self, wait: Option<f64>) {
        let Some(wait) = wait else { return };
        (self.base_wait, self.trusted_rounds) = (wait, self.next_trust);
        self.next_trust = self.next_trust.saturating_mul(2);
    }
}

/// The share of the limit that remains without the calls that wait. A few go on waiting, so that no slot runs empty.
fn drained(level: &Level, waiting: f64) -> f64 {
    let in_flight = level.in_flight.max(1.0);
    let few = FEW.min(in_flight) / in_flight;
    (1.0 - (waiting - wanted(in_flight)) / in_flight).max(DEEPEST).max(few)
}

/// Calls that may wait in the server, so that no slot runs empty: with fewer, the limit rises.
fn wanted(in_flight: f64) -> f64 {
    0.3 + 0.01 * in_flight
}

/// Calls that may wait in the server before the limit falls.
pub(super) fn tolerated(in_flight: f64) -> f64 {
    1.0 + 0.04 * in_flight
}

/// How far a level is from the anchor in calls and in throughput, as logarithms.
fn difference(level: &Level, anchor: &Level, tokens: f64) -> (f64, f64) {
    let moved = (level.in_flight / anchor.in_flight).ln();
    (moved, (level.throughput(tokens) / anchor.throughput(tokens)).ln())
}

/// Whether throughput followed a step up from the anchor.
fn follows(level: &Level, anchor: &Level, tokens: f64) -> bool {
    let (moved, gain) = difference(level, anchor, tokens);
    moved > FAR.ln() && gain >= FOLLOWS * moved
}

/// Whether a step up brought no throughput. Without a fit, the gain must also be below that of a useful step by more
/// than its error, because the mean time of a few answers of very different lengths says little.
fn is_flat(level: &Level, anchor: &Level, moved: f64, gain: f64) -> bool {
    if level.seconds < HARMLESS {
        return gain < HARM;
    }
    if level.wait.is_some() {
        return gain < WORTH * moved + 0.01;
    }
    gain < WORTH_WITHOUT_FIT * moved && FOLLOWS * moved - gain > level.error.hypot(anchor.error)
}
