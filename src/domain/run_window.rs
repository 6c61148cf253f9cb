//! The hours of the day in which a server is to run batches.

use std::fmt;
use std::str::FromStr;

use super::time::Timestamp;

const MINUTES_OF_A_DAY: i64 = 24 * 60;
const MILLISECONDS_OF_A_MINUTE: i64 = 60_000;

/// From one time of the day to another, in UTC: `22:00-06:00`. The second is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunWindow {
    /// Minutes since midnight.
    from: i64,
    to: i64,
}

impl RunWindow {
    /// Whether a time is in the window.
    #[must_use]
    pub fn contains(self, at: Timestamp) -> bool {
        let minute = (at.0 / MILLISECONDS_OF_A_MINUTE).rem_euclid(MINUTES_OF_A_DAY);
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl FromStr for RunWindow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let minutes = |time: &str| {
            let (hour, minute) = time.trim().split_once(':')?;
            let number = |text: &str, most| text.parse().ok().filter(|number| (0..=most).contains(number));
            Some(number(hour, 23_i64)? * 60 + number(minute, 59)?)
        };
        let window = text.split_once('-').and_then(|(from, to)| Some(Self { from: minutes(from)?, to: minutes(to)? }));
        let window = window.ok_or("a window is two times of the day in UTC, such as 22:00-06:00")?;
        if window.from == window.to { Err("a window has two times that differ".to_owned()) } else { Ok(window) }
    }
}

impl fmt::Display for RunWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [self.from, self.to].map(|minutes| format!("{:02}:{:02}", minutes / 60, minutes % 60));
        write!(f, "{from}-{to} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_go_over_midnight() {
        // A window, and whether it has 05:59, 06:00, 12:30 and 22:00.
        let cases = [
            ("22:00-06:00", [true, false, false, true]),
            ("06:00-22:00", [false, true, true, false]),
            ("12:30-12:31", [false, false, true, false]),
        ];
        for (text, expected) in cases {
            let window: RunWindow = text.parse().expect("a window");
            let at = [(5, 59), (6, 0), (12, 30), (22, 0)].map(|(hour, minute)| {
                window.contains(Timestamp((20_000 * MINUTES_OF_A_DAY + hour * 60 + minute) * MILLISECONDS_OF_A_MINUTE))
            });
            assert_eq!(at, expected, "{text}");
            assert_eq!(window.to_string(), format!("{text} UTC"));
        }
        for wrong in ["", "22:00", "24:00-06:00", "22:00-06:60", "a-b", "06:00-06:00", "-1:00-06:00"] {
            assert!(wrong.parse::<RunWindow>().is_err(), "{wrong}");
        }
    }
}
