//! The files that a run leaves behind. Each is written beside its place, and moved there when it is on the disk.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use futures::TryStreamExt as _;
use tokio::fs::File;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::RunArgs;
use crate::app::BatchEngine;
use crate::cli::exit::UsageError;
use crate::cli::input::is_standard;
use crate::domain::batch::Batch;
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::storage::blobs::FileBytes;
use crate::verify::{VerifyArgs, VerifyReport, verify};

/// Where the lines of a run go.
pub(super) struct RunOutputs {
    output: ResultTarget,
    errors: Option<ResultTarget>,
}

/// Where lines go.
enum ResultTarget {
    Standard,
    /// A file, which is replaced as a whole.
    File(PathBuf),
    /// A pipe or a device, which cannot be replaced.
    Device(PathBuf),
}

impl RunOutputs {
    /// Looks where the results are to go, before anything is paid for.
    pub(super) fn new(args: &RunArgs) -> anyhow::Result<Self> {
        let input = args.input.canonicalize().ok();
        let is_input =
            |target: &ResultTarget| matches!(target, ResultTarget::File(path) if input.as_ref() == Some(path));
        let output = ResultTarget::at(&args.output_file)?;
        let errors = args.error_file.as_deref().map(ResultTarget::at).transpose()?;
        if is_input(&output) || errors.as_ref().is_some_and(is_input) {
            return Err(UsageError("the results would replace the input: choose another file for them".into()).into());
        }
        if args.error_file.as_ref() == Some(&args.output_file) {
            let message = "the output and the error file are the same: leave --error-file out to have all lines in one";
            return Err(UsageError(message.to_owned()).into());
        }
        Ok(Self { output, errors })
    }

    /// What an earlier run over the same input has left in the output: `None` if there is nothing, or if the input has
    /// changed since, so that the run is to replace it.
    ///
    /// # Errors
    /// The output is not that of this input, and would be lost.
    pub(super) fn left_before(&self, args: &RunArgs) -> anyhow::Result<Option<VerifyReport>> {
        let ResultTarget::File(output) = &self.output else { return Ok(None) };
        let (Ok(left), Ok(input)) = (output.metadata(), args.input.metadata()) else { return Ok(None) };
        let is_changed = left.modified().ok().zip(input.modified().ok()).is_some_and(|(left, input)| input > left);
        if left.len() == 0 || is_standard(&args.input) || is_changed {
            return Ok(None);
        }
        let errors = match &self.errors {
            None => Some(output.clone()),
            Some(ResultTarget::File(errors)) => Some(errors.clone()).filter(|errors| errors.is_file()),
            Some(_) => return Ok(None),
        };
        let files = VerifyArgs { input: args.input.clone(), output: Some(output.clone()), errors };
        let report = verify(&files).context("what an earlier run has left cannot be read")?;
        if report.holds() {
            return Ok(Some(report));
        }
        let (output, input) = (output.display(), args.input.display());
        let message = format!(
            "{output} has something else than the results of all rows of {input}: choose another --output-file, or \
             --restart to replace it"
        );
        Err(UsageError(message).into())
    }

    /// Writes the lines of a batch that has ended.
    pub(super) async fn write(&self, engine: &BatchEngine, batch: &Batch) -> anyhow::Result<()> {
        let (output, errors) = (batch.output_file(), batch.error_file());
        match &self.errors {
            None => self.output.write(engine, &[output, errors]).await,
            Some(target) => {
                target.write(engine, &[errors]).await?;
                self.output.write(engine, &[output]).await
            }
        }
    }

    /// The files, for a message.
    pub(super) fn places(&self) -> String {
        let errors = self.errors.as_ref().map_or_else(String::new, |target| format!(" and {}", target.name()));
        format!("{}{errors}", self.output.name())
    }
}

impl ResultTarget {
    fn at(path: &Path) -> anyhow::Result<Self> {
        if is_standard(path) {
            return Ok(Self::Standard);
        }
        match path.metadata() {
            Ok(found) if found.is_dir() => Err(UsageError(format!("{} is a directory", path.display())).into()),
            // The path behind a link: the link stays.
            Ok(found) if found.is_file() => Ok(Self::File(path.canonicalize()?)),
            Ok(_) => Ok(Self::Device(path.to_owned())),
            Err(_) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                match parent.filter(|parent| !parent.is_dir()) {
                    Some(missing) => Err(UsageError(format!("there is no directory {}", missing.display())).into()),
                    None => Ok(Self::File(path.to_owned())),
                }
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Standard => "standard output".to_owned(),
            Self::File(path) | Self::Device(path) => path.display().to_string(),
        }
    }

    async fn write(&self, engine: &BatchEngine, files: &[Option<FileId>]) -> anyhow::Result<()> {
        let failed = || format!("{} cannot be written; the same command line tries it again", self.name());
        match self {
            Self::Standard => copy(engine, files, &mut tokio::io::stdout()).await,
            Self::Device(path) => {
                let mut device = File::options().write(true).open(path).await.with_context(failed)?;
                copy(engine, files, &mut device).await
            }
            Self::File(path) => {
                let beside = beside(path);
                let mut file = File::create(&beside).await.with_context(failed)?;
                copy(engine, files, &mut file).await.with_context(failed)?;
                file.sync_all().await.with_context(failed)?;
                tokio::fs::rename(&beside, path).await.with_context(failed)?;
                sync_directory(path).await.with_context(failed)
            }
        }
    }
}

/// The name of a file until it is whole.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Has the new name on the disk too.
async fn sync_directory(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new("."))).await?.sync_all().await
}

/// Copies files, one after the other.
async fn copy(
    engine: &BatchEngine,
    files: &[Option<FileId>],
    to: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    for &id in files.iter().flatten() {
        // Looked up just before they are read: parts that are merged afterwards stay for an hour.
        let file = FileBytes::new(engine.storage().file_parts(&Owner::default(), id).await?);
        let mut pieces = Box::pin(file.stream(engine.blobs(), 0..file.len()));
        while let Some(piece) = pieces.try_next().await? {
            to.write_all(&piece).await.map_err(unwritten)?;
        }
    }
    to.flush().await.map_err(unwritten)
}

/// The error of lines that were not taken. A reader that has gone does not have them, so that is an error too.
fn unwritten(error: std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return anyhow!("the reader has gone before it had all lines; the same command line writes them again");
    }
    error.into()
}
