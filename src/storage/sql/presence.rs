//! Whether the files of an embedded database are still where they were opened.
//!
//! A file that is deleted or moved away stays open: SQLite goes on writing to it, and all of that is gone with the
//! process. So every write looks first, which costs about a microsecond a file.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::storage::{Result, StorageError};

/// Files that must stay where they are for as long as a database is open.
#[derive(Default)]
pub(super) struct Presence {
    files: Vec<OpenFile>,
}

struct OpenFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Presence {
    /// Adds a file that was just opened.
    pub(super) fn watch(&mut self, path: &Path) -> Result<()> {
        let gone = |source| StorageError::Gone { path: path.to_owned(), source: Some(source) };
        self.files.push(OpenFile { path: path.to_owned(), identity: identity(path).map_err(gone)? });
        Ok(())
    }

    /// Whether every path still leads to the file that was opened.
    pub(super) fn check(&self) -> Result<()> {
        for OpenFile { path, identity: opened } in &self.files {
            match identity(path) {
                Ok(found) if found == *opened => {}
                Ok(_) => return Err(StorageError::Gone { path: path.clone(), source: None }),
                Err(source) => return Err(StorageError::Gone { path: path.clone(), source: Some(source) }),
            }
        }
        Ok(())
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}
