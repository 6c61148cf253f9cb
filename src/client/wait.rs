//! Waiting for the end of a batch.

use std::time::Duration;

use tokio::time::Instant;

use super::{Client, ClientError, RemoteBatch};

/// How a batch is read again and again until it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// The first pause. Each is half as long again as the one before.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long the server may be out of reach.
    pub longest_outage: Duration,
}

impl Polling {
    /// Reads with the same pause every time.
    #[must_use]
    pub fn every(pause: Duration) -> Self {
        Self { first_pause: pause, longest_pause: pause, ..Self::default() }
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            longest_outage: Duration::from_secs(300),
        }
    }
}

impl Client {
    /// Waits until a batch has ended, however it ends. `seen` is called with each state that was read.
    ///
    /// # Errors
    /// There is no such batch, or the server was out of reach for longer than `polling` allows.
    pub async fn wait(
        &self,
        id: &str,
        polling: Polling,
        mut seen: impl FnMut(&RemoteBatch),
    ) -> Result<RemoteBatch, ClientError> {
        let (mut pause, mut last_answer) = (polling.first_pause, Instant::now());
        loop {
            let answer = self.batch(id).await;
            if let Ok(batch) = &answer {
                last_answer = Instant::now();
                seen(batch);
            }
            let asked = match answer {
                Ok(batch) if batch.status.is_terminal() => return Ok(batch),
                Ok(_) => Duration::ZERO,
                Err(error) if error.may_pass() && last_answer.elapsed() < polling.longest_outage => {
                    tracing::debug!(batch_id = id, %error, "a batch could not be read");
                    error.retry_after()
                }
                Err(error) => return Err(error),
            };
            tokio::time::sleep(pause.max(asked)).await;
            pause = pause.mul_f64(1.5).min(polling.longest_pause);
        }
    }
}
