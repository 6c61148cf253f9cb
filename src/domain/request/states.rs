//! The states of a request, each with what is known only in it.

use crate::domain::ids::DaemonId;
use crate::domain::lease::FencedLease;
use crate::domain::outcome::{Answer, FailureReason};
use crate::domain::time::Timestamp;

/// Implemented by the states a request can be in, and by nothing else.
pub trait RequestState: sealed::Sealed {
    /// The state's name in logs.
    const NAME: &'static str;
}

/// Waiting to be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Not to be tried before this time; at once if unset.
    pub not_before: Option<Timestamp>,
}

/// In the hands of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The daemon.
    pub daemon_id: DaemonId,
    /// The lease that it runs the request under; a token above 1 says that others have held it before.
    pub lease: FencedLease,
}

/// On the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processing {
    /// The daemon.
    pub daemon_id: DaemonId,
    /// When the call was started.
    pub started_at: Timestamp,
}

/// Answered with success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// The answer.
    pub answer: Answer,
}

/// Answered with an error, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub reason: FailureReason,
}

/// Called off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canceled {
    /// By whom.
    pub reason: CancellationReason,
}

/// Who called a request off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancellationReason {
    /// The batch was cancelled or its window closed, or the lease was lost: this daemon is not to run the row.
    User,
    /// The daemon is stopping: somebody else is to run the row.
    Shutdown,
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! states {
    ($($state:ident => $name:literal),+ $(,)?) => {$(
        impl sealed::Sealed for $state {}
        impl RequestState for $state {
            const NAME: &'static str = $name;
        }
    )+};
}

states! {
    Pending => "pending",
    Claimed => "claimed",
    Processing => "processing",
    Completed => "completed",
    Failed => "failed",
    Canceled => "canceled",
}
