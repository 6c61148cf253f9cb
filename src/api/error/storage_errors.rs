//! What clients are told of errors of the storage.

use super::ApiError;
use crate::storage::blobs::BlobError;
use crate::storage::{ReadError, StorageError};
use crate::telemetry::chain;

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        tracing::error!(error = chain(&error), "the storage failed");
        match error {
            StorageError::Timeout(_) | StorageError::Unavailable(_) => Self::unavailable(),
            StorageError::Full(_) => Self::storage_full(),
            StorageError::Gone { .. } => Self::storage_gone(),
            StorageError::Corrupt { .. }
            | StorageError::TooNew { .. }
            | StorageError::Migration(_)
            | StorageError::Internal(_) => Self::internal(),
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        tracing::error!(error = chain(&error), "the blob store failed");
        match error {
            BlobError::Full(_) => Self::storage_full(),
            BlobError::Unmarked => Self::storage_gone(),
            _ => Self::unavailable(),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Storage(error) => error.into(),
            ReadError::Blob(error) => error.into(),
        }
    }
}
