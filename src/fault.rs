//! Points at which tests make the program fail. Only a build with the feature `failpoints` has them.
//!
//! `FAILPOINTS` in the environment says what happens where, in the syntax of the `fail` crate:
//! `commit.sent=20*off->1*return(crash)` crashes before the 21st COMMIT. `crash` ends the process; anything else is an
//! error, where the point has one to return.
//!
//! | point | when it is reached |
//! |---|---|
//! | `attempt.begun` | before a row is run; crashes for the row whose `custom_id` it names |
//! | `step.begun`, `step.answered`, `step.kept` | around each call of a model or a tool of a `/v1/responses` row |
//! | `blob.put`, `blob.written`, `blob.read` | around the blob store's operations |
//! | `read.files.file` and so on | before a read of the database, each call of `storage/sql/statements` by its own name |
//! | `transaction.begun`, `commit.sent`, `commit.answered` | in every transaction that writes |
//! | `lease.given-back` | after a lease was given back, by so many milliseconds late |

#[cfg(not(feature = "failpoints"))]
pub(crate) use no_points::{at, for_row};
#[cfg(feature = "failpoints")]
pub(crate) use points::{act, at, for_row, late};

#[cfg(feature = "failpoints")]
mod points {
    use std::io;
    use std::time::Duration;

    /// What happens at a point that was reached.
    pub(crate) fn act(what: Option<&str>) -> io::Error {
        if what == Some("crash") {
            std::process::abort();
        }
        io::Error::other("a fault made for a test")
    }

    /// A point that can only crash.
    pub(crate) fn at(point: &str) {
        fail::eval(point, |what| act(what.as_deref()));
    }

    /// A point that crashes for one row.
    pub(crate) fn for_row(point: &str, custom_id: &str) {
        fail::eval(point, |named| {
            if named.as_deref() == Some(custom_id) {
                act(Some("crash"));
            }
        });
    }

    /// Waits at a point for as many milliseconds as it says there. False if nothing is to happen.
    pub(crate) async fn late(point: &'static str) -> bool {
        let Some(millis) = fail::eval(point, |millis| millis.and_then(|millis| millis.parse().ok())).flatten() else {
            return false;
        };
        tokio::time::sleep(Duration::from_millis(millis)).await;
        true
    }
}

#[cfg(not(feature = "failpoints"))]
mod no_points {
    pub(crate) const fn at(_point: &str) {}

    pub(crate) const fn for_row(_point: &str, _custom_id: &str) {}
}
