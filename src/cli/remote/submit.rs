//! `batchwright submit`: uploads an input file and creates a batch of it, once for the same command.
//!
//! Nothing is kept on this machine. The name of the uploaded file contains a hash of its bytes, by which the same
//! command finds the file again, and with the file its batch. The idempotency key, a hash of all that was asked for,
//! makes sure that two commands at once create one batch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use super::input::{IdempotencyKey, InputFile, uploaded};
use super::results::{self, Fetch, Targets};
use super::server::{CalledServer, Interruption};
use super::watch::{self, WatchDisplay};
use crate::cli::exit::{Exit, UsageError};
use crate::cli::output::{OutputArgs, harmless, print_text, say};
use crate::client::{BatchRequest, ClientError, RemoteBatch, RemoteFile};
use crate::config::ServerArgs;
use crate::domain::batch::{BatchError, BatchStatus};
use crate::domain::result_cursor::ResultKind;

/// The code by which batchwright refuses an idempotency key that came with other parameters before.
const KEY_REUSED: &str = "idempotency_key_reused";
/// Digits of the hash in the name of a file.
const DIGITS: usize = 16;

/// The arguments of `submit`.
#[derive(Args, Debug)]
#[command(after_help = "Prints the id of the batch. The same command again finds the same batch, also after Ctrl-C,
unless it failed for something else than the lines of its file.

Examples:
  batchwright submit input.jsonl
  batchwright submit input.jsonl --wait -o output.jsonl -e errors.jsonl
  generate-requests | batchwright submit - --metadata project=demo --window 24h")]
pub(in crate::cli) struct SubmitArgs {
    /// The input file, with one request a line; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The endpoint of the requests, such as `/v1/chat/completions` [default: the url of the first request]
    #[arg(long, value_name = "PATH")]
    endpoint: Option<String>,
    /// The completion window, one of those that the server offers.
    #[arg(long, value_name = "WINDOW", default_value = "24h")]
    window: String,
    /// A note for the batch's metadata. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Name of the file on the server, instead of its own. A hash of its bytes is added.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Create another batch, even if the same command has created one.
    #[arg(long)]
    again: bool,
    /// Wait for the end of the batch, as `watch` does, and then fetch the results if `-o` or `-e` says where to.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) async fn run(args: SubmitArgs, interruption: &Interruption) -> anyhow::Result<Exit> {
    if !args.wait && args.targets.any() {
        return Err(UsageError("-o and -e need --wait".to_owned()).into());
    }
    let server = CalledServer::new(&args.server)?;
    interruption.set("run the same command again to go on");
    let batch = submitted(&server, &args).await?;
    let ids = [batch.id.clone()];
    let watch_command = server.watch_command(&ids);
    interruption.set(format!("{} goes on; run the same command again to go on, or `{watch_command}`", batch.id));
    // Standard output is for the results if they go there.
    match args.output.asked() {
        _ if args.targets.is_standard_output() => say(&batch.id),
        None => print_text(&format!("{}\n", batch.id))?,
        Some(_) => args.output.print_one(&batch)?,
    }
    if !args.wait {
        return Ok(Exit::Well);
    }
    let ended = watch::until_ended(&server, vec![batch], WatchDisplay::Progress).await?;
    let exit = ended.iter().map(Exit::of_batch).max().unwrap_or(Exit::Well);
    if args.targets.any() {
        let fetch = Fetch { id: ids[0].clone(), follow: false, kind: ResultKind::All, is_in_input_order: false };
        results::fetch(&server, &fetch, &args.targets).await?;
    }
    Ok(exit)
}

/// The batch of this command: one that is there, or else a new one.
async fn submitted(server: &CalledServer, args: &SubmitArgs) -> anyhow::Result<RemoteBatch> {
    let input = InputFile::open(&args.file)?;
    let endpoint = match &args.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => input.endpoint()?,
    };
    let fingerprint = input.fingerprint()?;
    let notes: BTreeMap<String, String> = args.metadata.iter().cloned().collect();
    let notes_text = serde_json::to_string(&notes)?;
    let asked = ["submit", &*fingerprint, &*endpoint, &*args.window, &*notes_text];
    let key = IdempotencyKey::of(&asked);
    let mut request = BatchRequest::new("", endpoint.clone());
    request.completion_window.clone_from(&args.window);
    request.metadata = (!notes.is_empty()).then_some(notes);
    request.idempotency_key = Some(key.unless(args.again));
    let mark = format!("-{}", &fingerprint[..DIGITS]);

    let files = equal_files(server, &input, &mark).await?;
    if !args.again
        && let Some(batch) = batch_of(server, &files, &request).await?
    {
        let Some(refusal) = refusal_that_may_pass(&batch) else {
            say(format!("{} is the batch of this command, and is {}; --again creates another", batch.id, batch.status));
            return Ok(batch);
        };
        say(format!("{} was the batch of this command, and failed: {}", batch.id, harmless(&refusal.message)));
        request.idempotency_key = Some(IdempotencyKey::of(&[&asked[..], &[&batch.id]].concat()).unless(false));
    }
    if let Some(batch) = created(server, &files, &mut request).await? {
        return Ok(batch);
    }
    let file = uploaded(server, &input, &marked(args.name.as_ref().unwrap_or(&input.name), &mark)).await?;
    if let Some(batch) = created(server, &[file], &mut request).await? {
        return Ok(batch);
    }
    // Another command has uploaded the same file and created the batch meanwhile.
    let files = equal_files(server, &input, &mark).await?;
    match created(server, &files, &mut request).await? {
        Some(batch) => Ok(batch),
        None => bail!("this command has created a batch before, whose input file is gone; --again creates another"),
    }
}

