//! How long a simulated request takes, as written on the command line.

use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The distribution request latencies are drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// Every request takes this long.
    Constant(Duration),
    /// Many take about the median and a few much longer, as on a real server.
    Lognormal {
        /// Half of the requests take at most this long.
        median: Duration,
        /// The standard deviation of the latency's logarithm; 0 makes every request take the median.
        sigma: f64,
    },
}

/// Why a text is not a latency.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LatencyError {
    /// A duration that cannot be read.
    #[error("'{text}' is not a duration ({source}); write for example 50ms or 1s 500ms")]
    Duration {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: humantime::DurationError,
    },
    /// The two parts after `lognormal:` are missing.
    #[error("expected lognormal:MEDIAN:SIGMA, for example lognormal:500ms:0.5")]
    Shape,
    /// A sigma that is not a number from 0 upwards.
    #[error("'{text}' is not a sigma; write a number from 0 upwards, for example 0.5")]
    Sigma {
        /// The text.
        text: String,
    },
}

impl Latency {
    /// The latency at two numbers drawn evenly from 0 (inclusive) to 1 (exclusive).
    pub(super) fn at(self, first: f64, second: f64) -> Duration {
        match self {
            Self::Constant(latency) => latency,
            Self::Lognormal { median, sigma } => {
                // Box and Muller: two even numbers make a normal one. `1 - first` keeps the logarithm finite.
                let normal = (-2.0 * (1.0 - first).ln()).sqrt() * (TAU * second).cos();
                let seconds = median.as_secs_f64() * (sigma * normal).exp();
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
        }
    }
}

impl FromStr for Latency {
    type Err = LatencyError;

    fn from_str(text: &str) -> Result<Self, LatencyError> {
        let Some(rest) = text.strip_prefix("lognormal") else {
            return Ok(Self::Constant(parse_duration(text)?));
        };
        let parts = rest.strip_prefix(':').and_then(|parts| parts.split_once(':'));
        let (median, sigma) = parts.ok_or(LatencyError::Shape)?;
        let median = parse_duration(median)?;
        match sigma.parse::<f64>() {
            Ok(sigma) if sigma.is_finite() && sigma >= 0.0 => Ok(Self::Lognormal { median, sigma }),
            _ => Err(LatencyError::Sigma { text: sigma.to_owned() }),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(latency) => humantime::format_duration(*latency).fmt(f),
            Self::Lognormal { median, sigma } => write!(f, "lognormal:{}:{sigma}", humantime::format_duration(*median)),
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, LatencyError> {
    humantime::parse_duration(text).map_err(|source| LatencyError::Duration { text: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_survive_parsing_and_printing() {
        let lognormal = |millis, sigma| Latency::Lognormal { median: Duration::from_millis(millis), sigma };
        let cases = [
            ("50ms", Latency::Constant(Duration::from_millis(50))),
            ("0ms", Latency::Constant(Duration::ZERO)),
            ("1s 500ms", Latency::Constant(Duration::from_millis(1500))),
            ("lognormal:500ms:0.5", lognormal(500, 0.5)),
            ("lognormal:2s:0", lognormal(2000, 0.0)),
        ];
        for (text, expected) in cases {
            let latency: Latency = text.parse().expect(text);

            assert_eq!(latency, expected, "{text}");
            assert_eq!(latency.to_string().parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_latency_is_refused_with_an_example() {
        let cases = [
            ("", "'' is not a duration"),
            ("50", "'50' is not a duration"),
            ("-5ms", "'-5ms' is not a duration"),
            ("lognormal", "expected lognormal:MEDIAN:SIGMA"),
            ("lognormal:500ms", "expected lognormal:MEDIAN:SIGMA"),
            ("lognormal:x:0.5", "'x' is not a duration"),
            ("lognormal:500ms:-1", "'-1' is not a sigma"),
            ("lognormal:500ms:NaN", "'NaN' is not a sigma"),
            ("lognormal:500ms:0.5:1", "'0.5:1' is not a sigma"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Latency>().expect_err(text).to_string();

            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn half_of_the_lognormal_latencies_are_below_the_median() {
        let median = Duration::from_millis(500);
        let latency = Latency::Lognormal { median, sigma: 0.5 };
        let grid = (0..100).flat_map(|a| (0..100).map(move |b| (f64::from(a) / 100.0, f64::from(b) / 100.0 + 0.005)));

        let below = grid.filter(|(first, second)| latency.at(*first, *second) < median).count();

        assert!((4900..=5000).contains(&below), "{below}");
    }

    #[test]
    fn no_draw_makes_a_latency_that_cannot_be_waited_for() {
        let latency = Latency::Lognormal { median: Duration::from_secs(1), sigma: 1e6 };

        assert_eq!(latency.at(0.999, 0.0), Duration::MAX);
        assert_eq!(latency.at(0.999, 0.5), Duration::ZERO);
        assert_eq!(latency.at(0.0, 0.0), Duration::from_secs(1));
    }
}
