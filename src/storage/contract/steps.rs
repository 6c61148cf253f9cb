//! What is kept of the steps of rows.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::Result;
use crate::domain::ids::RequestId;
use crate::domain::lease::LeaseHold;
use crate::domain::owner::Owner;
use crate::domain::response::Step;
use crate::domain::time::Timestamp;

/// A step as it stands, written by whoever holds the lease of its row.
#[derive(Debug, Clone)]
pub struct StepWrite {
    /// The row.
    pub row: RequestId,
    /// The lease in whose name it is written, and the token it is held with.
    pub lease: LeaseHold,
    /// The step.
    pub step: Step,
}

/// The steps of rows that take more than one call.
#[async_trait]
pub trait StepStore {
    /// Keeps steps as they stand, in their order and in one transaction. A step that has ended well stays as it is.
    /// Returns the leases that are not held with their token any more: nothing is kept in their name.
    async fn record_steps(&self, writes: &[StepWrite]) -> Result<BTreeSet<LeaseHold>>;

    /// The steps of a row in a batch of the owner, in the order in which they were begun.
    async fn steps(&self, owner: &Owner, row: RequestId) -> Result<Vec<Step>>;

    /// Forgets the steps, or else the attempts, of up to `rows` rows of a batch that ended at `ended_before` or
    /// earlier. Returns how many there were, where the attempts of a row count as one; none if there is no such batch.
    async fn forget_steps(&self, ended_before: Timestamp, rows: u32) -> Result<u64>;
}
