//! When an event that was not delivered is tried again: for a day, after longer and longer pauses.

use std::time::Duration;

/// The first pauses. Those after them take [`LATER`] each.
const FIRST: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
];
const LATER: Duration = Duration::from_hours(1);
/// Tries within a day.
const TRIES: u32 = 1 + 5 + 23;
/// A receiver that was away gets the events of many batches: each is tried up to a fifth later than its pause says.
const JITTER: f64 = 0.2;

/// What follows from a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TryVerdict {
    /// The receiver has the event.
    Delivered,
    /// It may take the event later: the pause, and why not now.
    Again(Duration, String),
    /// It is tried no more, and why.
    GivenUp(String),
}

/// What follows from a failed try, the `tries`th, if the receiver may take the event later. `chance` is from 0 to 1.
#[must_use]
pub fn after_failed_try(tries: u32, chance: f64, why: String) -> TryVerdict {
    if tries >= TRIES {
        return TryVerdict::GivenUp(why);
    }
    let pause = FIRST.get(tries.saturating_sub(1) as usize).copied().unwrap_or(LATER);
    TryVerdict::Again(pause.mul_f64(1.0 + JITTER * chance), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_tried_for_a_day() {
        let mut total = [Duration::ZERO; 2];
        let mut tries = 1;
        while let TryVerdict::Again(least, _) = after_failed_try(tries, 0.0, String::new()) {
            let TryVerdict::Again(most, _) = after_failed_try(tries, 1.0, String::new()) else { break };
            assert!(most > least);
            total = [total[0] + least, total[1] + most];
            tries += 1;
        }

        assert_eq!(tries, TRIES);
        let [least, most] = total.map(|total| total.as_secs() / 3600);
        assert!((23..=24).contains(&least) && most <= 29, "{total:?}");
    }

    #[test]
    fn the_first_pauses_are_short() {
        let pauses: Vec<u64> = (1..=7)
            .map(|tries| {
                let TryVerdict::Again(pause, _) = after_failed_try(tries, 0.0, String::new()) else { return 0 };
                pause.as_secs()
            })
            .collect();

        assert_eq!(pauses, [5, 30, 120, 600, 1800, 3600, 3600]);
    }
}
