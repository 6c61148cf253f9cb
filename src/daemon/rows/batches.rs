//! The rows of one model that wait, and which of them is next: by owner, and in each by batch.
//!
//! 1. A batch at risk of missing its window comes first, and of several the one whose window closes first.
//! 2. Then the owner with the fewest rows under way for its share.
//! 3. Of that owner, the batch with the fewest rows under way for its priority.
//!
//! Rows under way are the fair measure: a call under way has an equal part of the server's work, however long its
//! answer becomes, so nobody has to estimate tokens.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::queue::QueuedRow;
use crate::domain::activity::BatchActivity;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::priority::BatchPriority;
use crate::domain::project_limits::ProjectLimitTable;
use crate::domain::time::Timestamp;

/// The batches of one model of which rows are here.
#[derive(Default)]
pub(super) struct Batches {
    owners: Vec<OwnerQueue>,
    /// Batches whose windows close until then are at risk of missing them.
    at_risk_until: Option<Timestamp>,
}

struct OwnerQueue {
    owner: Owner,
    share: NonZeroU32,
    batches: Vec<BatchQueue>,
    /// Rows that workers have.
    running: usize,
    /// When a row was taken last.
    served: u64,
}

struct BatchQueue {
    id: BatchId,
    expires_at: Timestamp,
    priority: BatchPriority,
    rows: VecDeque<QueuedRow>,
    /// Rows that have a permit.
    running: usize,
    /// Rows that workers have: those, and rows that wait for their tools.
    begun: usize,
    last_begun: Option<Timestamp>,
    served: u64,
}

/// The place of a batch that has the next row.
#[derive(Clone, Copy)]
pub(super) struct BatchPlace {
    owner: usize,
    batch: usize,
}

impl Batches {
    /// Adds a row behind those of its batch, or before them if it has run before. One that was parked is behind: if the
    /// server refuses only some rows, others are to show that it takes rows.
    pub(super) fn push(&mut self, row: QueuedRow, have_priorities: bool, projects: &ProjectLimitTable) {
        let data = &row.request.data;
        let owners = &mut self.owners;
        let no = owners.iter().position(|known| known.owner == data.owner).unwrap_or_else(|| {
            let share = projects.of(&data.owner).share();
            owners.push(OwnerQueue { owner: data.owner.clone(), share, batches: Vec::new(), running: 0, served: 0 });
            owners.len() - 1
        });
        let batches = &mut owners[no].batches;
        let no = batches.iter().position(|known| known.id == row.row.id.batch).unwrap_or_else(|| {
            batches.push(BatchQueue {
                id: row.row.id.batch,
                expires_at: data.expires_at,
                priority: if have_priorities {
                    BatchPriority::asked_for(&data.metadata)
                } else {
                    BatchPriority::Normal
                },
                rows: VecDeque::new(),
                running: 0,
                begun: 0,
                last_begun: None,
                served: 0,
            });
            batches.len() - 1
        });
        let rows = &mut batches[no].rows;
        if row.request.has_run && row.request.parks == 0 { rows.push_front(row) } else { rows.push_back(row) }
    }

    fn all(&self) -> impl Iterator<Item = &BatchQueue> {
        self.owners.iter().flat_map(|owner| &owner.batches)
    }

    pub(super) fn waiting(&self) -> usize {
        self.all().map(|batch| batch.rows.len()).sum()
    }

