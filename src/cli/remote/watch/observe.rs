//! Reading one batch again and again, with as few requests as tell what is shown.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::outage_text;
use crate::client::{Client, ClientError, Pacer, Polling, RemoteBatch, RemoteProgress};
use crate::domain::batch::Counts;
use crate::domain::time::{Clock, Timestamp};

/// Time over which rows are counted, if the server does not do it.
const RATE_OVER: Duration = Duration::from_secs(60);
/// The longest pause: what is shown moves at least so often.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is shown of one batch.
pub(super) enum Sight<'a> {
    Seen(&'a Observation),
    /// The server is away.
    Away(String),
    /// The server is back.
    Back(String),
}

/// A batch at one moment.
pub(super) struct Observation {
    pub(super) batch: RemoteBatch,
    /// If the server tells.
    pub(super) progress: Option<RemoteProgress>,
    pub(super) counts: Counts,
    pub(super) rows_per_second: f64,
    pub(super) time_left: Option<Duration>,
}

/// Watches one batch.
pub(super) struct Observer {
    client: Client,
    batch: RemoteBatch,
    is_told_progress: bool,
    /// The progress has another status, and the batch could not be read: it is read alone then, because a server that
    /// limits requests may answer one of two each time.
    is_batch_due: bool,
    /// Rows that had ended, and when, the oldest first.
    pace: VecDeque<(Instant, u64)>,
}

impl Observer {
    pub(super) fn new(client: Client, batch: RemoteBatch) -> Self {
        Self { client, batch, is_told_progress: true, is_batch_due: false, pace: VecDeque::new() }
    }

    /// Shows the batch until it has ended.
    pub(super) async fn watch(mut self, show: impl Fn(Sight<'_>) -> io::Result<()>) -> anyhow::Result<RemoteBatch> {
        let mut pacer = Pacer::new(Polling { longest_pause: LONGEST_PAUSE, ..Polling::default() });
        loop {
            let read = self.read().await;
            let mut outage = None;
            let notice = |error: Option<&ClientError>| outage = Some((error.is_some(), outage_text(error)));
            let observation = pacer.judge(read, notice)?;
            match outage {
                Some((true, text)) => show(Sight::Away(text))?,
                Some((false, text)) => show(Sight::Back(text))?,
                None => {}
            }
            let observation = observation.as_ref();
            observation.map_or(Ok(()), |observation| show(Sight::Seen(observation)))?;
            if observation.is_some_and(|observation| observation.batch.status.is_terminal()) {
                return Ok(self.batch);
            }
            pacer.pause().await;
        }
    }

    /// Reads the progress if the server tells it, and the batch if its status is another.
    async fn read(&mut self) -> Result<Observation, ClientError> {
        let mut progress = None;
        if self.is_told_progress && !self.is_batch_due {
            progress = self.client.progress(&self.batch.id).await?;
            self.is_told_progress = progress.is_some();
        }
        if progress.as_ref().is_none_or(|progress| progress.status != self.batch.status.as_str()) {
            self.is_batch_due = true;
            self.batch = self.client.batch(&self.batch.id).await?;
            self.is_batch_due = false;
        }
        Ok(match progress {
            // The batch may have ended since the progress was read.
            Some(progress) if !self.batch.status.is_terminal() => self.told(progress),
            progress => self.counted(progress),
        })
    }

    fn told(&self, progress: RemoteProgress) -> Observation {
        let rows = progress.rows;
        let left = |at: i64| Timestamp(at).since(Clock::System.now());
        Observation {
            batch: self.batch.clone(),
            counts: Counts { total: rows.total, completed: rows.completed, failed: rows.failed },
            rows_per_second: progress.rate.rows_per_second,
            time_left: progress.estimate.map(|estimate| left(estimate.ends_at)),
            progress: Some(progress),
        }
    }

    fn counted(&mut self, progress: Option<RemoteProgress>) -> Observation {
        let (counts, now) = (self.batch.request_counts, Instant::now());
        self.pace.push_back((now, counts.total - counts.owed()));
        while self.pace.len() > 2 && self.pace.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_OVER) {
            self.pace.pop_front();
        }
        let rows_per_second = pace(&self.pace);
        let left = |rate: f64| Duration::try_from_secs_f64(to_f64(counts.owed()) / rate).ok();
        let time_left = (rows_per_second > 0.0 && !self.batch.status.is_terminal()).then(|| left(rows_per_second));
        Observation { batch: self.batch.clone(), progress, counts, rows_per_second, time_left: time_left.flatten() }
    }
}

/// Rows that ended in a second, from the first count to the last.
fn pace(counts: &VecDeque<(Instant, u64)>) -> f64 {
    let (Some((first_at, first)), Some((last_at, last))) = (counts.front(), counts.back()) else { return 0.0 };
    let seconds = last_at.duration_since(*first_at).as_secs_f64();
    if seconds > 0.0 { to_f64(last.saturating_sub(*first)) / seconds } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "people do not read that many digits")]
fn to_f64(rows: u64) -> f64 {
    rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_counts_that_are_kept() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let cases = [
            (vec![], 0),
            (vec![(now, 5)], 0),
            (vec![(now, 0), (after(2), 50), (after(10), 100)], 10),
            (vec![(now, 7), (after(1), 7)], 0),
        ];
        for (counts, expected) in cases {
            let rate = pace(&counts.into());
            assert!((rate - f64::from(expected)).abs() < 1e-9, "{rate}");
        }
    }
}
