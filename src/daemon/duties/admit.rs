//! Validation: a batch that was created opens its lanes, or fails with a list of what is wrong with its input, or waits
//! until its project has room for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Duty;
use super::validation::{is_hopeless, validated};
use super::waiting::WaitingBatches;
use crate::daemon::core::DaemonCore;
use crate::daemon::items::Items;
use crate::daemon::timer::TickResult;
use crate::domain::batch::{Batch, BatchError, BatchStatus};
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::project_limits::{ExceededLimit, ProjectLimits, QueuedInput};
use crate::storage::queue::{exceeded, queued};
use crate::storage::{Result, Storage};
use crate::telemetry::chain;

const EVERY: Duration = Duration::from_secs(1);
const BATCHES: u32 = 64;

/// Admits or refuses the batches in `validating`.
pub(super) struct Admit<S> {
    pub(super) shared: Arc<DaemonCore<S>>,
    pub(super) items: Items<BatchId>,
    pub(super) waiting: WaitingBatches,
}

/// What becomes of a batch.
enum Decision {
    /// It has so many lanes now.
    Admitted { lanes: usize },
    /// Another daemon has decided.
    Taken,
    /// It fails.
    Refused(Vec<BatchError>),
    /// It waits for its turn among the batches of its project.
    Waits(QueuedInput),
}

/// Whether it is known that the project of a batch has room for it.
#[derive(Clone, Copy)]
enum RoomCheck {
    /// It has to be found out.
    Due,
    /// There is room.
    Done,
}

#[async_trait]
impl<S: Storage> Duty for Admit<S> {
    fn name(&self) -> &'static str {
        "admit"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    async fn tick(&self) -> TickResult {
        self.waiting.begin();
        let page = |after| self.shared.storage.batches_to_admit(after, BATCHES);
        self.items.for_each(page, |batch| self.look_at(batch)).await?;
        for (project, queue) in self.waiting.queues() {
            self.admit_in_turn(&project, queue).await?;
        }
        Ok(())
    }
}

impl<S: Storage> Admit<S> {
    /// Decides about a batch, or puts it into the queue of its project. A batch whose input is known already is not
    /// validated again before its turn.
    async fn look_at(&self, batch: Batch) -> TickResult {
        if self.waits(&batch) && self.waiting.take_place(&batch.owner, batch.id) {
            return Ok(());
        }
        self.settle(batch, RoomCheck::Due).await
    }

    /// Whether a batch waits if there is no room. One whose window has closed does not: it has to expire.
    fn waits(&self, batch: &Batch) -> bool {
        self.limits(&batch.owner).waits() && !self.is_overdue(batch)
    }

    fn is_overdue(&self, batch: &Batch) -> bool {
        self.shared.clock.now() >= batch.expires_at
    }

    fn limits(&self, project: &Owner) -> ProjectLimits {
        self.shared.settings.projects.of(project)
    }

    /// Admits the batches of a project in the order of their creation, up to the first that has no room.
    async fn admit_in_turn(&self, project: &Owner, queue: Vec<(BatchId, QueuedInput)>) -> TickResult {
        let limits = self.limits(project);
        let mut used = queued(&*self.shared.storage, project, &limits).await?;
        for (id, size) in queue {
            if limits.exceeded(used, size).is_some() {
                break;
            }
            // A batch that fails keeps its place.
            used = used.plus(size);
            let settle = async |_, ()| {
                let found = self.shared.storage.any_batch(id).await?;
                match found.filter(|batch| batch.status == BatchStatus::Validating) {
                    Some(batch) => self.settle(batch, RoomCheck::Done).await,
                    None => Ok(()),
                }
            };
            self.items.each([(id, Ok(()))], 1, settle).await?;
        }
        Ok(())
    }

    async fn settle(&self, batch: Batch, room: RoomCheck) -> TickResult {
        match self.decide(&batch, room).await {
            Ok(Decision::Admitted { lanes }) => {
                tracing::info!(batch_id = %batch.id, lanes, "batch in progress");
                self.shared.wakeup.wake();
            }
            Ok(Decision::Taken) => {}
            Ok(Decision::Waits(size)) => self.waiting.add(&batch.owner, batch.id, size),
            Ok(Decision::Refused(errors)) => self.refuse(&batch, &errors).await?,
            Err(error) if is_hopeless(&error, self.items.failing_for(batch.id), &batch, self.shared.clock.now()) => {
                let error = chain(&error);
                tracing::error!(batch_id = %batch.id, error, "a batch is refused: it cannot be admitted");
                self.refuse(&batch, &[not_admitted()]).await?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn decide(&self, batch: &Batch, room: RoomCheck) -> Result<Decision> {
        let storage = &*self.shared.storage;
        let input = match validated(&self.shared, batch).await? {
            Ok(input) => input,
            Err(errors) => return Ok(Decision::Refused(errors)),
        };
        let limits = self.limits(&batch.owner);
        let exceeded = match room {
            RoomCheck::Done => None,
            // Whether there is room is seen when all batches of the project are known that were created before.
            RoomCheck::Due if self.waits(batch) => match limits.exceeded(QueuedInput::default(), input.size) {
                None => return Ok(Decision::Waits(input.size)),
                alone => alone,
            },
            RoomCheck::Due if limits.waits() => None,
            // Two daemons that look at the same moment may both admit a batch.
            RoomCheck::Due => exceeded(storage, &batch.owner, &limits, input.size).await?,
        };
        if let Some(exceeded) = exceeded {
            return Ok(Decision::Refused(vec![beyond(&exceeded, batch)]));
        }
        let now = self.shared.clock.now();
        if !storage.admit_batch(batch.id, &input.lanes, now).await? {
            return Ok(Decision::Taken);
        }
        if self.is_overdue(batch) {
            // No row of it starts any more.
            storage.give_up_batch(batch.id, now).await?;
        }
        Ok(Decision::Admitted { lanes: input.lanes.len() })
    }

    async fn refuse(&self, batch: &Batch, errors: &[BatchError]) -> TickResult {
        if self.shared.storage.refuse_batch(batch.id, errors, self.shared.clock.now()).await? {
            tracing::info!(batch_id = %batch.id, errors = errors.len(), "batch failed validation");
        }
        Ok(())
    }
}

/// Why a batch fails for which its project has no room.
fn beyond(exceeded: &ExceededLimit, batch: &Batch) -> BatchError {
    let (code, message) = (exceeded.code().to_owned(), exceeded.message(&batch.owner));
    BatchError { code, message, param: None, line: None }
}

fn not_admitted() -> BatchError {
    BatchError {
        code: "input_unavailable".to_owned(),
        message: "What is known of the input file cannot be read any more. Please upload the file again, and create \
                  another batch with it."
            .to_owned(),
        param: Some("file_id".to_owned()),
        line: None,
    }
}
