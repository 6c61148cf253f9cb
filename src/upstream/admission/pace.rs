//! How many calls a second a server takes, where a limit of calls at once cannot say it: if it refuses a call that is
//! almost alone, it counts calls in time.
//!
//! Then calls are sent evenly, at the rate of its answers. A refusal lowers the rate. It rises again: soon to almost
//! the rate that was refused, and slowly beyond.

use std::time::Duration;

/// A refused call with at most so many others under way was refused for its rate.
const ALONE: usize = 1;
/// The least rate, in calls a second.
const LEAST_RATE: f64 = 0.2;
/// A refusal leaves this share of the rate.
const CUT: f64 = 0.85;
/// Up to this share of the refused rate, the rate rises fast.
const NEAR: f64 = 0.97;
/// Rises each second, as shares of the rate.
const FAST: f64 = 0.1;
const SLOW: f64 = 0.002;
/// The slow rise doubles whenever no call was refused for so many seconds.
const PATIENCE: f64 = 30.0;
/// Beyond this many times the refused rate nothing is paced any more.
const FORGOTTEN: f64 = 2.0;
/// Answers are counted over so long.
const WINDOW: Duration = Duration::from_secs(1);

/// The pace of a server's calls: none until it refuses calls that are almost alone.
#[derive(Debug, Default)]
pub(super) struct CallPace {
    paced: Option<Pacing>,
    /// Answers in the window before, and in this one, and when it began.
    before: f64,
    answers: f64,
    window: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Pacing {
    /// Calls a second.
    rate: f64,
    /// The rate at the last refusal.
    refused: f64,
    /// When the rate was last changed.
    at: Duration,
    /// Calls sent before do not count any more.
    cut: Duration,
    /// When the next call may be sent.
    next: Duration,
}

impl CallPace {
    pub(super) fn is_paced(&self) -> bool {
        self.paced.is_some()
    }

    /// The time before which no call may be sent, if that is to come.
    pub(super) fn hold_until(&self, now: Duration) -> Option<Duration> {
        self.paced.map(|paced| paced.next).filter(|next| *next > now)
    }

    /// Whether a call was answered within the last second.
    pub(super) fn answers_come(&mut self, now: Duration) -> bool {
        self.turn(now);
        self.measured(now) > 0.0
    }

    /// A call is sent.
    pub(super) fn sent(&mut self, now: Duration) {
        if let Some(paced) = &mut self.paced {
            paced.next = now.max(paced.next) + Duration::from_secs_f64(1.0 / paced.rate);
        }
    }

    /// A call was answered.
    pub(super) fn answered(&mut self, now: Duration) {
        self.turn(now);
        self.answers += 1.0;
        let Some(paced) = &mut self.paced else { return };
        let passed = now.saturating_sub(paced.at).as_secs_f64().min(1.0);
        paced.at = now;
        let calm = now.saturating_sub(paced.cut).as_secs_f64();
        let slow = FAST.min(SLOW * (calm / PATIENCE).exp2());
        let rise = if paced.rate < paced.refused * NEAR { FAST } else { slow };
        paced.rate *= 1.0 + rise * passed;
        if paced.rate > paced.refused * FORGOTTEN {
            self.paced = None;
        }
    }

    /// A call was refused, with `others` under way.
    pub(super) fn refused(&mut self, now: Duration, sent: Duration, others: usize) {
        self.turn(now);
        let measured = self.measured(now);
        match &mut self.paced {
            Some(paced) if sent < paced.cut => {}
            Some(paced) => {
                let rate = (paced.rate * CUT).max(LEAST_RATE);
                *paced = Pacing { rate, refused: paced.rate, at: now, cut: now, next: paced.next };
            }
            None if others <= ALONE && measured > 0.0 => {
                let rate = measured.max(LEAST_RATE);
                self.paced = Some(Pacing { rate, refused: rate, at: now, cut: now, next: now });
            }
            None => {}
        }
    }

    /// Begins a new window, if this one is over.
    fn turn(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.window);
        if passed >= WINDOW {
            self.before = if passed < WINDOW * 2 { self.answers } else { 0.0 };
            (self.answers, self.window) = (0.0, now);
        }
    }

    /// Answers a second.
    fn measured(&self, now: Duration) -> f64 {
        let part = now.saturating_sub(self.window).as_secs_f64() / WINDOW.as_secs_f64();
        self.before * (1.0 - part).max(0.0) + self.answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that takes `rate` calls a second, with a burst of as many, and a client that sends them as paced for
    /// `seconds`: answers and refusals after `from`.
    fn run(rate: f64, seconds: u64, from: u64) -> (u32, u32) {
        let (mut pace, mut tokens, mut filled) = (CallPace::default(), rate, Duration::ZERO);
        let (mut answers, mut refusals) = (0, 0);
        let step = Duration::from_millis(20);
        let mut now = step;
        while now < Duration::from_secs(seconds) {
            if let Some(until) = pace.hold_until(now) {
                now = until;
            }
            tokens = (tokens + now.saturating_sub(filled).as_secs_f64() * rate).min(rate);
            filled = now;
            pace.sent(now);
            let sent = now;
            now += step;
            let counts = u32::from(sent >= Duration::from_secs(from));
            if tokens >= 1.0 {
                tokens -= 1.0;
                pace.answered(now);
                answers += counts;
            } else {
                pace.refused(now, sent, 0);
                refusals += counts;
            }
        }
        (answers, refusals)
    }

    #[test]
    fn a_server_that_counts_calls_in_time_is_kept_busy_and_refuses_few() {
        for rate in [2.0, 10.0, 30.0] {
            let (answers, refusals) = run(rate, 130, 10);
            let most = rate * 120.0;

            assert!(f64::from(answers) > 0.9 * most, "{rate}: {answers} answers");
            assert!(f64::from(refusals) < 0.06 * most, "{rate}: {refusals} refusals");
        }
    }

    #[test]
    fn a_call_that_is_refused_among_many_says_nothing_of_the_rate() {
        let mut pace = CallPace::default();
        pace.refused(WINDOW, WINDOW, 5);
        assert!(!pace.is_paced());
    }
}
