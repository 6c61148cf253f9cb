//! `/v1/files`: one file for each operation.

mod content;
mod create;
mod delete;
mod filename;
mod form;
mod get;
mod list;
mod range;
mod validators;
mod wire;

pub(super) use content::__path_file_content;
pub(crate) use content::file_content;
pub(super) use create::__path_create_file;
pub(crate) use create::create_file;
pub(super) use delete::{__path_delete_file, delete_file};
pub(super) use get::{__path_get_file, get_file};
pub(super) use list::{__path_list_files, list_files};
pub(super) use wire::{DeletedFile, FileObject};

use super::{ApiError, App};
use crate::domain::file::File;
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::domain::row::shown;

/// Finds the file of an owner that a path names.
async fn find(app: &App, owner: &Owner, id: &str) -> Result<File, ApiError> {
    let not_found = || ApiError::not_found(format!("No such File object: {}", shown(id))).at("id");
    let parsed = FileId::parse(id).ok_or_else(not_found)?;
    app.storage.file(owner, parsed, app.clock.now()).await?.ok_or_else(not_found)
}
