//! The built-in worker: who works, when, and how it stops.
//!
//! A row's way: `claim_loop` leases a range of a lane, `lease_run` reads its rows into the `queue`, as many callers as
//! calls may run take one after the other and make an `attempt`, `recorder` makes outcomes durable.
//! Beside it, duties that run on a short timer and whenever something happened: `admit`, `expire`, `finalize` and
//! `heartbeat`; and those that keep the house: `compact`, `retain` and `sweep`.
//!
//! To stop, the daemon claims and starts nothing more, lets calls in flight end for a grace time, aborts what is left,
//! records what ended, and gives the rest back.

mod admit;
mod attempt;
mod backlog;
mod backoff;
mod claim_loop;
mod compact;
mod context;
mod duty;
mod expire;
mod finalize;
mod heartbeat;
mod held;
mod items;
mod lease_run;
mod lifeline;
mod lost_input;
mod outcomes;
mod owed;
mod peers;
mod queue;
#[cfg(test)]
mod queue_tests;
mod recorder;
mod retain;
mod scheduler;
mod share;
mod sweep;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::wakeup::Wakeup;
use context::Context;
pub use context::DaemonSettings;
use items::{Items, Surroundings};
use outcomes::Outcomes;
use queue::Queue;

use crate::domain::ids::DaemonId;
use crate::domain::time::Clock;
use crate::processor::{RequestProcessor, ShouldRetry};
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::telemetry::{Liveness, chain};
use crate::upstream::{HttpClient, Session};

/// How often each duty runs when nothing happens.
const ADMIT_EVERY: Duration = Duration::from_secs(1);
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
const FINISH_EVERY: Duration = Duration::from_secs(1);
const COMPACT_EVERY: Duration = Duration::from_secs(1);
const RETAIN_EVERY: Duration = Duration::from_secs(30);
/// How long an item that fails again and again waits at most to be tried once more.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What a daemon works with.
pub struct Daemon<S, H, P> {
    /// Metadata.
    pub storage: Arc<S>,
    /// Bytes.
    pub blobs: Blobs,
    /// The upstream.
    pub http: H,
    /// What runs a row.
    pub processor: Arc<P>,
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
    outcomes: Arc<Outcomes>,
    recorder: JoinHandle<()>,
    stops: context::Stops,
    liveness: Liveness,
}

impl<S, H, P> Daemon<S, H, P>
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, Session<H>> + 'static,
{
    /// Sets the daemon to work.
    #[must_use]
    pub fn start(self) -> RunningDaemon {
        let stops = context::Stops::default();
        let liveness = Liveness::default();
        let (recording, recorder) =
            recorder::start(self.storage.clone(), self.blobs.clone(), self.clock.clone(), stops.clone());
        let outcomes = recording.outcomes.clone();
        let id = DaemonId::new();
        let leases = TaskTracker::new();
        let around = Surroundings {
            storage: self.storage.clone(),
            blobs: self.blobs.clone(),
            liveness: liveness.clone(),
            stopping: stops.stopping.clone(),
        };
        let unreadable = Items::new("run", lost_input::LONGEST_PAUSE, &around);
        let context = Context::new(id, self, stops.clone(), recording, leases.clone(), unreadable);
        let context = Arc::new(context);
        let (tasks, queue) = (TaskTracker::new(), context.queue.clone());
        let wakeup = &context.wakeup;
        let duty = |name, every| duty::Duty::new(name, every, wakeup, &stops.stopping, &liveness);

        let (admit, items) = (context.clone(), Items::new("admit", LONGEST_PAUSE, &around));
        tasks.spawn(duty("admit", ADMIT_EVERY).run(move || admit::tick(admit.clone(), items.clone())));
        let expire = context.clone();
        tasks.spawn(duty("expire", EXPIRE_EVERY).run(move || expire::tick(expire.clone())));
        let (finish, items) = (context.clone(), Items::new("finalize", LONGEST_PAUSE, &around));
        tasks.spawn(duty("finalize", FINISH_EVERY).run(move || finalize::tick(finish.clone(), items.clone())));
        // These have nothing to do with what happens meanwhile.
        let quiet = Wakeup::new();
        let chore = |name, every| duty::Duty::new(name, every, &quiet, &stops.stopping, &liveness);
        let (compact, items) = (context.clone(), Items::new("compact", LONGEST_PAUSE, &around));
        tasks.spawn(chore("compact", COMPACT_EVERY).run(move || compact::tick(compact.clone(), items.clone())));
        let (retain, items) = (context.clone(), Items::new("retain", LONGEST_PAUSE, &around));
        tasks.spawn(chore("retain", RETAIN_EVERY).run(move || retain::tick(retain.clone(), items.clone())));
        let (sweep, items) = (context.clone(), Items::new("sweep", LONGEST_PAUSE, &around));
        let sweep_every = context.settings.sweep_every;
        tasks.spawn(chore("sweep", sweep_every).run(move || sweep::tick(sweep.clone(), items.clone())));
        // The heart beats until the last lease is given back, not only until the daemon is told to stop.
        let beat = context.clone();
        let heart = duty::Duty::new("heartbeat", heartbeat::EVERY, wakeup, &stops.ended, &liveness);
        tasks.spawn(async move {
            heart.run(|| heartbeat::tick(beat.clone())).await;
            if let Err(error) = beat.storage.leave(beat.id).await {
                tracing::warn!(
                    error = chain(&error),
                    "the others learn only from its silence that this daemon has stopped"
                );
            }
        });
        worker::Workers::start(context.clone(), tasks.clone());
        let claims = duty::Duty::new("claim", claim_loop::LOOK_EVERY, wakeup, &stops.stopping, &liveness);
        tasks.spawn(claim_loop::run(context, claims));

        tracing::info!(daemon_id = %id, "daemon started");
        RunningDaemon { tasks, leases, queue, outcomes, recorder, stops, liveness }
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
        self.stops.stopping.cancel();
        self.leases.close();
        if tokio::time::timeout(grace, self.leases.wait()).await.is_err() {
            tracing::info!("grace time is over; calls in flight are aborted");
        }
        self.stops.abort.cancel();
        self.leases.wait().await;
        self.stops.ended.cancel();
        self.queue.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.outcomes.close();
        if self.recorder.await.is_err() {
            tracing::error!("the recorder panicked");
        }
        tracing::info!("daemon stopped");
    }
}
