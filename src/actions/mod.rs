//! Actions that need more than one storage call, or a decision. One action a file.

mod batch_progress;
mod complete_rows;
mod complete_upload;
mod create_batch;
mod create_batch_of_rows;
mod create_file;
mod request_state;
mod retry_batch;

pub use batch_progress::{BatchObserver, ObservedBatch};
pub use complete_rows::complete_rows;
pub use complete_upload::{CompleteUploadError, UploadCompleter, UploadCompletion};
pub use create_batch::{CreateBatchError, create_batch};
pub use create_batch_of_rows::{BatchOfRows, BatchOfRowsError};
pub use create_file::{CreateFileError, FileForm, create_file};
pub use request_state::request_state;
pub use retry_batch::{BatchRetrier, RetryBatchError};
