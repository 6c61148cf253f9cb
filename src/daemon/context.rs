//! What the daemon's loops share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Daemon;
use super::backlog::Backlogs;
use super::compact::Recordings;
use super::held::Held;
use super::items::Items;
use super::lifeline::Lifeline;
use super::outcomes::Outcomes;
use super::peers::Peers;
use super::queue::Queue;
use super::recorder::Recording;
use super::share::Share;
use super::sweep::Broom;
use crate::domain::ids::{BatchId, DaemonId};
use crate::domain::report::BatchLimits;
use crate::domain::retry::RetryPolicy;
use crate::domain::time::Clock;
use crate::processor::ShouldRetry;
use crate::storage::blobs::Blobs;
use crate::telemetry::metrics;
use crate::upstream::limiter::Limiter;
use crate::wakeup::Wakeup;

/// Rows that may wait for another attempt, for each call that may run: what bounds their memory.
const WAITING_PER_CALL: usize = 3;

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

/// The ways in which a daemon is told to stop, in the order in which they come.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    /// Nothing more is claimed or started.
    pub(super) stopping: CancellationToken,
    /// Calls in flight are aborted.
    pub(super) abort: CancellationToken,
    /// Every lease is given back.
    pub(super) ended: CancellationToken,
}

/// What the daemon's loops share.
pub(super) struct Context<S, H, P> {
    pub(super) id: DaemonId,
    pub(super) started: Instant,
    pub(super) storage: Arc<S>,
    pub(super) blobs: Blobs,
    pub(super) http: H,
    pub(super) processor: Arc<P>,
    pub(super) should_retry: ShouldRetry,
    pub(super) clock: Clock,
    pub(super) wakeup: Wakeup,
    pub(super) settings: DaemonSettings,
    pub(super) stops: Stops,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) held: Arc<Held>,
    pub(super) backlogs: Backlogs,
    pub(super) lifeline: Lifeline,
    pub(super) peers: Mutex<Peers>,
    /// How many calls this daemon may have under way.
    pub(super) limiter: Limiter,
    pub(super) share: Share,
    pub(super) recordings: Arc<Recordings>,
    pub(super) broom: Broom,
    /// Batches whose rows could not be read.
    pub(super) unreadable: Arc<Items<BatchId>>,
    /// For whoever runs a row of a suspect lease: one at a time, so that a death has one cause.
    pub(super) alone: Semaphore,
    /// Rows that were read and wait for a caller.
    pub(super) queue: Arc<Queue>,
    /// One permit for each row that may wait for another attempt.
    pub(super) waiting_places: Arc<Semaphore>,
    /// The tasks that run leases.
    pub(super) leases: TaskTracker,
}

impl<S, H, P> Context<S, H, P> {
    pub(super) fn new(
        id: DaemonId,
        daemon: Daemon<S, H, P>,
        stops: Stops,
        recording: Recording,
        leases: TaskTracker,
        unreadable: Arc<Items<BatchId>>,
    ) -> Self {
        let most = daemon.settings.max_concurrency;
        // Of a shared limit this daemon has nothing until it knows its share.
        let limiter = Limiter::new(if daemon.settings.global_max_concurrency.is_some() { 0 } else { most });
        metrics::concurrency_limited_to(limiter.limit());
        let queue = Arc::new(Queue::new(limiter.limit()));
        let places = daemon.settings.max_concurrency * WAITING_PER_CALL;
        Self {
            id,
            started: Instant::now(),
            storage: daemon.storage,
            blobs: daemon.blobs,
            http: daemon.http,
            processor: daemon.processor,
            should_retry: daemon.should_retry,
            clock: daemon.clock,
            wakeup: daemon.wakeup,
            settings: daemon.settings,
            stops,
            outcomes: recording.outcomes,
            held: recording.held,
            backlogs: Backlogs::default(),
            lifeline: Lifeline::new(),
            peers: Mutex::default(),
            limiter,
            share: Share::new(most),
            recordings: recording.recordings,
            broom: Broom::new(),
            unreadable,
            alone: Semaphore::new(1),
            queue,
            waiting_places: Arc::new(Semaphore::new(places)),
            leases,
        }
    }
}
