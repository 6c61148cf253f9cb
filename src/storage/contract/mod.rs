//! The contract that both databases keep, one noun a file: each trait with its parameters and answers.
//!
//! Answers that a caller must act on are values (`bool`, `Option`, [`Recorded`]); a [`StorageError`] means that it
//! could not be found out.
//!
//! Every method that a client can cause takes the [`Owner`](crate::domain::owner::Owner) that the client acts for as
//! its first parameter. What belongs to another owner is to that method as if it did not exist. The other methods work
//! for all owners and are for daemons: a handler never calls them. Where both are needed, the name of the daemons'
//! method begins with `any_`, and so does that of a method for operators. [`KeyStore`] finds out the owner.

mod batches;
mod error;
mod files;
mod keys;
mod leases;
mod ledger;
mod message_batches;
mod progress;
mod projects;
mod request_keys;
mod steps;
mod upkeep;
mod uploads;
mod webhooks;

use async_trait::async_trait;

pub use batches::{BatchInput, BatchStore, RowsInProgress};
pub use error::{ReadError, Result, StorageError};
pub use files::{FileStore, Indexed, NewFile};
pub use keys::KeyStore;
pub use leases::{Beat, HeldLease, LeaseStore, ModelBacklog};
pub use ledger::{
    BatchFlush, Contradiction, Ending, Flush, Ledger, Recorded, RecordedPart, ResultParts, RowPart, Violation,
};
pub use message_batches::MessageBatchStore;
pub use progress::ProgressStore;
pub use projects::ProjectStore;
pub use request_keys::RequestKeyStore;
pub use steps::{StepStore, StepWrite};
pub use upkeep::{TieredPart, Upkeep};
pub use uploads::UploadStore;
pub use webhooks::{DeliveryTry, WebhookStore};

use crate::domain::ids::BlobId;
use crate::domain::time::Timestamp;

/// A page of what waits for a duty, in the order of due times and ids.
#[derive(Debug)]
pub struct WorkPage<Id, T> {
    /// The items with their ids. One whose row cannot be read has an error of its own, and spoils none beside it.
    pub items: Vec<(Id, Result<T>)>,
    /// What the next page is asked for by; `None` if this is the last one.
    pub next: Option<(Timestamp, Id)>,
}

/// All that the program keeps in its database.
#[async_trait]
pub trait Storage:
    FileStore
    + UploadStore
    + RequestKeyStore
    + BatchStore
    + MessageBatchStore
    + LeaseStore
    + Ledger
    + StepStore
    + ProgressStore
    + ProjectStore
    + KeyStore
    + Upkeep
    + WebhookStore
    + Send
    + Sync
    + 'static
{
    /// Whether the database answers.
    async fn check(&self) -> Result<()>;

    /// Whether the database names any blob.
    async fn names_blobs(&self) -> Result<bool>;

    /// The id of the blob store that belongs to this database: `candidate`, unless it has one already.
    async fn blob_store_id(&self, candidate: BlobId) -> Result<BlobId>;
}
