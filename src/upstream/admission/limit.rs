//! How many calls a server takes, as its refusals show.
//!
//! A refusal tells the limit exactly: the calls that were under way beside the refused one. That level is remembered,
//! and approached again in small steps after many answers. Without refusals there is no limit.

use std::time::Duration;

/// Answers without a refusal after which the limit goes beyond the refused level again: each trial costs a refusal.
const CLEAN_ANSWERS: u32 = 200;
/// Beyond the refused level by this share, the server takes more than it did, and the limit rises fast.
const BEYOND: f64 = 1.1;
/// Beyond this many times the refused level there is no limit any more.
const FORGOTTEN: f64 = 4.0;
/// A step up near the refused level, and a step up beyond it.
const SMALL_STEP: f64 = 1.01;
const LARGE_STEP: f64 = 1.4;
/// A refusal after the limit was lowered for one lowers it further by 1, 3, 7, 15 ... percent, up to a half.
const FIRST_CUT: f64 = 0.01;
const DEEPEST_CUT: f64 = 0.5;
const MOST_STRIKES: i32 = 10;

/// The limit that refusals leave.
#[derive(Debug, Default)]
pub(super) struct RefusedLimit {
    /// No more than this, if the server has refused calls.
    level: Option<RefusedLevel>,
    /// The same when the server last answered.
    proven: Option<RefusedLevel>,
    /// How many calls were under way when the server was last found to be gone.
    before_outage: usize,
    /// The mean time of an answered call.
    took: Duration,
}

#[derive(Debug, Clone, Copy)]
struct RefusedLevel {
    limit: f64,
    /// Where the server refused.
    refused: f64,
    /// Answers since the last refusal or step up.
    clean: u32,
    /// Cuts in a row, and when the last was made.
    strikes: i32,
    struck: Duration,
}

impl RefusedLimit {
    /// Whether there is a limit.
    pub(super) fn is_lowered(&self) -> bool {
        self.level.is_some()
    }

    /// The limit: at least 1, and `usize::MAX` without refusals.
    pub(super) fn limit(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and is not negative"
        )]
        self.level.map_or(usize::MAX, |level| level.limit.max(1.0) as usize)
    }

    /// Notes a refusal of a call that was sent at `sent`, with `others` under way.
    pub(super) fn refused(&mut self, now: Duration, sent: Duration, others: usize) {
        let before = self.level.filter(|level| sent >= level.struck || level.strikes == 0);
        if self.level.is_some_and(|level| sent < level.struck) {
            // The call was sent before the cut, which was made for another of the same burst.
            let level = self.level.as_mut().expect("it was looked at");
            level.clean = 0;
            level.limit = level.limit.min(count(others).max(1.0));
            level.refused = level.limit;
            return;
        }
        let strikes = match before {
            Some(level) if now.saturating_sub(level.struck) < self.took.saturating_mul(2) => {
                (level.strikes + 1).min(MOST_STRIKES)
            }
            _ => 0,
        };
        let cut = DEEPEST_CUT.min(FIRST_CUT * (2.0_f64.powi(strikes) - 1.0));
        let limit = (count(others) * (1.0 - cut)).max(1.0);
        self.level = Some(RefusedLevel { limit, refused: limit, clean: 0, strikes, struck: now });
    }

    /// Notes an answer, which took so long.
    pub(super) fn answered(&mut self, took: Duration) {
        self.took = if self.took.is_zero() { took } else { (self.took * 15 + took) / 16 };
        self.proven = self.level;
        let Some(level) = &mut self.level else { return };
        level.clean = level.clean.saturating_add(1);
        let is_beyond = level.limit > level.refused * BEYOND;
        let enough = if is_beyond || level.limit < level.refused { level.limit } else { f64::from(CLEAN_ANSWERS) };
        if f64::from(level.clean) < enough {
            return;
        }
        let step = if is_beyond { LARGE_STEP } else { SMALL_STEP };
        level.clean = 0;
        level.limit = (level.limit + 1.0).max(level.limit * step);
        if level.limit >= level.refused * FORGOTTEN {
            self.level = None;
        }
    }

    /// The server takes no calls at all: what it refused since its last answer says nothing of how many it takes.
    /// `in_flight` calls were under way.
    pub(super) fn went_down(&mut self, in_flight: usize) {
        self.level = self.proven;
        self.before_outage = self.limit().min(in_flight);
    }

    /// The server is back after it took no calls: half as many as before, and up from there.
    pub(super) fn came_back(&mut self) {
        let limit = (count(self.before_outage) / 2.0).max(1.0);
        let level = RefusedLevel { limit, refused: limit / 2.0, clean: 0, strikes: 0, struck: Duration::ZERO };
        self.level = Some(level);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
fn count(calls: usize) -> f64 {
    calls as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_refusal_leaves_what_the_server_took() {
        let mut limit = RefusedLimit::default();
        assert_eq!(limit.limit(), usize::MAX);

        limit.refused(MILLI, Duration::ZERO, 64);

        assert_eq!(limit.limit(), 64);
    }

    #[test]
    fn refusals_of_one_burst_are_one_cut_and_those_after_it_cut_deeper() {
        let mut limit = RefusedLimit::default();
        limit.answered(MILLI * 100);
        for others in (0..=192).rev().map(|refused| 64 + refused) {
            limit.refused(MILLI * 5, Duration::ZERO, others);
        }
        assert_eq!(limit.limit(), 64);

        let mut limits = Vec::new();
        for round in 1..=8 {
            let now = MILLI * 10 * round;
            limit.refused(now, now, limit.limit());
            limits.push(limit.limit());
        }

        assert_eq!(limits, [63, 61, 56, 47, 32, 16, 8, 4]);
        assert!((0..20).all(|round| {
            let now = MILLI * (200 + 10 * round);
            limit.refused(now, now, 0);
            limit.limit() == 1
        }));
    }

    #[test]
    fn the_limit_rises_slowly_at_the_refused_level_and_fast_beyond_it() {
        let mut limit = RefusedLimit::default();
        limit.refused(MILLI, Duration::ZERO, 100);
        let answers_to = |limit: &mut RefusedLimit, wanted: usize| {
            (0..10_000)
                .find(|_| {
                    limit.answered(MILLI);
                    limit.limit() >= wanted
                })
                .expect("it rises")
        };

        assert!(answers_to(&mut limit, 101) >= 199);
        assert!(answers_to(&mut limit, 111) > 1000);
        assert!(answers_to(&mut limit, 256) < 1000);
        answers_to(&mut limit, usize::MAX);
    }

    #[test]
    fn a_server_that_is_back_gets_half_and_soon_all() {
        let mut limit = RefusedLimit::default();
        limit.went_down(64);
        limit.came_back();
        assert_eq!(limit.limit(), 32);

        for _ in 0..200 {
            limit.answered(MILLI);
        }

        assert_eq!(limit.limit(), usize::MAX);
    }
}
