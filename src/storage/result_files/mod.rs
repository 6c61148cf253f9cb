//! Both result files of a batch, from the moment their first lines are recorded. Nothing here changes them.

mod failed_rows;
mod in_order;
mod pages;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;

pub use in_order::InputOrder;
pub use pages::{ResultPage, ResultPageError};

use super::blobs::{Blobs, FileBytes};
use super::{ReadError, ResultParts, Storage, StorageError};
use crate::domain::file::FilePart;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::time::Clock;

/// The batch whose result files are read, and where they are. Cheap to clone.
#[derive(Clone)]
pub struct ResultSource {
    /// Where the parts are listed.
    pub storage: Arc<dyn Storage>,
    /// Where their bytes are.
    pub blobs: Blobs,
    /// The source of the time, for files that expire.
    pub clock: Clock,
    /// The owner of the batch.
    pub owner: Owner,
    /// The batch.
    pub batch: BatchId,
}

/// One of the two result files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultFile {
    /// The lines of the rows that succeeded.
    Output,
    /// The lines of all other rows.
    Errors,
}

/// Both result files as far as they were recorded at one moment.
pub struct ResultFiles {
    source: ResultSource,
    output: FileBytes,
    errors: FileBytes,
}

impl ResultSource {
    /// What is recorded.
    ///
    /// # Errors
    /// It could not be found out.
    pub async fn files(&self) -> Result<ResultFiles, StorageError> {
        let ResultParts { output, errors } = self.parts().await?;
        Ok(ResultFiles { source: self.clone(), output: FileBytes::new(output), errors: FileBytes::new(errors) })
    }

    async fn parts(&self) -> Result<ResultParts, StorageError> {
        self.storage.result_parts(&self.owner, self.batch, self.clock.now()).await
    }

    async fn parts_of(&self, file: ResultFile) -> Result<Vec<FilePart>, StorageError> {
        let ResultParts { output, errors } = self.parts().await?;
        Ok(if file == ResultFile::Output { output } else { errors })
    }
}

impl ResultFiles {
    /// One of the files. It is empty before its first line is recorded, and once it was deleted or has expired.
    #[must_use]
    pub fn file(&self, file: ResultFile) -> &FileBytes {
        match file {
            ResultFile::Output => &self.output,
            ResultFile::Errors => &self.errors,
        }
    }

    fn lengths(&self) -> (u64, u64) {
        (self.output.len(), self.errors.len())
    }

    /// Reads a range of a file bit by bit, also while its parts are merged. The stream ends early if the file is gone.
    pub fn stream(
        &self,
        file: ResultFile,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + use<> {
        let source = self.source.clone();
        let parts_now = move || {
            let source = source.clone();
            async move { source.parts_of(file).await }
        };
        self.file(file).stream_while_merged(&self.source.blobs, range, parts_now)
    }
}
