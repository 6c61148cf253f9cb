//! The states of a request, each with its own data.

use crate::domain::answer::Answer;
use crate::domain::ids::DaemonId;
use crate::domain::lease::LeaseHold;
use crate::domain::outcome::FailureReason;
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;

/// Implemented by the states a request can be in, and by nothing else.
pub trait RequestState: sealed::Sealed {
    /// The state's name in logs.
    const NAME: &'static str;
}

/// Waiting to be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The earliest time for the attempt; at once if unset.
    pub not_before: Option<Timestamp>,
}

/// Claimed by a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The daemon.
    pub daemon_id: DaemonId,
    /// The lease of the request's row. A token above 1 says that the lease had other holders before.
    pub lease: LeaseHold,
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
    /// Tokens that its calls have used.
    pub usage: Usage,
}

/// Cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canceled {
    /// Why.
    pub reason: CancellationReason,
}

/// Why a request was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancellationReason {
    /// The batch was cancelled, its window closed, or the lease was lost: this daemon must not run the row.
    User,
    /// The daemon is stopping: another daemon will run the row.
    Shutdown,
    /// Rows of other models wait, and the row's model has not answered: this daemon will run the row later.
    Recall,
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
