//! The level at which a server refused calls.
//!
//! A refusal states the limit exactly: the calls that were under way beside the refused one. The level is remembered,
//! and exceeded in small steps after many answers, because each trial costs a refusal.

use std::time::Duration;

use super::round::count;

/// The first step beyond the refused level, as a ratio.
pub(super) const SMALL_STEP: f64 = 1.01;
/// Answers without a refusal after which the limit may exceed the level.
const CLEAN_ANSWERS: u32 = 200;
/// The limit also stays for so many times the server's Retry-After: each further refusal stops all calls for one.
const PAUSES: u32 = 20;
/// A limit at least this close to the level is at the level.
const AT_LEVEL: f64 = 0.985;
/// A refusal after the limit was lowered for one lowers it further by 4, 12, 28 ... percent, up to a half: a
/// server that counts tokens and not calls refuses on until much less is under way.
const FIRST_CUT: f64 = 0.04;
const DEEPEST_CUT: f64 = 0.5;
const MOST_STRIKES: i32 = 10;
/// The seconds in which a further refusal counts as one after the cut, before any call was answered.
const FIRST_ROUND_TRIP: f64 = 1.0;

/// Where the server refused calls, if it did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RefusedLevel {
    /// The calls that the server had taken. It outlives the cut below it, so that the limit soon returns to it.
    level: Option<f64>,
    /// Answers until the limit may exceed the level, and the time before which it may not.
    answers_left: u32,
    stays_until: Duration,
    /// Cuts in a row, and when the last was made.
    strikes: i32,
    struck: Option<Duration>,
}

impl RefusedLevel {
    pub(super) fn answered(&mut self) {
        self.answers_left = self.answers_left.saturating_sub(1);
    }

    /// Notes a refusal of a call that was sent at `sent`, with `others` under way. `seconds` is the mean time of a
    /// call, or 0 before the first answer. The limit that follows.
    pub(super) fn refused(
        &mut self,
        now: Duration,
        sent: Duration,
        others: usize,
        retry_after: Option<Duration>,
        seconds: f64,
    ) -> f64 {
        // A call sent before the last cut belongs to the burst that the cut was made for.
        if self.struck.is_none_or(|struck| sent >= struck) {
            let round_trip = if seconds > 0.0 { seconds } else { FIRST_ROUND_TRIP };
            let is_again = self.struck.is_some_and(|struck| now.saturating_sub(struck).as_secs_f64() < round_trip);
            self.strikes = if is_again { (self.strikes + 1).min(MOST_STRIKES) } else { 0 };
            self.struck = Some(now);
        }
        let cut = DEEPEST_CUT.min(FIRST_CUT * (2.0_f64.powi(self.strikes) - 1.0));
        self.level = Some(count(others).max(1.0));
        self.answers_left = CLEAN_ANSWERS;
        self.stays_until = now.saturating_add(retry_after.unwrap_or_default().saturating_mul(PAUSES));
        (count(others) * (1.0 - cut)).max(1.0)
    }

    /// How far a limit may rise on its way to `goal`. None if nothing bounds it.
    pub(super) fn bound(&self, now: Duration, limit: f64, goal: f64) -> Option<f64> {
        let level = self.level.filter(|level| goal > *level)?;
        if limit < level * AT_LEVEL {
            return Some(level);
        }
        (self.answers_left > 0 || now < self.stays_until).then_some(limit)
    }

    /// Whether the server has refused nothing.
    pub(super) fn is_none(&self) -> bool {
        self.level.is_none()
    }

    /// Whether the level is below a limit.
    pub(super) fn is_below(&self, limit: f64) -> bool {
        self.level.is_some_and(|level| level < limit)
    }
}
