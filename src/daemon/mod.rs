//! The daemon runs rows and ends batches.
//!
//! | folder | what is in it |
//! |---|---|
//! | `rows` | the way of a row: leased, read, queued, run by a worker |
//! | `recording` | outcomes and steps become durable |
//! | `leases` | keeping leases, noticing that they are lost, declaring other daemons dead |
//! | `duties` | admitting, expiring and ending batches; merging, purging, removing orphans; delivering webhooks |
//!
//! To stop, the daemon claims and starts nothing more, lets calls in flight end within a grace time, and aborts the
//! others. Then it records the outcomes and gives the leases back with the rows that have none.

mod activity;
mod backoff;
mod core;
mod duties;
mod items;
mod leases;
mod lost_input;
mod recording;
mod rows;
mod timer;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::core::{DaemonCore, Shutdown};
use self::duties::FlushCounts;
use self::items::Surroundings;
use self::leases::{Heartbeat, HeldLeases, LeaseValidity};
use self::recording::{ModelCourses, Outbox, Recorder};
use self::rows::{FirstFailures, LastFailures, Queue, RowRunner, Supply, Workers};
use crate::domain::ids::DaemonId;
use crate::domain::time::Clock;
use crate::processor::{RequestProcessor, ShouldRetry, StepLog};
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::telemetry::{Liveness, metrics};
use crate::upstream::{Registry, Session};
use crate::wakeup::Wakeup;
use crate::webhooks::Webhooks;

pub use core::{DaemonSettings, Recording};

/// A daemon that has not started.
pub struct Daemon<S, P> {
    /// Files, batches, leases and the ledger.
    pub storage: Arc<S>,
    /// The bytes of input and output files.
    pub blobs: Blobs,
    /// The upstream's servers. Each row uses one through a [`Session`].
    pub registry: Registry,
    /// Runs each attempt of a row.
    pub processor: Arc<P>,
    /// Where the processor hands in steps. The daemon records them.
    pub steps: StepLog,
    /// Which answers of the upstream are worth another attempt.
    pub should_retry: ShouldRetry,
    /// Wall time, for deadlines and the times that are stored.
    pub clock: Clock,
    /// Tells the loops of the daemon that a batch has changed. The API wakes it, and so does the daemon itself.
    pub wakeup: Wakeup,
    /// Posts the events of batches that have ended.
    pub webhooks: Webhooks,
    /// Limits and intervals.
    pub settings: DaemonSettings,
}

/// A daemon that runs until [`stop`](Self::stop).
pub struct RunningDaemon {
    tasks: TaskTracker,
    leases: TaskTracker,
    queue: Arc<Queue>,
    outbox: Arc<Outbox>,
    recorder: JoinHandle<()>,
    steps: StepLog,
    step_keeper: JoinHandle<()>,
    shutdown: Shutdown,
    liveness: Liveness,
}

