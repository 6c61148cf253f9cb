//! The one batch of a run: made from the input, or found in the work directory and compared with the input.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::RunArgs;
use super::progress::RunProgress;
use crate::actions::{BatchObserver, CreateFileError, FileForm, create_batch, create_file};
use crate::app::BatchEngine;
use crate::cli::input::{is_standard, name};
use crate::domain::batch::{Batch, NewBatch, Window};
use crate::domain::batch_endpoint::BatchEndpoint;
use crate::domain::endpoint::Endpoint;
use crate::domain::file::{Purpose, clean_filename};
use crate::domain::owner::Owner;
use crate::domain::page::{Order, PageRequest};
use crate::domain::progress::ReasonCode;
use crate::domain::project_limits::ProjectLimitTable;
use crate::domain::report::Report;
use crate::domain::time::Clock;
use crate::intake::{IntakeError, take_in};

const CHUNK: usize = 256 << 10;
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Why the batch goes no faster is looked at once a second: workers tell of it as often.
const POLLS_PER_REASON: u64 = 10;

/// A run has no deadline, and an engine has no batch without one. Input and results are kept as long.
const NO_DEADLINE: Duration = Duration::from_hours(24 * 365 * 50);

/// What a run begins with.
pub(super) enum RunBeginning {
    /// The input cannot be a batch input file at all, for this reason.
    Refused(String),
    /// The batch.
    Batch(Box<Batch>),
}

/// The metadata of a run's batch.
#[derive(Serialize, Deserialize)]
struct RunMetadata {
    /// The hash of the input.
    sha256: String,
}

/// Finds the batch that an earlier process has begun over the same input, or begins one.
pub(super) async fn begin(args: &RunArgs, engine: &BatchEngine) -> anyhow::Result<RunBeginning> {
    let first = PageRequest { after: None, limit: 1, order: Order::Ascending };
    match engine.storage().batches(&Owner::default(), &first).await?.data.pop() {
        None => create(args, engine).await,
        Some(batch) => {
            let mut hash = Sha256::new();
            read(&args.input, &mut hash)
                .await?
                .try_for_each(async |_| Ok(()))
                .await
                .with_context(|| unreadable(args))?;
            check_is_same(args, &batch, &text_of(hash))?;
            // Nothing happens to one that is not paused.
            let resumed = engine.storage().resume_batch(&Owner::default(), batch.id).await?;
            Ok(RunBeginning::Batch(Box::new(resumed.unwrap_or(batch))))
        }
    }
}

/// Compares the input of this command line with that of the batch.
fn check_is_same(args: &RunArgs, batch: &Batch, sha256: &str) -> anyhow::Result<()> {
    let metadata = batch.metadata.as_deref().context("the work directory is not that of a run")?;
    if serde_json::from_str::<RunMetadata>(metadata)?.sha256 == sha256 {
        return Ok(());
    }
    let done = batch.counts.completed + batch.counts.failed;
    bail!(
        "{} is not the input that an unfinished run has begun with, of which {done} rows are done. Give the same input \
         to go on, another --output-file or --work-dir to run this one beside it, or --restart to throw the unfinished \
         run away",
        name(&args.input)
    )
}

/// Copies the input into the work directory, and creates the batch.
async fn create(args: &RunArgs, engine: &BatchEngine) -> anyhow::Result<RunBeginning> {
    let (storage, owner, now) = (engine.storage(), Owner::default(), Clock::System.now());
    let mut hash = Sha256::new();
    let bytes = read(&args.input, &mut hash).await?;
    let taken = match take_in(bytes, engine.blobs(), &args.limits.intake(), true).await {
        Ok(taken) => taken,
        Err(IntakeError::TooLarge) => return Ok(RunBeginning::Refused("File is too large.".to_owned())),
        Err(IntakeError::Stream(error)) => return Err(error).with_context(|| unreadable(args)),
        Err(IntakeError::Blob(error)) => return Err(error).context("the input cannot be copied"),
    };
    let report = taken.found.as_ref().and_then(|found| found.as_ref().ok()).map(|found| &found.report);
    // Each row may name another endpoint. Without a good row, every endpoint has the same errors.
    let named = |report: &Report| BatchEndpoint::of_urls(report.urls.iter().map(|rows| rows.url.as_str()));
    let endpoint = report.map(|report| named(report).unwrap_or(Endpoint::ChatCompletions.into()));
    let filename = clean_filename(&args.input.to_string_lossy());
    let form = FileForm { purpose: Purpose::Batch, filename, expires_after: Some(NO_DEADLINE), key: None };
    let file = match create_file(&*storage, engine.blobs(), &owner, taken, form, now).await {
        Ok(file) => file,
        Err(CreateFileError::Refused(refusal)) => return Ok(RunBeginning::Refused(refusal.to_string())),
        Err(error) => return Err(error).context("the input cannot be kept"),
    };
    let new = NewBatch {
        input_file_id: file.id.to_string(),
        endpoint: endpoint.ok_or_else(|| anyhow!("the input was not read"))?,
        window: Window { text: "none".to_owned(), length: NO_DEADLINE },
        metadata: Some(serde_json::to_string(&RunMetadata { sha256: text_of(hash) })?),
        output_expires_after: Some(NO_DEADLINE),
        idempotency_key: None,
        canary: None,
        retry: None,
        webhook: None,
        is_message_batch: false,
    };
    let batch = create_batch(&*storage, engine.wakeup(), &owner, &new, now).await?;
    Ok(RunBeginning::Batch(Box::new(batch)))
}

/// The bytes of the input, which are hashed as they are read.
async fn read<'a>(
    path: &Path,
    hash: &'a mut Sha256,
) -> anyhow::Result<impl Stream<Item = std::io::Result<Bytes>> + Unpin + use<'a>> {
    let file: Box<dyn AsyncRead + Send + Unpin> = if is_standard(path) {
        Box::new(tokio::io::stdin())
    } else {
        let opened = tokio::fs::File::open(path).await;
        Box::new(opened.with_context(|| format!("{} cannot be read", path.display()))?)
    };
    Ok(ReaderStream::with_capacity(file, CHUNK).inspect_ok(|chunk| hash.update(chunk)).fuse())
}

fn unreadable(args: &RunArgs) -> String {
    format!("{} cannot be read", name(&args.input))
}

fn text_of(hash: Sha256) -> String {
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Waits until the batch has ended, or is paused because all of its first rows failed alike.
pub(super) async fn wait(engine: &BatchEngine, batch: Batch, progress: &RunProgress) -> anyhow::Result<Batch> {
    let (storage, id, owner, projects) = (engine.storage(), batch.id, Owner::default(), ProjectLimitTable::default());
    let observer = BatchObserver { storage: &*storage, clock: &Clock::System, projects: &projects, owner: &owner };
    let (mut batch, mut reason) = (batch, None);
    for poll in 0_u64.. {
        if poll.is_multiple_of(POLLS_PER_REASON)
            && let Some(seen) = observer.observe(id).await?
        {
            // The worker of this process has not told of itself yet.
            reason = seen.progress.reason.filter(|reason| reason.code != ReasonCode::NoWorker);
        }
        progress.show(&batch, reason.as_ref());
        if batch.status.is_terminal() || batch.pause.is_some() {
            break;
        }
        tokio::time::sleep(POLL_EVERY).await;
        batch = storage.batch(&owner, id).await?.context("the batch is gone from the work directory")?;
    }
    Ok(batch)
}
