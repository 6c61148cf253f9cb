//! How long the rows of a model take, and so how many of them a daemon runs in a second.
//!
//! By Little's law, the rows that begin in a second are those under way divided by the time that one takes. That time
//! is the sum of the times that rows were under way, divided by the rows that began. So it needs no end of a row, is
//! the same whether rows begin together or one by one, and does not change while nothing is under way.

use std::time::Duration;

use crate::domain::time::Timestamp;

/// After so many rows, those before count half.
const MEMORY: f64 = 4096.0;

/// Most of the time between two looks that counts: the claim loop looks twice a second, and a wall clock may step, or a
/// machine sleep.
const MOST_BETWEEN: Duration = Duration::from_secs(5);

/// The rows of one model that this daemon has begun.
#[derive(Debug)]
pub(super) struct ServiceTime {
    /// Seconds that rows were under way, added up.
    busy: f64,
    begun: f64,
    since: Timestamp,
}

impl ServiceTime {
    /// Of no row.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { busy: 0.0, begun: 0.0, since: now }
    }

    /// Notes the time that has passed, in which so many rows were under way.
    pub(super) fn pass(&mut self, now: Timestamp, running: usize) {
        let passed = now.since(self.since).min(MOST_BETWEEN);
        self.since = now;
        self.busy += passed.as_secs_f64() * count(running);
    }

    /// A row begins.
    pub(super) fn begin(&mut self) {
        self.begun += 1.0;
        if self.begun > MEMORY {
            (self.busy, self.begun) = (self.busy / 2.0, self.begun / 2.0);
        }
    }

    /// The time that a row takes, in seconds. None as long as nothing is known.
    pub(super) fn seconds_per_row(&self) -> Option<f64> {
        let seconds = self.busy / self.begun;
        (seconds > 0.0).then_some(seconds)
    }

    /// The rows that begin in a second if so many are under way. None as long as nothing is known.
    pub(super) fn rows_a_second(&self, running: usize) -> Option<f64> {
        Some(count(running.max(1)) / self.seconds_per_row()?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows are small")]
fn count(rows: usize) -> f64 {
    rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    #[test]
    fn rows_that_begin_together_have_the_rate_of_those_that_begin_one_by_one() {
        let mut together = ServiceTime::new(at(0));
        for second in 0..600 {
            together.pass(at(second), if second == 0 { 0 } else { 256 });
            (0..if second % 60 == 0 { 256 } else { 0 }).for_each(|_| together.begin());
        }
        together.pass(at(600), 256);
        let rate = together.rows_a_second(256).expect("rows have begun");
        assert!((rate - 256.0 / 60.0).abs() < 0.01, "{rate}");

        // An hour in which nothing is under way.
        together.pass(at(4_200), 0);
        assert_eq!(together.rows_a_second(256), Some(rate));
    }

    #[test]
    fn a_step_of_the_clock_is_no_time_that_rows_took() {
        for step in [-7_200, -60, 60, 7_200, 86_400] {
            let mut service = ServiceTime::new(at(0));
            let after_step = |second| second + step * i64::from(second >= 500);
            for second in 1..1_000 {
                service.pass(at(after_step(second)), 8);
                service.begin();
            }
            let rate = service.rows_a_second(8).expect("rows have begun");
            assert!((rate - 1.0).abs() < 0.01, "{rate} after a step of {step} s");
        }
    }

    #[test]
    fn a_rate_follows_the_server() {
        let mut service = ServiceTime::new(at(0));
        assert_eq!(service.rows_a_second(8), None);
        for second in 1..20_000 {
            // Eight rows under way, of which as many begin in a second: one at first, and then eight.
            service.pass(at(second), 8);
            (0..if second < 100 { 1 } else { 8 }).for_each(|_| service.begin());
        }
        let rate = service.rows_a_second(8).expect("rows have begun");
        assert!((rate - 8.0).abs() < 0.01, "{rate}");
    }
}