impl<S, P> Daemon<S, P>
where
    S: Storage,
    P: RequestProcessor<S, Session> + 'static,
{
    /// Starts the loops of the daemon, on the runtime of the caller.
    #[must_use]
    pub fn start(self) -> RunningDaemon {
        let (liveness, shutdown) = (Liveness::default(), Shutdown::default());
        let around = Surroundings {
            storage: self.storage.clone(),
            blobs: self.blobs.clone(),
            liveness: liveness.clone(),
            stopping: shutdown.stopping.clone(),
        };
        let (flush_counts, held) = (Arc::<FlushCounts>::default(), Arc::<HeldLeases>::default());
        let courses = Arc::<ModelCourses>::default();
        let (outbox, recorder) = self.start_recorder(&flush_counts, &held, &courses, &shutdown);
        let (steps, step_keeper) = self.start_step_keeper(&shutdown);
        let webhooks = self.webhooks.clone();
        let runner = Arc::new(self.runner(&outbox, &shutdown));
        let (shared, queue) = (runner.shared.clone(), runner.queue.clone());
        let (tasks, leases) = (TaskTracker::new(), TaskTracker::new());

        for duty in duties::all(&shared, flush_counts, webhooks, &tasks, &around) {
            tasks.spawn(duties::run(duty, shared.clone(), liveness.clone()));
        }
        let (registry, following, ended) = (shared.registry.clone(), queue.clone(), shutdown.ended.clone());
        let following = async move { registry.follow(|| following.servers_changed()).await };
        tasks.spawn(async move { ended.run_until_cancelled(following).await });
        tasks.spawn(Heartbeat::new(&runner, held.clone(), courses).run(liveness.clone()));
        let supply = Supply::new(&runner, held, &around, leases.clone());
        tasks.spawn(rows::claim(Arc::new(supply), liveness.clone()));
        Workers::start(runner, tasks.clone());

        tracing::info!(daemon_id = %shared.id, "daemon started");
        RunningDaemon { tasks, leases, queue, outbox, recorder, steps, step_keeper, shutdown, liveness }
    }

    fn start_recorder(
        &self,
        flush_counts: &Arc<FlushCounts>,
        held: &Arc<HeldLeases>,
        courses: &Arc<ModelCourses>,
        shutdown: &Shutdown,
    ) -> (Arc<Outbox>, JoinHandle<()>) {
        let outbox = Arc::new(Outbox::new());
        let recorder = Recorder {
            storage: self.storage.clone(),
            blobs: self.blobs.clone(),
            clock: self.clock.clone(),
            flush_counts: flush_counts.clone(),
            courses: courses.clone(),
            held: held.clone(),
            pause_after_alike: self.settings.pause_after_alike,
            wakeup: self.wakeup.clone(),
        };
        let (recorded, abandoned, shutdown) = (outbox.clone(), outbox.clone(), shutdown.clone());
        let recording = async move { recorder.run(&recorded).await };
        (outbox, tokio::spawn(recording::guard("recorder", recording, move || abandoned.abandon(), shutdown)))
    }

    fn start_step_keeper(&self, shutdown: &Shutdown) -> (StepLog, JoinHandle<()>) {
        let (kept, abandoned, storage) = (self.steps.clone(), self.steps.clone(), self.storage.clone());
        let keeping = async move { kept.run(&*storage).await };
        let guarded = recording::guard("steps", keeping, move || abandoned.abandon(), shutdown.clone());
        (self.steps.clone(), tokio::spawn(guarded))
    }

    fn runner(self, outbox: &Arc<Outbox>, shutdown: &Shutdown) -> RowRunner<S, P> {
        // A daemon has no part of a shared limit until the first heartbeat tells its share.
        let is_shared = self.settings.global_max_concurrency.is_some();
        let limit = if is_shared { 0 } else { self.settings.max_concurrency };
        self.registry.set_limit(limit);
        metrics::concurrency_limited_to(limit);
        let first_failures = FirstFailures::new(self.settings.pause_after_alike);
        let DaemonSettings { batches_have_priorities, projects, .. } = &self.settings;
        let queue = Queue::new(self.registry.clone(), self.clock.clone(), *batches_have_priorities, projects.clone());
        let shared = DaemonCore {
            id: DaemonId::new(),
            started: Instant::now(),
            storage: self.storage,
            blobs: self.blobs,
            registry: self.registry,
            living_daemons: AtomicU32::new(1),
            clock: self.clock,
            wakeup: self.wakeup,
            settings: self.settings,
            shutdown: shutdown.clone(),
            last_failures: Arc::new(LastFailures::new()),
        };
        RowRunner {
            shared: Arc::new(shared),
            validity: Arc::new(LeaseValidity::new()),
            queue: Arc::new(queue),
            outbox: outbox.clone(),
            parked: Arc::default(),
            retrying: Arc::default(),
            first_failures,
            processor: self.processor,
            should_retry: self.should_retry,
        }
    }
}

impl RunningDaemon {
    /// Reports whether the loops of the daemon turn.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        self.liveness.clone()
    }

    /// Stops the daemon: calls in flight may end within `grace`, and every outcome is recorded before this returns.
    pub async fn stop(self, grace: Duration) {
        self.shutdown.stopping.cancel();
        self.leases.close();
        if tokio::time::timeout(grace, self.leases.wait()).await.is_err() {
            tracing::info!("grace time is over; calls in flight are aborted");
        }
        self.shutdown.abort.cancel();
        self.leases.wait().await;
        self.shutdown.ended.cancel();
        self.queue.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.outbox.close();
        self.steps.close();
        for (name, task) in [("recorder", self.recorder), ("steps", self.step_keeper)] {
            if task.await.is_err() {
                tracing::error!(task = name, "a task did not end in order");
            }
        }
        tracing::info!("daemon stopped");
    }
}
