//! The built-in worker: what runs rows and ends batches, and how it stops.
//!
//! | room | what is in it |
//! |---|---|
//! | `rows` | a row's way: leased, read, queued, run by a worker |
//! | `recording` | making outcomes durable |
//! | `leases` | keeping leases, noticing that they are lost, declaring others dead |
//! | `duties` | admitting, expiring and ending batches; merging, purging, removing orphans |
//!
//! To stop, the daemon claims and starts nothing more, lets calls in flight end for a grace time, aborts what is left,
//! records what ended, and gives the rest back.

mod backoff;
mod duties;
mod items;
mod leases;
mod lost_input;
mod recording;
mod rows;
mod shared;
mod timer;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::duties::FlushCounts;
use self::items::Surroundings;
use self::leases::{Heartbeat, HeldLeases, LeaseValidity};
use self::recording::{Outbox, Recorder};
use self::rows::{Queue, RowRunner, Supply, Workers};
use self::shared::{DaemonCore, Shutdown};
use self::timer::Timer;
use crate::domain::ids::DaemonId;
use crate::domain::time::Clock;
use crate::processor::{RequestProcessor, ShouldRetry, StepLog};
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::telemetry::{Liveness, metrics};
use crate::upstream::{Registry, Session};
use crate::wakeup::Wakeup;

pub use shared::DaemonSettings;

/// What a daemon works with.
pub struct Daemon<S, P> {
    /// Metadata.
    pub storage: Arc<S>,
    /// Bytes.
    pub blobs: Blobs,
    /// The inference servers.
    pub registry: Registry,
    /// What runs a row.
    pub processor: Arc<P>,
    /// Where the processor hands in steps, which the daemon keeps.
    pub steps: StepLog,
    /// Which answers are worth another attempt.
    pub should_retry: ShouldRetry,
    /// Where the time comes from.
    pub clock: Clock,
    /// How the API tells the daemon, and the daemon's parts each other, that there is something to do.
    pub wakeup: Wakeup,
    /// How it works.
    pub settings: DaemonSettings,
}

/// A daemon at work.
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
    /// Sets the daemon to work.
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
        let (outbox, recorder) = self.start_recorder(&flush_counts, &held, &shutdown);
        let (steps, step_keeper) = self.start_step_keeper(&shutdown);
        let runner = Arc::new(self.runner(&outbox, &shutdown));
        let shared = runner.shared.clone();
        let (tasks, leases, queue) = (TaskTracker::new(), TaskTracker::new(), runner.queue.clone());

        // Some duties have nothing to do with what happens meanwhile.
        let never_woken = Wakeup::new();
        for duty in duties::all(&shared, flush_counts, &around) {
            let wakeup = if duty.is_woken() { &shared.wakeup } else { &never_woken };
            let timer = Timer::new(duty.name(), duty.every(), wakeup, &shutdown.stopping, &liveness);
            tasks.spawn(async move { timer.run(|| duty.tick()).await });
        }
        let heartbeat = Heartbeat::new(&runner, held.clone());
        // The heart beats until the last lease is given back, not only until the daemon is told to stop.
        let timer = Timer::new("heartbeat", leases::HEARTBEAT_EVERY, &shared.wakeup, &shutdown.ended, &liveness);
        tasks.spawn(async move {
            timer.run(|| heartbeat.beat()).await;
            heartbeat.leave().await;
        });
        Workers::start(runner.clone(), tasks.clone());
        let claims = Timer::new("claim", rows::LOOK_EVERY, &shared.wakeup, &shutdown.stopping, &liveness);
        let supply = Supply::new(&runner, held, &around, leases.clone());
        tasks.spawn(rows::claim(Arc::new(supply), claims));

        tracing::info!(daemon_id = %shared.id, "daemon started");
        RunningDaemon { tasks, leases, queue, outbox, recorder, steps, step_keeper, shutdown, liveness }
    }

    fn start_recorder(
        &self,
        flush_counts: &Arc<FlushCounts>,
        held: &Arc<HeldLeases>,
        shutdown: &Shutdown,
    ) -> (Arc<Outbox>, JoinHandle<()>) {
        let outbox = Arc::new(Outbox::new());
        let recorder = Recorder {
            storage: self.storage.clone(),
            blobs: self.blobs.clone(),
            clock: self.clock.clone(),
            flush_counts: flush_counts.clone(),
            held: held.clone(),
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
        // Of a limit that is shared this daemon has nothing until it knows its share.
        let is_shared = self.settings.global_max_concurrency.is_some();
        let limit = if is_shared { 0 } else { self.settings.max_concurrency };
        self.registry.set_limit(limit);
        metrics::concurrency_limited_to(limit);
        let queue = Queue::new(self.registry.clone(), self.clock.clone());
        let shared = DaemonCore {
            id: DaemonId::new(),
            started: Instant::now(),
            storage: self.storage,
            blobs: self.blobs,
            registry: self.registry,
            clock: self.clock,
            wakeup: self.wakeup,
            settings: self.settings,
            shutdown: shutdown.clone(),
        };
        RowRunner {
            shared: Arc::new(shared),
            validity: Arc::new(LeaseValidity::new()),
            queue: Arc::new(queue),
            outbox: outbox.clone(),
            processor: self.processor,
            should_retry: self.should_retry,
        }
    }
}

impl RunningDaemon {
    /// Whether the daemon's loops turn.
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
