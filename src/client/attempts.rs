//! Sending again what may succeed later.

use std::time::Duration;

use super::ClientError;

/// Attempts after the first, and the pause before the first of them; it doubles with each.
const MORE: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The attempts that one piece of work has left.
pub(super) struct Attempts {
    left: u32,
    pause: Duration,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self { left: MORE, pause: FIRST_PAUSE }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The error of the last one, if no other attempt is worth it.
    pub(super) async fn pause_after(&mut self, error: ClientError) -> Result<(), ClientError> {
        if self.left == 0 || !error.may_pass() {
            return Err(error);
        }
        tracing::debug!(%error, attempts_left = self.left, "a request to the server is sent again");
        tokio::time::sleep(self.pause.max(error.retry_after())).await;
        self.left -= 1;
        self.pause *= 2;
        Ok(())
    }
}