/// Why a batch failed before any of its rows ran, if it may be taken another time: it was beyond a limit, say. An error
/// at a line is one of the file itself, which has not changed.
fn refusal_that_may_pass(batch: &RemoteBatch) -> Option<&BatchError> {
    let is_of_batch = |error: &&BatchError| error.line.is_none();
    batch.errors.iter().find(is_of_batch).filter(|_| batch.status == BatchStatus::Failed)
}

/// Creates the batch with the first of the files with which the server does so. The server refuses the key if it has
/// made a batch with another file.
async fn created(
    server: &CalledServer,
    files: &[RemoteFile],
    request: &mut BatchRequest,
) -> anyhow::Result<Option<RemoteBatch>> {
    for file in files {
        request.input_file_id.clone_from(&file.id);
        match server.client.create_batch(request).await {
            Ok(batch) => return Ok(Some(batch)),
            Err(ClientError::Refused(answer)) if answer.code.as_deref() == Some(KEY_REUSED) => {}
            Err(error) => return Err(server.explain(error)),
        }
    }
    Ok(None)
}

/// The files on the server that have the same bytes, the newest first.
async fn equal_files(server: &CalledServer, input: &InputFile, mark: &str) -> anyhow::Result<Vec<RemoteFile>> {
    let (mut equal, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = match server.client.files(Some("batch"), after.as_deref(), None).await {
            Ok(page) => page,
            Err(error) if is_no_list(&error) => return Ok(equal),
            Err(error) => return Err(server.explain(error)),
        };
        let last = page.data.last().map(|file| file.id.clone());
        equal.extend(page.data.into_iter().filter(|file| file.bytes == input.bytes && file.filename.contains(mark)));
        after = last.filter(|_| page.has_more);
        if after.is_none() {
            return Ok(equal);
        }
    }
}

/// The newest batch of one of these files with the same parameters. It works without idempotency keys.
async fn batch_of(
    server: &CalledServer,
    files: &[RemoteFile],
    request: &BatchRequest,
) -> anyhow::Result<Option<RemoteBatch>> {
    let Some(oldest) = files.iter().map(|file| file.created_at).min() else { return Ok(None) };
    let is_same = |batch: &RemoteBatch| {
        files.iter().any(|file| file.id == batch.input_file_id)
            && batch.endpoint == request.endpoint
            && batch.completion_window == request.completion_window
            && batch.metadata.clone().unwrap_or_default() == request.metadata.clone().unwrap_or_default()
    };
    let mut after = None::<String>;
    loop {
        let page = match server.client.batches(after.as_deref(), 100).await {
            Ok(page) => page,
            Err(error) if is_no_list(&error) => return Ok(None),
            Err(error) => return Err(server.explain(error)),
        };
        let last = page.data.last().map(|batch| (batch.id.clone(), batch.created_at));
        if let Some(batch) = page.data.into_iter().find(is_same) {
            return Ok(Some(batch));
        }
        match last {
            // Older batches have older files.
            Some((id, created_at)) if page.has_more && created_at >= oldest => after = Some(id),
            _ => return Ok(None),
        }
    }
}

/// Whether the server has no list, or none of this kind: it is searched only to save work.
fn is_no_list(error: &ClientError) -> bool {
    error.is_not_there() || matches!(error, ClientError::Refused(answer) if answer.status == 400)
}

/// A file's name with a mark before its extension.
fn marked(name: &str, mark: &str) -> String {
    let path = Path::new(name);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match path.extension() {
        Some(extension) => format!("{stem}{mark}.{}", extension.to_string_lossy()),
        None => format!("{stem}{mark}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_before_the_extension() {
        for (name, expected) in [("a.b.jsonl", "a.b-0f.jsonl"), ("rows", "rows-0f"), ("dir/a.jsonl", "a-0f.jsonl")] {
            assert_eq!(marked(name, "-0f"), expected);
        }
    }
}