    pub(super) fn has_rows(&self) -> bool {
        self.all().any(|batch| !batch.rows.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// How many rows of each batch wait, and when its window closes.
    pub(super) fn windows(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        self.all().map(|batch| (batch.expires_at, batch.rows.len() as u64))
    }

    /// Notes until when windows close that are at risk of being missed.
    pub(super) fn set_at_risk_until(&mut self, until: Option<Timestamp>) {
        self.at_risk_until = until;
    }

    /// Whether a batch at risk has rows here.
    pub(super) fn has_rows_at_risk(&self) -> bool {
        self.first_at_risk().is_some()
    }

    /// The batch at risk whose window closes first.
    fn first_at_risk(&self) -> Option<BatchPlace> {
        let until = self.at_risk_until?;
        let batches = self.owners.iter().enumerate().flat_map(|(owner, queue)| {
            queue.batches.iter().enumerate().map(move |(batch, queue)| (BatchPlace { owner, batch }, queue))
        });
        let at_risk = batches.filter(|(_, batch)| !batch.rows.is_empty() && batch.expires_at <= until);
        Some(at_risk.min_by_key(|(_, batch)| (batch.expires_at, batch.id))?.0)
    }

    /// The batch whose row is next.
    pub(super) fn next(&self) -> Option<BatchPlace> {
        self.first_at_risk().or_else(|| {
            let owners = self.owners.iter().enumerate().filter(|(_, owner)| owner.has_rows());
            let (owner, queue) = owners.min_by_key(|(_, owner)| (owner.load(), owner.served))?;
            let batches = queue.batches.iter().enumerate().filter(|(_, batch)| !batch.rows.is_empty());
            let (batch, _) = batches.min_by_key(|(_, batch)| (batch.load(), batch.served))?;
            Some(BatchPlace { owner, batch })
        })
    }

    /// Takes the next row of a batch, as the row with this number of all that were taken.
    pub(super) fn take(&mut self, place: BatchPlace, taken: u64, now: Timestamp) -> Option<QueuedRow> {
        let owner = &mut self.owners[place.owner];
        let batch = &mut owner.batches[place.batch];
        let row = batch.rows.pop_front()?;
        (owner.served, batch.served) = (taken, taken);
        owner.running += 1;
        batch.running += 1;
        batch.begun += 1;
        batch.last_begun = Some(now);
        Some(row)
    }

    /// Counts a row of a batch under way more or less. Whether nothing is left of the batch.
    pub(super) fn count(&mut self, id: BatchId, change: isize) -> bool {
        for owner in &mut self.owners {
            if let Some(batch) = owner.batches.iter_mut().find(|batch| batch.id == id) {
                batch.running = batch.running.saturating_add_signed(change);
                owner.running = owner.running.saturating_add_signed(change);
                return batch.is_over();
            }
        }
        false
    }

    /// A worker has a row of a batch no more, which does not count as under way. Whether nothing is left of the batch.
    pub(super) fn end(&mut self, id: BatchId) -> bool {
        let mut batches = self.owners.iter_mut().flat_map(|owner| &mut owner.batches);
        let Some(batch) = batches.find(|batch| batch.id == id) else { return false };
        batch.begun = batch.begun.saturating_sub(1);
        batch.is_over()
    }

    /// The batches of which workers have rows.
    pub(super) fn activities(&self) -> impl Iterator<Item = BatchActivity> {
        self.all().filter(|batch| batch.begun > 0).map(|batch| BatchActivity {
            running: batch.begun as u64,
            last_begun: batch.last_begun,
            ..BatchActivity::none(batch.id)
        })
    }

    /// Removes the rows that are not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&QueuedRow) -> bool) {
        for batch in self.owners.iter_mut().flat_map(|owner| &mut owner.batches) {
            batch.rows.retain(&keep);
        }
        self.tidy();
    }

    /// Forgets batches of which nothing is here.
    pub(super) fn tidy(&mut self) {
        for owner in &mut self.owners {
            owner.batches.retain(|batch| !batch.is_over());
        }
        self.owners.retain(|owner| !owner.batches.is_empty());
    }
}

impl OwnerQueue {
    /// The rows under way, by what the share makes of them. An owner without any comes before all that have one.
    fn load(&self) -> u64 {
        // Fine enough for the shares that people give, and far from overflow.
        const SCALE: u64 = 1 << 20;
        self.running as u64 * SCALE / u64::from(self.share.get())
    }

    fn has_rows(&self) -> bool {
        self.batches.iter().any(|batch| !batch.rows.is_empty())
    }
}

impl BatchQueue {
    fn is_over(&self) -> bool {
        self.begun == 0 && self.running == 0 && self.rows.is_empty()
    }

    /// The rows under way, by what the priority makes of them. A batch without any comes before all that have one.
    fn load(&self) -> usize {
        self.running * self.priority.divisor()
    }
}
