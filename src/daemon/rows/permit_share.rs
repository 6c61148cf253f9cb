//! A row's share of the calls: what it counts for in the queue, and how its model is found to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::answers::Answers;
use super::models::{Loan, TakenRow};
use super::queue::{Queue, QueuedRow};
use crate::domain::ids::BatchId;
use crate::domain::time::Timestamp;
use crate::upstream::PermitObserver;

/// A row counts as one of those under way unless it has released its permit.
pub(super) struct PermitShare {
    queue: Arc<Queue>,
    model: Arc<str>,
    batch: BatchId,
    answers: Arc<Answers>,
    counts: AtomicBool,
    /// The row's call, if it is on loan. A row that has released its permit once has no loan any more.
    loan: Option<Loan>,
    loan_is_over: AtomicBool,
}

impl PermitShare {
    /// Gives a row that was taken its share.
    pub(super) fn give(queue: &Arc<Queue>, taken: TakenRow) -> QueuedRow {
        let TakenRow { mut row, route, answers, loan } = taken;
        let share = Self {
            queue: queue.clone(),
            model: row.request.data.model.clone(),
            batch: row.row.id.batch,
            answers,
            counts: AtomicBool::new(true),
            loan,
            loan_is_over: AtomicBool::new(false),
        };
        row.share = Some(Arc::new(share));
        row.route = route;
        row
    }

    /// Notes whether there was an answer to the row's last call, which ended `at` and `took` so long.
    pub(super) fn answered(&self, has_answered: bool, at: Timestamp, took: Duration) {
        if has_answered {
            self.answers.came(at, took);
        }
        if self.answers.has_answered() != has_answered {
            // Under the lock, so that a worker which is about to wait sees it, or is told.
            let mut models = self.queue.models();
            self.answers.note(has_answered);
            if has_answered {
                models.forget_loans(&self.model);
                models.recall_loans();
            }
            drop(models);
            self.queue.tell_held_back();
        }
    }

    /// The row's call, if it is on loan.
    pub(super) fn loan(&self) -> Option<&Loan> {
        self.loan.as_ref()
    }
}

impl PermitObserver for PermitShare {
    fn acquired(&self) {
        if !self.counts.swap(true, Relaxed) {
            self.queue.models().count(&self.model, self.batch, 1);
        }
    }

    fn released(&self) {
        self.release(false);
    }
}

impl PermitShare {
    /// The row does not count as under way any more. `is_over`: its worker has it no more either.
    fn release(&self, is_over: bool) {
        let counted = self.counts.swap(false, Relaxed);
        if !counted && !is_over {
            return;
        }
        let mut models = self.queue.models();
        if is_over {
            models.end(&self.model, self.batch);
        }
        if counted {
            models.count(&self.model, self.batch, -1);
            if let Some(loan) = &self.loan
                && !self.loan_is_over.swap(true, Relaxed)
            {
                models.end_loan(&self.model, loan);
            }
            drop(models);
            self.queue.tell_held_back();
        }
    }
}

impl Drop for PermitShare {
    fn drop(&mut self) {
        self.release(true);
    }
}
