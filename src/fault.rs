//! Points at which tests make the program fail: `crash` ends the process there, anything else is an error.
//!
//! Compiled in with the feature `failpoints` only. `FAILPOINTS` in the environment says what happens where, in the
//! syntax of the `fail` crate: `commit.sent=20*off->1*return(crash)` crashes before the 21st COMMIT.

use std::io;
use std::time::Duration;

/// What happens at a point that was reached.
pub(crate) fn act(what: Option<&str>) -> io::Error {
    if what == Some("crash") {
        std::process::abort();
    }
    io::Error::other("a fault made for a test")
}

/// Waits at a point that was reached, for as many milliseconds as it says there. False if nothing is to happen.
pub(crate) async fn late(point: &'static str) -> bool {
    let Some(millis) = fail::eval(point, |millis| millis.and_then(|millis| millis.parse().ok())).flatten() else {
        return false;
    };
    tokio::time::sleep(Duration::from_millis(millis)).await;
    true
}
