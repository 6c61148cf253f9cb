//! Canaries: a batch runs a few of its rows first, and then waits for its owner, or goes on if they went well.

use std::fmt;

use super::batch::Counts;
use super::report::NewLane;

/// How many rows of a batch run first, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// How many rows.
    pub rows: u32,
    /// Whether the batch goes on by itself if fewer than half of them failed. Otherwise it pauses.
    pub goes_on: bool,
}

/// What follows from the rows that have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryVerdict {
    /// Some of the rows that run first have no result yet.
    Runs,
    /// The other rows may run.
    GoesOn,
    /// The batch waits for its owner.
    Pauses,
}

impl Canary {
    /// The key of the metadata that asks for it.
    pub const KEY: &str = "canary";
    const GOES_ON: &str = ":auto";

    /// Reads what the metadata of a batch has under [`Canary::KEY`]: `100` or `100:auto`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rows, goes_on) = text.strip_suffix(Self::GOES_ON).map_or((text, false), |rows| (rows, true));
        let is_number = rows.bytes().all(|digit| digit.is_ascii_digit());
        let rows = rows.parse().ok().filter(|rows| is_number && *rows > 0)?;
        Some(Self { rows, goes_on })
    }

    /// How many rows of each lane run first: as many of each, as far as the lanes have them.
    #[must_use]
    pub fn shares(self, lanes: &[NewLane]) -> Vec<u32> {
        let mut shares = vec![0; lanes.len()];
        let mut by_size: Vec<usize> = (0..lanes.len()).collect();
        by_size.sort_by_key(|lane| lanes[*lane].rows());
        let mut left = self.rows;
        for (lanes_left, lane) in (1..=lanes.len()).rev().zip(by_size) {
            let even = left / u32::try_from(lanes_left).unwrap_or(u32::MAX);
            let NewLane { first, last, .. } = lanes[lane];
            shares[lane] = even.min(last - first);
            left -= shares[lane];
        }
        shares
    }

    /// What follows from what has run of a batch.
    #[must_use]
    pub fn verdict(self, counts: Counts) -> CanaryVerdict {
        let run = counts.completed + counts.failed;
        if run < u64::from(self.rows) {
            CanaryVerdict::Runs
        } else if self.goes_on && counts.failed * 2 < run {
            CanaryVerdict::GoesOn
        } else {
            CanaryVerdict::Pauses
        }
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.rows, if self.goes_on { Self::GOES_ON } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_a_number_of_rows() {
        let canary = |rows, goes_on| Some(Canary { rows, goes_on });
        let cases = [("100", canary(100, false)), ("7:auto", canary(7, true))];
        for (text, expected) in cases {
            assert_eq!(Canary::parse(text), expected);
            assert_eq!(expected.map(|canary| canary.to_string()).as_deref(), Some(text));
        }
        for text in ["", "0", ":auto", "-1", "+1", "1.5", "10%", "100:", "100:AUTO", "4294967296", "ten"] {
            assert_eq!(Canary::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_rows_that_run_first_are_spread_over_the_lanes() {
        let cases: [(u32, &[u32], &[u32]); 6] = [
            (10, &[100], &[10]),
            (10, &[100, 100, 100], &[3, 3, 4]),
            (10, &[100, 1, 100], &[4, 1, 5]),
            (10, &[2, 3], &[2, 3]),
            (2, &[5, 5, 5], &[0, 1, 1]),
            (10, &[], &[]),
        ];
        for (rows, sizes, expected) in cases {
            let lane = |size: &u32| NewLane { model: "m".to_owned(), first: 7, last: 7 + size };
            let lanes: Vec<NewLane> = sizes.iter().map(lane).collect();

            assert_eq!(Canary { rows, goes_on: false }.shares(&lanes), expected, "{rows} of {sizes:?}");
        }
    }

    #[test]
    fn a_batch_goes_on_by_itself_if_fewer_than_half_of_the_rows_failed() {
        use CanaryVerdict::{GoesOn, Pauses, Runs};
        let cases = [
            (false, 9, 0, Runs),
            (false, 10, 0, Pauses),
            (true, 5, 4, Runs),
            (true, 6, 4, GoesOn),
            (true, 5, 5, Pauses),
            (true, 0, 10, Pauses),
        ];
        for (goes_on, completed, failed, expected) in cases {
            let counts = Counts { total: 100, completed, failed };

            assert_eq!(Canary { rows: 10, goes_on }.verdict(counts), expected, "{goes_on} {counts:?}");
        }
    }
}
