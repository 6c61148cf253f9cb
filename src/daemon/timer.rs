//! The loop of a duty: it survives errors of its turns, and liveness shows that it turns.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Liveness, chain};
use crate::wakeup::Wakeup;

/// Why a turn, or one item in it, failed.
pub(super) type DutyError = Box<dyn std::error::Error + Send + Sync>;

/// The result of one turn of a loop. An error is logged, and the next turn tries again.
pub(super) type TickResult = Result<(), DutyError>;

/// When a loop turns: after an interval, or earlier if it is woken, until its token stops it.
pub(super) struct Timer {
    name: &'static str,
    every: Duration,
    woken: watch::Receiver<()>,
    stop: CancellationToken,
    liveness: Liveness,
}

impl Timer {
    pub(super) fn new(
        name: &'static str,
        every: Duration,
        wakeup: &Wakeup,
        stop: &CancellationToken,
        liveness: &Liveness,
    ) -> Self {
        Self { name, every, woken: wakeup.listen(), stop: stop.clone(), liveness: liveness.clone() }
    }

    /// Runs `tick` at once, then whenever the loop is woken, and at least once in each interval.
    pub(super) async fn run<F: Future<Output = TickResult>>(mut self, tick: impl Fn() -> F) {
        loop {
            self.report(tick().await);
            if !self.wait().await {
                return;
            }
        }
    }

    /// Notes that the loop turned, and logs its error if it has one.
    pub(super) fn report(&self, tick: TickResult) {
        self.liveness.ticked(self.name, tick.is_err());
        if let Err(error) = tick {
            tracing::error!(duty = self.name, error = chain(&*error), "a turn failed; the next one tries again");
        }
    }

    /// Waits until the next turn is due. False when the loop must end.
    pub(super) async fn wait(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            // An error says that the wakeup is gone: the loop goes on by its interval.
            Ok(()) = self.woken.changed() => true,
            () = tokio::time::sleep(self.every) => true,
        }
    }
}
