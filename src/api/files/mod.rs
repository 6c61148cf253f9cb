//! `/v1/files`: one file for each operation.

mod content;
mod create;
mod delete;
mod get;
mod list;
mod range;
mod upload_form;
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
use crate::domain::file::{File, Purpose};
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::domain::row::shown;

/// Finds the file of an owner that a path names.
async fn find(app: &App, owner: &Owner, id: &str) -> Result<File, ApiError> {
    let not_found = || ApiError::not_found(format!("No such File object: {}", shown(id))).at("id");
    let parsed = FileId::parse(id).ok_or_else(not_found)?;
    app.storage.file(owner, parsed, app.clock.now()).await?.ok_or_else(not_found)
}

/// The purpose that a client uploads for (contract §2.4).
pub(super) fn purpose_of(text: &str) -> Result<Purpose, ApiError> {
    let known = Purpose::parse(text).filter(|purpose| Purpose::UPLOADABLE.contains(purpose));
    known.ok_or_else(|| {
        let supported: Vec<String> = Purpose::UPLOADABLE.iter().map(|purpose| format!("'{purpose}'")).collect();
        let message = format!("'{}' is not one of [{}] - 'purpose'", shown(text), supported.join(", "));
        ApiError::invalid(message).at("purpose")
    })
}

/// Refuses names that OpenAI refuses (contract §2.2).
pub(super) fn check_name(purpose: Purpose, filename: &str) -> Result<(), ApiError> {
    if purpose == Purpose::Batch && filename.to_ascii_lowercase().ends_with(".txt") {
        return Err(ApiError::invalid("Invalid file format for Batch API. Must be .jsonl"));
    }
    Ok(())
}

/// The refusal of a file beyond the limit, in OpenAI's words.
pub(super) fn file_too_large() -> ApiError {
    ApiError::invalid("File is too large.")
}
