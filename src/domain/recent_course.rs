//! What was recorded of a model in the last minutes, in points of equal length.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// Seconds of a point.
const SECONDS: i64 = 5;
/// Points that are kept: the last five minutes.
const POINTS: usize = 60;
/// Seconds of all points together.
const LENGTH: i64 = 5 * 60;

/// The rows and tokens that were recorded in each of the last points. Points begin at multiples of their length, so
/// that the courses of several daemons can be added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecentCourse {
    /// The Unix second at which the last point ends.
    ends: i64,
    /// Rows and tokens, the oldest first.
    points: Vec<(u64, u64)>,
}

impl RecentCourse {
    /// Adds what is recorded at a time. A clock that steps back begins the course anew.
    pub fn record(&mut self, now: Timestamp, rows: u64, tokens: u64) {
        let ends = now.seconds() - now.seconds().rem_euclid(SECONDS) + SECONDS;
        if ends < self.ends {
            self.points.clear();
        }
        self.move_to(ends);
        if let Some((of_rows, of_tokens)) = self.points.last_mut() {
            *of_rows = of_rows.saturating_add(rows);
            *of_tokens = of_tokens.saturating_add(tokens);
        }
    }

    /// Whether nothing was recorded in the last minutes.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.points.is_empty() || now.seconds() - self.ends > LENGTH
    }

    /// The points that are over: the one under way would look as if the rate fell.
    #[must_use]
    pub fn whole(&self, now: Timestamp) -> Self {
        if self.is_over(now) {
            return Self::default();
        }
        let mut whole = self.clone();
        whole.move_to((now.seconds() - now.seconds().rem_euclid(SECONDS)).max(self.ends - SECONDS));
        if whole.ends == self.ends && now.seconds() < self.ends {
            whole.points.pop();
            whole.ends -= SECONDS;
        }
        let empty = whole.points.iter().take_while(|point| **point == (0, 0)).count();
        whole.points.drain(..empty);
        if whole.points.is_empty() { Self::default() } else { whole }
    }

    /// The sum of several courses: 60 points, the oldest first.
    #[must_use]
    pub fn sum<'a>(courses: impl IntoIterator<Item = &'a Self>) -> Vec<(u64, u64)> {
        let courses: Vec<&Self> = courses.into_iter().filter(|course| !course.points.is_empty()).collect();
        let ends = courses.iter().map(|course| course.ends).max().unwrap_or(0);
        let mut sum = vec![(0, 0); POINTS];
        for course in courses {
            let missing = usize::try_from((ends - course.ends) / SECONDS).unwrap_or(POINTS);
            let places = sum.iter_mut().rev().skip(missing);
            for ((rows, tokens), (more_rows, more_tokens)) in places.zip(course.points.iter().rev()) {
                *rows = u64::saturating_add(*rows, *more_rows);
                *tokens = u64::saturating_add(*tokens, *more_tokens);
            }
        }
        sum
    }

    /// Adds empty points until the last one ends at `ends`.
    fn move_to(&mut self, ends: i64) {
        if self.points.is_empty() {
            (self.ends, self.points) = (ends, vec![(0, 0)]);
        }
        while self.ends < ends {
            let missing = (ends - self.ends) / SECONDS;
            if missing > LENGTH / SECONDS {
                self.points.clear();
                self.ends = ends - SECONDS;
            }
            self.points.push((0, 0));
            self.ends += SECONDS;
        }
        let over = self.points.len().saturating_sub(POINTS);
        self.points.drain(..over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1000)
    }

    #[test]
    fn points_that_are_over_have_what_was_recorded_in_them() {
        let mut course = RecentCourse::default();
        for (second, rows) in [(100, 1), (104, 2), (105, 4), (116, 8)] {
            course.record(at(second), rows, rows * 10);
        }

        // When it is looked at, and the rows of the last points that are over.
        let cases: [(i64, &[u64]); 4] =
            [(116, &[3, 4, 0]), (119, &[3, 4, 0]), (120, &[3, 4, 0, 8]), (131, &[3, 4, 0, 8, 0, 0])];
        for (now, expected) in cases {
            let sum = RecentCourse::sum([&course.whole(at(now))]);
            let rows: Vec<u64> = sum.iter().map(|point| point.0).collect();

            assert_eq!(rows.len(), POINTS);
            assert!(rows.ends_with(expected), "at {now}: {rows:?}");
            assert_eq!(rows.iter().sum::<u64>(), expected.iter().sum::<u64>(), "at {now}");
        }
    }

    #[test]
    fn only_the_last_minutes_are_kept() {
        let mut course = RecentCourse::default();
        for second in (0..10_000).step_by(5) {
            course.record(at(second), 1, 7);
        }
        assert_eq!(course.points, [(1, 7); POINTS]);

        course.record(at(9_000_000), 2, 0);
        assert_eq!(RecentCourse::sum([&course]).iter().map(|point| point.0).sum::<u64>(), 2);
        course.record(at(20), 5, 0);
        course.record(at(21), 1, 0);
        assert_eq!(course.points, [(6, 0)], "the clock has stepped back");
        let late = course.whole(at(99_000_000));
        assert!(late.points.is_empty(), "{late:?}");
    }

    #[test]
    fn courses_of_several_daemons_are_added_by_time() {
        let (mut one, mut other) = (RecentCourse::default(), RecentCourse::default());
        one.record(at(100), 1, 1);
        other.record(at(100), 2, 2);
        other.record(at(110), 4, 4);

        let sum = RecentCourse::sum([&one, &other, &RecentCourse::default()]);

        assert_eq!(sum[POINTS - 3..], [(3, 3), (0, 0), (4, 4)]);
    }
}
