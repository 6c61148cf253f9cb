//! `status`, `list`, `cancel`, `pause` and `resume`: one call for each batch.

use clap::Args;

use super::server::CalledServer;
use crate::cli::exit::Exit;
use crate::cli::output::{OutputArgs, say};
use crate::client::{ClientError, RemoteBatch};
use crate::config::ServerArgs;
use crate::domain::batch::BatchStatus;

/// The most batches of one page, which all servers give.
const PAGE: u32 = 100;

/// The arguments of `status`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  batchwright status batch_0123
  batchwright status batch_0123 --output json | jq .usage")]
pub(in crate::cli) struct StatusArgs {
    /// The batch.
    #[arg(value_name = "BATCH")]
    id: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// The arguments of `list`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  batchwright list
  batchwright list --status in_progress --output plain | cut -f1 | xargs batchwright watch")]
pub(in crate::cli) struct ListArgs {
    /// The most batches that are listed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Only batches older than this one.
    #[arg(long, value_name = "BATCH")]
    after: Option<String>,
    /// Only batches with one of these statuses, such as `in_progress,completed`.
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = batch_status)]
    status: Vec<BatchStatus>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// The arguments of `cancel`, `pause` and `resume`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  batchwright pause batch_0123
  batchwright resume batch_0123
  batchwright list --status in_progress --output plain | cut -f1 | xargs batchwright cancel")]
pub(in crate::cli) struct SteerArgs {
    /// The batches.
    #[arg(value_name = "BATCH", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// What is done to a batch.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Cancel,
    Pause,
    Resume,
}

fn batch_status(text: &str) -> Result<BatchStatus, String> {
    let known = || BatchStatus::ALL.map(BatchStatus::as_str).join(", ");
    BatchStatus::parse(text).ok_or_else(|| format!("the statuses are {}", known()))
}

pub(super) async fn status(args: StatusArgs) -> anyhow::Result<Exit> {
    let server = CalledServer::new(&args.server)?;
    let batch = server.client.batch(&args.id).await.map_err(|error| server.explain(error))?;
    args.output.print_one(&batch)?;
    if !batch.status.is_terminal() {
        server.say_reason(&batch.id).await;
    }
    Ok(Exit::Well)
}

pub(super) async fn list(args: ListArgs) -> anyhow::Result<Exit> {
    let server = CalledServer::new(&args.server)?;
    let (mut found, mut after): (Vec<RemoteBatch>, _) = (Vec::new(), args.after);
    while found.len() < args.limit {
        // Batches of other statuses take places in a page, so a page that is filtered is as long as it can be.
        let left = u32::try_from(args.limit - found.len()).unwrap_or(PAGE);
        let limit = if args.status.is_empty() { left.min(PAGE) } else { PAGE };
        let page = server.client.batches(after.as_deref(), limit).await.map_err(|error| server.explain(error))?;
        let last = page.data.last().map(|batch| batch.id.clone());
        found.extend(
            page.data.into_iter().filter(|batch| args.status.is_empty() || args.status.contains(&batch.status)),
        );
        after = last.filter(|_| page.has_more);
        if after.is_none() {
            break;
        }
    }
    found.truncate(args.limit);
    args.output.print_list(&found)?;
    Ok(Exit::Well)
}

/// Goes on with the other batches if one is refused.
pub(super) async fn steer(args: SteerArgs, verb: Verb) -> anyhow::Result<Exit> {
    let server = CalledServer::new(&args.server)?;
    let (mut done, mut refusal) = (Vec::new(), None);
    for id in &args.ids {
        match steer_one(&server, id, verb).await {
            Ok(batch) => done.push(batch),
            Err(error) if args.ids.len() == 1 => return Err(error),
            Err(error) => {
                say(format!("error: {id}: {error:#}"));
                refusal = refusal.max(Exit::of_error(&error));
            }
        }
    }
    match &done[..] {
        [batch] if args.ids.len() == 1 => args.output.print_one(batch)?,
        batches => args.output.print_list(batches)?,
    }
    Ok(refusal.unwrap_or(Exit::Well))
}

async fn steer_one(server: &CalledServer, id: &str, verb: Verb) -> anyhow::Result<RemoteBatch> {
    let client = &server.client;
    let extension = async |answer: Result<RemoteBatch, ClientError>, what| match answer {
        Ok(batch) => Ok(batch),
        Err(error) => Err(server.explain_extension(error, id, what).await),
    };
    match verb {
        Verb::Cancel => client.cancel_batch(id).await.map_err(|error| server.explain(error)),
        Verb::Pause => {
            let paused = extension(client.pause_batch(id).await, "pause").await;
            paused.inspect(|_| say(format!("{id} is paused until `batchwright resume {id}`; its window goes on")))
        }
        Verb::Resume => extension(client.resume_batch(id).await, "resume").await,
    }
}
