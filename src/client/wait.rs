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

/// Reads something of a server again and again, over outages.
#[derive(Debug)]
pub struct Pacer {
    polling: Polling,
    pause: Duration,
    /// What the server asked for, when it could not answer.
    asked: Duration,
    last_answer: Instant,
    is_away: bool,
}

impl Pacer {
    /// Begins with the first pause. The server counts as reached.
    #[must_use]
    pub fn new(polling: Polling) -> Self {
        let (pause, asked) = (polling.first_pause, Duration::ZERO);
        Self { polling, pause, asked, last_answer: Instant::now(), is_away: false }
    }

    /// The answer of a read, or `None` if the server could not answer and may do so later. `outage` is called with the
    /// error when an outage begins, and with `None` when it is over.
    ///
    /// # Errors
    /// The error of the read, if a later one would have it too or the outage has been too long.
    pub fn judge<T>(
        &mut self,
        answer: Result<T, ClientError>,
        outage: impl FnOnce(Option<&ClientError>),
    ) -> Result<Option<T>, ClientError> {
        self.asked = Duration::ZERO;
        match answer {
            Ok(answer) => {
                self.last_answer = Instant::now();
                if std::mem::take(&mut self.is_away) {
                    outage(None);
                }
                Ok(Some(answer))
            }
            Err(error) if error.may_pass() && self.last_answer.elapsed() < self.polling.longest_outage => {
                self.asked = error.retry_after();
                if !std::mem::replace(&mut self.is_away, true) {
                    outage(Some(&error));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits before the next read, each time longer.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause.max(self.asked)).await;
        self.pause = self.pause.mul_f64(1.5).min(self.polling.longest_pause);
    }

    /// Begins with the first pause again: something has changed, so more may follow soon.
    pub fn hurry(&mut self) {
        self.pause = self.polling.first_pause;
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
        let mut pacer = Pacer::new(polling);
        loop {
            let answer = self.batch(id).await;
            let log = |error: Option<&ClientError>| tracing::debug!(batch_id = id, ?error, "an outage began or ended");
            match pacer.judge(answer, log)?.inspect(&mut seen) {
                Some(batch) if batch.status.is_terminal() => return Ok(batch),
                _ => pacer.pause().await,
            }
        }
    }
}
