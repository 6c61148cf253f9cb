//! The core of a daemon, which all its parts share: stores, clock, settings, and the tokens that stop it.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::rows::LastFailures;
use crate::config::MetadataHeader;
use crate::domain::ids::DaemonId;
use crate::domain::project_limits::ProjectLimitTable;
use crate::domain::report::BatchLimits;
use crate::domain::retry::RetryPolicy;
use crate::domain::time::Clock;
use crate::storage::blobs::Blobs;
use crate::upstream::Registry;
use crate::wakeup::Wakeup;

/// Limits and intervals of a daemon.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// How many calls may be under way at once, at least 1.
    pub max_concurrency: usize,
    /// How many calls all living daemons together may have under way, shared evenly among them. `None`: no such limit.
    pub global_max_concurrency: Option<usize>,
    /// How long the daemon's leases are valid after a heartbeat. Other daemons take them over after that.
    pub lease: Duration,
    /// How often the next of the blob store's 256 directories is looked through for orphans.
    pub sweep_every: Duration,
    /// How long the steps of rows are kept after their batch has ended.
    pub steps_retention: Duration,
    /// How often, and after which pauses, failed requests are tried again.
    pub retry: RetryPolicy,
    /// Bounds for the input of a batch, checked when it is admitted.
    pub limits: BatchLimits,
    /// What projects may use.
    pub projects: Arc<ProjectLimitTable>,
    /// A batch is paused when so many of its rows failed alike, and no other has ended; 0: never.
    pub pause_after_alike: u64,
    /// Whether the metadata of batches may ask for a priority.
    pub batches_have_priorities: bool,
    /// Whether a batch fails that has a model which no upstream has. Otherwise its rows wait.
    pub refuses_unknown_models: bool,
    /// What calls tell of the metadata of batches.
    pub metadata_headers: Vec<MetadataHeader>,
    /// When outcomes are recorded.
    pub recording: Recording,
}

/// When outcomes of rows are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// Many at a time: they wait a quarter of a second for others. A crash repeats these and the rows in flight.
    Gathered,
    /// Before the worker takes its next row. A crash repeats only rows in flight, and every answer waits for the disk.
    AtOnce,
}

/// The steps in which a daemon stops. Each token is cancelled once, in this order.
#[derive(Debug, Clone, Default)]
pub(super) struct Shutdown {
    /// From here on the daemon claims and starts nothing more.
    pub(super) stopping: CancellationToken,
    /// From here on calls in flight are aborted.
    pub(super) abort: CancellationToken,
    /// From here on the daemon holds no lease.
    pub(super) ended: CancellationToken,
}

/// The part of a daemon that its loops and rows share.
pub(super) struct DaemonCore<S> {
    pub(super) id: DaemonId,
    pub(super) started: Instant,
    pub(super) storage: Arc<S>,
    pub(super) blobs: Blobs,
    pub(super) registry: Registry,
    /// How many daemons live, this one included, as the last heartbeat has shown.
    pub(super) living_daemons: AtomicU32,
    pub(super) clock: Clock,
    pub(super) wakeup: Wakeup,
    pub(super) settings: DaemonSettings,
    pub(super) shutdown: Shutdown,
    pub(super) last_failures: Arc<LastFailures>,
}
