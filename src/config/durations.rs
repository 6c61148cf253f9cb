//! Durations as settings write them, such as `90s` or `7d`: a call has a clock that each of them is added to.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer};

/// The longest duration that a setting may have. It can be added to any date that a program will see.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

/// A duration, of at most 100 years.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > LONGEST { Err("a duration of more than 100 years is as good as none".to_owned()) } else { Ok(time) }
}

/// A duration in which a call can end.
pub(super) fn time_of_call(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() { Err("no call can end in no time".to_owned()) } else { Ok(time) }
}

/// A [`duration`] in a file of settings.
pub(crate) fn read_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// The same, which may be left out.
pub(crate) fn read_optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    read_duration(deserializer).map(Some)
}

/// A [`time_of_call`] in a file of settings.
pub(super) fn read_time_of_call<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    time_of_call(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// The same, which may be left out.
pub(super) fn read_optional_time_of_call<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    read_time_of_call(deserializer).map(Some)
}
