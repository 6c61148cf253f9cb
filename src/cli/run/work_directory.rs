//! The work directory of a run: the data directory of its engine, and nothing else.

use std::fs::{create_dir_all, remove_dir, remove_dir_all, rename};
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};

use super::RunArgs;
use crate::app::{ServiceError, lock_data_directory};
use crate::cli::input::is_standard;

/// A work directory. The engine's data directory is one level below, so that it can be taken away in one step, and so
/// that nothing of the user's is removed with it.
pub(super) struct WorkDirectory(PathBuf);

impl WorkDirectory {
    /// The directory that the arguments name, or the one beside the output.
    pub(super) fn of(args: &RunArgs) -> Self {
        let beside = [&args.output_file, &args.input].into_iter().find(|path| !is_standard(path));
        let path = match (&args.work_dir, beside) {
            (Some(given), _) => given.clone(),
            (None, Some(beside)) => {
                let mut name = beside.clone().into_os_string();
                name.push(".batchwright");
                name.into()
            }
            (None, None) => PathBuf::from("batchwright-run"),
        };
        Self(path)
    }

    /// The data directory of the engine.
    pub(super) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Whether there is a run that has not ended.
    pub(super) fn has_run(&self) -> bool {
        self.data().exists()
    }

    /// The data directory of an engine that has ended, until it is gone.
    fn removed(&self) -> PathBuf {
        self.0.join("removed")
    }

    /// Makes the directory, or uses the one that is there. With `restart`, what it has is thrown away.
    pub(super) fn prepare(&self, restart: bool) -> anyhow::Result<()> {
        let cannot = |what: &str| format!("{} cannot be {what}; choose another --work-dir", self.0.display());
        create_dir_all(&self.0).with_context(|| cannot("made"))?;
        self.remove_removed().with_context(|| cannot("cleared"))?;
        if !restart || !self.has_run() {
            return Ok(());
        }
        let locked = lock_data_directory(&self.data());
        let _lock = locked.map_err(|error| match error {
            ServiceError::DataDirectoryInUse(_) => self.in_use(),
            error => error.into(),
        })?;
        self.clear().with_context(|| cannot("cleared"))
    }

    /// The error of a run whose work directory another one uses.
    pub(super) fn in_use(&self) -> anyhow::Error {
        anyhow!(
            "another run uses {}: wait for its end, or give this one an --output-file or a --work-dir of its own",
            self.0.display()
        )
    }

    /// Removes what a run that has ended needs no more. It does not matter if that fails: the next run does it.
    pub(super) fn remove(&self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, directory = %self.0.display(), "the work directory cannot be removed");
        }
        self.remove_if_empty();
    }

    /// Removes the directory, unless something is in it: a run, or other files of the user.
    pub(super) fn remove_if_empty(&self) {
        let _ = remove_dir(&self.0);
    }

    /// In one step the data is no more that of a run, whenever the process is killed.
    fn clear(&self) -> io::Result<()> {
        self.remove_removed()?;
        rename(self.data(), self.removed())?;
        self.remove_removed()
    }

    fn remove_removed(&self) -> io::Result<()> {
        match remove_dir_all(self.removed()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
