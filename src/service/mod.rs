//! Actions that need more than one storage call, or a decision. One action a file.

mod create_file;
mod open_batch;
mod request_state;

pub use create_file::{CreateFileError, FileForm, create_file};
pub use open_batch::{OpenBatchError, open_batch};
pub use request_state::request_state;
