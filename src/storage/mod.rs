//! What is kept: metadata in SQL ([`sql`]), bytes in a blob store ([`blobs`]).
//!
//! [`Storage`] is the contract both databases keep; `tests/storage` holds them to it.

pub mod blobs;
mod contract;
pub mod group_commit;
pub mod queue;
pub mod result_files;
pub mod results;
pub mod rows;
pub mod sql;

pub use contract::{
    BatchFlush, BatchInput, BatchStore, Beat, Contradiction, DeliveryTry, Ending, FileStore, Flush, HeldLease, Indexed,
    KeyStore, LeaseStore, Ledger, MessageBatchStore, ModelBacklog, NewFile, ProgressStore, ProjectStore, ReadError,
    Recorded, RecordedPart, RequestKeyStore, Result, ResultParts, RowPart, RowsInProgress, StepStore, StepWrite,
    Storage, StorageError, TieredPart, Upkeep, UploadStore, Violation, WebhookStore, WorkPage,
};
