//! The items of a duty, worked on one by one: an item that fails is logged, counted and tried again later, and the
//! others go on.
//!
//! Every duty that works on more than one batch, file or blob does it through [`Items`].

use std::error::Error;
use std::fmt::Display;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::{Backoff, Retry};
use super::timer::{DutyError, TickResult};
use crate::causes::causes;
use crate::domain::ids::DaemonId;
use crate::domain::time::Timestamp;
use crate::storage::blobs::{BlobError, Blobs};
use crate::storage::{ReadError, Result, Storage, StorageError, WorkPage};
use crate::telemetry::{Liveness, chain, metrics};

/// Where items look to tell a fault of their own from an outage.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) blobs: Blobs,
    pub(super) liveness: Liveness,
    pub(super) stopping: CancellationToken,
}

/// The items of one duty.
pub(super) struct Items<Id> {
    duty: &'static str,
    backoff: Backoff<Id>,
    around: Surroundings,
}

impl<Id: Copy + Eq + Hash + Display> Items<Id> {
    /// Items of the duty of this name. One that fails is tried again at the latest after `longest_pause`.
    pub(super) fn new(duty: &'static str, longest_pause: Duration, around: &Surroundings) -> Self {
        Self { duty, backoff: Backoff::up_to(longest_pause), around: around.clone() }
    }

    /// Works on all items, page after page, so that items that fail do not hide those behind them. An error is an
    /// outage: no item is to blame.
    pub(super) async fn for_each<T, P, F>(
        &self,
        page: impl Fn(Option<(Timestamp, Id)>) -> P,
        work: impl Fn(T) -> F,
    ) -> TickResult
    where
        P: Future<Output = Result<WorkPage<Id, T>>>,
        F: Future<Output = TickResult>,
    {
        let mut next = None;
        loop {
            let page = page(next).await?;
            self.each(page.items, 1, |_, item| work(item)).await?;
            next = page.next;
            if next.is_none() || self.around.stopping.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Works on the items that are not in their pauses, `at_once` of them at the same time. Returns those that went
    /// well.
    pub(super) async fn each<T, F: Future<Output = TickResult>>(
        &self,
        items: impl IntoIterator<Item = (Id, Result<T>)>,
        at_once: usize,
        work: impl Fn(Id, T) -> F,
    ) -> std::result::Result<Vec<Id>, DutyError> {
        let due = items.into_iter().filter(|(id, _)| self.backoff.is_due(*id, Instant::now()));
        let attempts = stream::iter(due).map(|(id, item)| {
            let attempt = item.map(|item| caught(work(id, item)));
            async move {
                match attempt {
                    Ok(attempt) => (id, attempt.await),
                    Err(unreadable) => (id, Err(unreadable.into())),
                }
            }
        });
        let mut attempts = std::pin::pin!(attempts.buffer_unordered(at_once));
        let mut well = Vec::new();
        while let Some((id, result)) = attempts.next().await {
            self.around.liveness.gets_on(self.duty);
            match result {
                Ok(()) => {
                    self.backoff.went_well(id);
                    well.push(id);
                }
                Err(error) => drop(self.failed(id, error).await?),
            }
            if self.around.stopping.is_cancelled() {
                break;
            }
        }
        self.around.liveness.has_in_backoff(self.duty, self.backoff.count(Instant::now()));
        Ok(well)
    }

    /// Notes that an item failed, and logs it unless another attempt at the same time has. Returns the error if it is
    /// an outage: then the item is not to blame, and gets no pause.
    pub(super) async fn failed(&self, id: Id, error: DutyError) -> std::result::Result<Retry, DutyError> {
        if self.around.is_outage(&*error).await {
            return Err(error);
        }
        let retry = self.backoff.failed(id, Instant::now());
        if retry.is_new {
            metrics::item_failed(self.duty);
            tracing::error!(
                duty = self.duty,
                item = %id,
                failing_for = ?self.backoff.failing_for(id, Instant::now()),
                again_in = ?retry.after,
                error = chain(&*error),
                "an item failed; the others go on"
            );
        }
        self.around.liveness.has_in_backoff(self.duty, self.backoff.count(Instant::now()));
        Ok(retry)
    }

    /// Notes that an item went well.
    pub(super) fn went_well(&self, id: Id) {
        self.backoff.went_well(id);
    }

    /// How long ago the first failure was since the item last went well.
    pub(super) fn failing_for(&self, id: Id) -> Duration {
        self.backoff.failing_for(id, Instant::now())
    }

    pub(super) fn is_due(&self, id: Id) -> bool {
        self.backoff.is_due(id, Instant::now())
    }
}

impl Surroundings {
    /// Whether an error is an outage: any other item would fail too.
    async fn is_outage(&self, error: &(dyn Error + Send + Sync + 'static)) -> bool {
        match Cause::of(error) {
            // A full disk does not show in the checks below, which write next to nothing.
            Cause::Storage(StorageError::Full(_)) | Cause::Blob(BlobError::Full(_)) => true,
            // One batch alone may make a statement take too long. A write that succeeds shows that the database is
            // there; this one changes nothing, because no daemon has the new id.
            Cause::Storage(error) if error.is_outage() => self.storage.leave(DaemonId::new()).await.is_err(),
            // A blob may be missing because the whole store is.
            Cause::Blob(_) => self.blobs.check().await.is_err(),
            _ => false,
        }
    }
}

/// Which store an error came from.
pub(super) enum Cause<'a> {
    Storage(&'a StorageError),
    Blob(&'a BlobError),
    Other,
}

impl<'a> Cause<'a> {
    pub(super) fn of(error: &'a (dyn Error + 'static)) -> Self {
        causes(error).find_map(Self::known).unwrap_or(Self::Other)
    }

    fn known(error: &'a (dyn Error + 'static)) -> Option<Self> {
        match error.downcast_ref() {
            Some(ReadError::Storage(error)) => Some(Self::Storage(error)),
            Some(ReadError::Blob(error)) => Some(Self::Blob(error)),
            None => error.downcast_ref().map(Self::Storage).or_else(|| error.downcast_ref().map(Self::Blob)),
        }
    }
}

/// Turns a panic into an error. It would end the duty's loop, and with it the work on all other items.
async fn caught(work: impl Future<Output = TickResult>) -> TickResult {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err("it panicked".into()))
}
