//! What every part of a daemon works with, and how it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::DaemonId;
use crate::domain::report::BatchLimits;
use crate::domain::retry::RetryPolicy;
use crate::domain::time::Clock;
use crate::storage::blobs::Blobs;
use crate::upstream::Registry;
use crate::wakeup::Wakeup;

/// How a daemon works.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// How many calls may run at once, at least 1.
    pub max_concurrency: usize,
    /// How many calls all living daemons together may have under way; shared evenly among them.
    pub global_max_concurrency: Option<usize>,
    /// How long the daemon's leases are its own after a heartbeat. Others take them over when it is out of reach longer.
    pub lease: Duration,
    /// How often the next of the blob store's 256 directories is looked through for orphans.
    pub sweep_every: Duration,
    /// How long the steps of rows are kept after their batch has ended.
    pub steps_retention: Duration,
    /// When failed requests are tried again.
    pub retry: RetryPolicy,
    /// What a batch must keep to.
    pub limits: BatchLimits,
}

/// The steps in which a daemon stops. Each is cancelled once, in this order.
#[derive(Debug, Clone, Default)]
pub(super) struct Shutdown {
    /// Nothing more is claimed or started.
    pub(super) stopping: CancellationToken,
    /// Calls in flight are aborted.
    pub(super) abort: CancellationToken,
    /// Every lease is given back.
    pub(super) ended: CancellationToken,
}

/// What every part of a daemon works with.
pub(super) struct DaemonCore<S> {
    pub(super) id: DaemonId,
    pub(super) started: Instant,
    pub(super) storage: Arc<S>,
    pub(super) blobs: Blobs,
    pub(super) registry: Registry,
    pub(super) clock: Clock,
    pub(super) wakeup: Wakeup,
    pub(super) settings: DaemonSettings,
    pub(super) shutdown: Shutdown,
}
