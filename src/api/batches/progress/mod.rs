//! `GET /v1/batches/{batch_id}/progress`: an extension.

mod get;
mod wire;

pub(super) use wire::BatchProgressObject;

pub(in crate::api) use get::{__path_get_batch_progress, get_batch_progress};
