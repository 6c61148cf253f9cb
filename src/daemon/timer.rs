//! A loop that survives its errors and shows that it turns.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Liveness, chain};
use crate::wakeup::Wakeup;

/// Why a turn, or one item in it, failed.
pub(super) type DutyError = Box<dyn std::error::Error + Send + Sync>;

/// What a turn of a loop came to: an error is logged, and the next turn tries again.
pub(super) type TickResult = Result<(), DutyError>;

/// A loop: how often it turns, what wakes it before, and what ends it.
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

    /// Runs `tick` at once, whenever the loop is woken, and at least as often as the timer says.
    pub(super) async fn run<F: Future<Output = TickResult>>(mut self, tick: impl Fn() -> F) {
        loop {
            self.report(tick().await);
            if !self.wait().await {
                return;
            }
        }
    }

    /// Notes that the loop turned, and logs what went wrong.
    pub(super) fn report(&self, tick: TickResult) {
        self.liveness.ticked(self.name, tick.is_err());
        if let Err(error) = tick {
            tracing::error!(duty = self.name, error = chain(&*error), "a turn failed; the next one tries again");
        }
    }

    /// Waits until there is something to do. False when the daemon stops.
    pub(super) async fn wait(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            // An error means that nobody can wake us any more; the timer still does.
            Ok(()) = self.woken.changed() => true,
            () = tokio::time::sleep(self.every) => true,
        }
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}
