//! `batchwright watch`: how batches get on, until they have ended.

mod observe;
mod screen;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use futures::future::try_join_all;

use self::observe::{Observer, Sight};
use self::screen::Screen;
use super::server::{CalledServer, Interruption};
use crate::cli::exit::Exit;
use crate::cli::output::say;
use crate::client::{ClientError, RemoteBatch};
use crate::config::{ServerArgs, duration};

/// The arguments of `watch`.
#[derive(Args, Debug)]
#[command(
    after_help = "On a terminal each batch has a bar. Elsewhere, and if CI is set, there is a line for each change, at \
most every 30 seconds; a change of the status has its line at once.

Examples:
  batchwright watch batch_0123
  batchwright watch batch_0123 batch_4567 --timeout 2h
  batchwright watch batch_0123 --json | jq -c .event"
)]
pub(in crate::cli) struct WatchArgs {
    /// The batches.
    #[arg(value_name = "BATCH", required = true)]
    ids: Vec<String>,
    /// Write events to standard output, one JSON object a line.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Say nothing but errors; the exit code tells how the batches ended.
    #[arg(short, long)]
    quiet: bool,
    /// Stop waiting after this time, such as `90m`. The batches go on.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    server: ServerArgs,
}

/// What is shown of batches while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchDisplay {
    /// Bars on a terminal, otherwise lines.
    Progress,
    /// Events as JSON.
    Events,
    Nothing,
}

pub(super) async fn run(args: WatchArgs, interruption: &Interruption) -> anyhow::Result<Exit> {
    let server = CalledServer::new(&args.server)?;
    let going_on = match &args.ids[..] {
        [id] => format!("{id} goes on"),
        ids => format!("{} batches go on", ids.len()),
    };
    let hint = format!("{going_on}; watch again with `{}`", server.watch_command(&args.ids));
    interruption.set(hint.clone());
    let mut batches = Vec::new();
    for id in &args.ids {
        batches.push(server.client.batch(id).await.map_err(|error| server.explain(error).context(id.clone()))?);
    }
    let display = match (args.json, args.quiet) {
        (true, _) => WatchDisplay::Events,
        (_, true) => WatchDisplay::Nothing,
        _ => WatchDisplay::Progress,
    };
    let watching = until_ended(&server, batches, display);
    let ended = match args.timeout {
        Some(timeout) => tokio::time::timeout(timeout, watching)
            .await
            .map_err(|_| anyhow::anyhow!("not ended within {}: {hint}", humantime::format_duration(timeout)))??,
        None => watching.await?,
    };
    Ok(ended.iter().map(Exit::of_batch).max().unwrap_or(Exit::Well))
}

/// Shows how batches get on until they have ended.
pub(super) async fn until_ended(
    server: &CalledServer,
    batches: Vec<RemoteBatch>,
    display: WatchDisplay,
) -> anyhow::Result<Vec<RemoteBatch>> {
    let screen = Arc::new(Mutex::new(Screen::new(display, &batches)?));
    let observers = batches.into_iter().enumerate().map(|(place, batch)| {
        let (client, screen) = (server.client.clone(), screen.clone());
        let show = move |sight: Sight<'_>| screen.lock().expect("no thread panics with the lock").show(place, sight);
        Observer::new(client, batch).watch(show)
    });
    let ended = try_join_all(observers).await;
    screen.lock().expect("no thread panics with the lock").finish();
    ended.map_err(|error| match error.downcast() {
        Ok(error) => server.explain(error),
        Err(other) => other,
    })
}

/// Says when an outage of the server begins, and when it is over.
pub(super) fn outage_notice(outage: Option<&ClientError>) {
    say(outage_text(outage));
}

fn outage_text(outage: Option<&ClientError>) -> String {
    match outage {
        Some(error) => format!("{error}; trying again"),
        None => "the server answers again".to_owned(),
    }
}
