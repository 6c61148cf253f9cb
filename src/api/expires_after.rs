//! `expires_after`, which files and batches take: how long a file is kept (contract §2.1, §8.1).

use std::ops::RangeInclusive;
use std::time::Duration;

use super::ApiError;

/// Seconds that a client may ask for: an hour to thirty days.
pub(super) const SECONDS: RangeInclusive<i64> = 3600..=2_592_000;

/// Reads an `expires_after` whose members are both there. `param` is its path; `seconds` reads that member, whose path
/// it is given, within [`SECONDS`].
pub(super) fn read(
    param: &str,
    anchor: &str,
    seconds: impl FnOnce(&str) -> Result<i64, ApiError>,
) -> Result<Duration, ApiError> {
    if anchor != "created_at" {
        return Err(ApiError::wrong_value(&format!("{param}.anchor"), anchor, &["created_at"]));
    }
    let seconds = seconds(&format!("{param}.seconds"))?;
    Ok(Duration::from_secs(seconds.unsigned_abs()))
}
