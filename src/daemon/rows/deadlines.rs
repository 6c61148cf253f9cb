//! Which windows are at risk of closing before their rows have run.
//!
//! A batch can be served late only because of those whose windows close before its own: served in the order of their
//! windows, each has to wait for the rows of those before it. So a window is at risk if all rows due until it closes
//! take more than a part of the time that is left, at the rate at which rows of the model begin now.

use std::time::Duration;

use crate::domain::time::Timestamp;

/// The part of the time left that the rows due may take before their batches go first. The lower it is, the earlier
/// windows win over fair shares; at 1, windows would be missed whenever a server becomes slower.
const SAFE_PART: f64 = 0.5;

/// The last window at risk, of batches with so many rows left each: all batches whose windows close until then are to
/// go first. `rows_a_second` is the rate of all of them together.
pub(super) fn at_risk_until(
    now: Timestamp,
    rows_a_second: f64,
    windows: impl Iterator<Item = (Timestamp, u64)>,
) -> Option<Timestamp> {
    let mut windows: Vec<_> = windows.filter(|(_, rows)| *rows > 0).collect();
    windows.sort_unstable();
    let mut due = 0.0;
    let mut until = None;
    for (expires_at, rows) in windows {
        due += rows_of(rows);
        let left: Duration = expires_at.since(now);
        if rows_a_second > 0.0 && due > rows_a_second * left.as_secs_f64() * SAFE_PART {
            until = Some(expires_at);
        }
    }
    until
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn rows_of(rows: u64) -> f64 {
    rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_at_risk_if_the_rows_due_take_most_of_the_time_left() {
        // Rows and the seconds until their window closes, at 10 rows a second; and the last window at risk.
        type Windows = &'static [(u64, i64)];
        let cases: [(Windows, Option<i64>); 7] = [
            (&[], None),
            (&[(49, 10)], None),
            (&[(51, 10)], Some(10)),
            (&[(40, 10), (20, 10)], Some(10)),
            (&[(51, 10), (100, 1_000)], Some(10)),
            // What is due first adds to what is due later.
            (&[(40, 10), (70, 20)], Some(20)),
            (&[(1_000_000, 86_400), (20, 86_400)], Some(86_400)),
        ];
        for (windows, expected) in cases {
            let windows = windows.iter().map(|(rows, seconds)| (Timestamp(seconds * 1_000), *rows));
            let until = at_risk_until(Timestamp(0), 10.0, windows.clone());
            assert_eq!(until, expected.map(|seconds| Timestamp(seconds * 1_000)));
            assert_eq!(at_risk_until(Timestamp(0), 0.0, windows), None, "nothing is known before rows begin");
        }
    }
}
