//! `batchwright results`: the result lines of a batch, while it runs or afterwards.

mod lines;
mod targets;

use std::io;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use self::lines::LineWriter;
use self::targets::Sinks;
pub(super) use self::targets::Targets;
use super::server::{CalledServer, Interruption};
use super::watch::outage_notice;
use crate::cli::exit::Exit;
use crate::cli::output::say;
use crate::client::{ClientError, Pacer, Polling, RemoteBatch, ResultLines, ResultsQuery};
use crate::config::ServerArgs;
use crate::domain::result_cursor::{ResultCursor, ResultKind};

/// How long the server waits for a line before it answers without one.
const WAIT: Duration = Duration::from_secs(30);

/// The arguments of `results`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without --follow, a server that can show results of a batch in progress shows those it has. Other \
servers show results at the end only, so the command waits for it.

With --follow, the command goes on behind the lines that the files already have. Without it, files are replaced.

Examples:
  batchwright results batch_0123 | jq .custom_id
  batchwright results batch_0123 -o output.jsonl -e errors.jsonl
  batchwright results batch_0123 --follow -o results.jsonl
  batchwright results batch_0123 --order input"
)]
pub(in crate::cli) struct ResultsArgs {
    /// The batch.
    #[arg(value_name = "BATCH")]
    id: String,
    /// Wait for the lines that are still to come, and write each as soon as it is durable.
    #[arg(long)]
    follow: bool,
    /// Which lines.
    #[arg(long, value_name = "KIND", default_value = "all", value_parser = kinds())]
    kind: ResultKind,
    /// Write the lines in the order of the input file. This waits for the end of the batch.
    #[arg(long, value_name = "ORDER", conflicts_with = "follow")]
    order: Option<LineOrder>,
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads one of the kinds of lines.
fn kinds() -> impl TypedValueParser<Value = ResultKind> {
    let texts = PossibleValuesParser::new(ResultKind::ALL.map(ResultKind::as_str));
    texts.map(|text| ResultKind::parse(&text).expect("it is one of them"))
}

/// An order of result lines other than that in which the rows ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LineOrder {
    Input,
}

/// What is fetched.
pub(super) struct Fetch {
    pub(super) id: String,
    pub(super) follow: bool,
    pub(super) kind: ResultKind,
    pub(super) is_in_input_order: bool,
}

pub(super) async fn run(args: ResultsArgs, interruption: &Interruption) -> anyhow::Result<Exit> {
    let server = CalledServer::new(&args.server)?;
    interruption.set("run the same command again to go on; the batch is not touched");
    let ResultsArgs { id, follow, kind, order, targets, .. } = args;
    let fetch = Fetch { id, follow, kind, is_in_input_order: order.is_some() };
    let batch = self::fetch(&server, &fetch, &targets).await?;
    if batch.status.is_terminal() {
        return Ok(Exit::of_batch(&batch));
    }
    say(format!("{} is {}: these are the lines so far; --follow waits for the others", batch.id, batch.status));
    Ok(Exit::Well)
}

/// Writes the lines of a batch to where they go, and returns the batch as it was then.
pub(super) async fn fetch(server: &CalledServer, fetch: &Fetch, targets: &Targets) -> anyhow::Result<RemoteBatch> {
    // Before anything is written: whether there is such a batch.
    let batch = server.client.batch(&fetch.id).await.map_err(|error| server.explain(error))?;
    let mut sinks = Sinks::open(targets, fetch.kind, fetch.follow)?;
    let fetching = Fetching { server, fetch, sinks: &mut sinks };
    let batch =
        if fetch.is_in_input_order { fetching.in_input_order(batch).await } else { fetching.live(batch).await }?;
    sinks.finish()?;
    Ok(batch)
}

struct Fetching<'a> {
    server: &'a CalledServer,
    fetch: &'a Fetch,
    sinks: &'a mut Sinks,
}

impl Fetching<'_> {
    /// The lines as they come, from a server that shows them, or those of the files at the end.
    async fn live(mut self, batch: RemoteBatch) -> anyhow::Result<RemoteBatch> {
        let mut pacer = Pacer::new(Polling::default());
        let wait = if self.fetch.follow { WAIT } else { Duration::ZERO };
        loop {
            let (kind, before) = (self.fetch.kind, self.sinks.cursor());
            let query = ResultsQuery { after: Some(before), kind, wait, is_in_input_order: false };
            let answer = match self.server.client.results(&self.fetch.id, &query).await {
                Ok(None) => return self.files(batch).await,
                Ok(Some(lines)) => self.take(lines, &mut 0).await?,
                Err(ClientError::Refused(answer)) if answer.status == 400 && before != ResultCursor::default() => {
                    let hint = "the files have other results than those of this batch";
                    return Err(anyhow::Error::from(ClientError::Refused(answer)).context(hint));
                }
                Err(error) => Err(error),
            };
            let has_ended = pacer.judge(answer, outage_notice).map_err(|error| self.server.explain(error))?;
            let is_without_lines = before == self.sinks.cursor();
            match has_ended {
                Some(has_ended) if has_ended || is_without_lines && !self.fetch.follow => break,
                Some(_) if !is_without_lines => pacer.hurry(),
                // An outage, or a server that did not wait for a line.
                _ => pacer.pause().await,
            }
        }
        self.server.client.batch(&self.fetch.id).await.map_err(|error| self.server.explain(error))
    }

    /// Writes the lines of an answer but the first `skip`: whether nothing comes after them. If the connection breaks,
    /// `skip` counts all lines that were written. The outer error is one of writing.
    async fn take(&mut self, mut lines: ResultLines, skip: &mut u64) -> io::Result<Result<bool, ClientError>> {
        let mut writer = LineWriter::new(self.sinks, None, *skip);
        loop {
            match lines.piece().await {
                Ok(Some(piece)) => writer.push(&piece)?,
                Ok(None) => return writer.end().map(|()| Ok(lines.has_ended)),
                Err(error) => {
                    *skip = writer.whole_lines().max(*skip);
                    return Ok(Err(error));
                }
            }
        }
    }

    /// The lines of the files of a batch, at its end.
    async fn files(self, mut batch: RemoteBatch) -> anyhow::Result<RemoteBatch> {
        if !batch.status.is_terminal() {
            say(format!("{} shows results at the end only: waiting for {}", self.server.url, batch.id));
            batch = ended(self.server, &self.fetch.id).await?;
        }
        for (kind, file) in [(ResultKind::Output, &batch.output_file_id), (ResultKind::Errors, &batch.error_file_id)] {
            let Some(file) = file.as_ref().filter(|_| [ResultKind::All, kind].contains(&self.fetch.kind)) else {
                continue;
            };
            let client = &self.server.client;
            let from = self.sinks.written(kind);
            let bytes = if from == 0 { 1 } else { client.file(file).await?.bytes };
            anyhow::ensure!(from <= bytes, "there are more lines than {file} has; are they those of another batch?");
            if from == bytes {
                continue;
            }
            let mut writer = LineWriter::new(self.sinks, Some(kind), 0);
            let downloaded = client.download_from(file, from, &mut writer).await;
            downloaded.map_err(|error| self.server.explain(error))?;
            writer.end()?;
        }
        Ok(batch)
    }

    /// All lines in the order of the input, which the server can give at the end only, in one answer.
    async fn in_input_order(mut self, batch: RemoteBatch) -> anyhow::Result<RemoteBatch> {
        let Fetch { id, kind, .. } = self.fetch;
        if !batch.status.is_terminal() {
            say(format!("{id} has not ended: waiting, because only then its lines have the order of the input"));
            self.server.say_reason(id).await;
        }
        let batch = ended(self.server, id).await?;
        let query = ResultsQuery { after: None, kind: *kind, wait: Duration::ZERO, is_in_input_order: true };
        let mut pacer = Pacer::new(Polling::default());
        // After a broken connection the same answer comes again: as much of it is skipped as was written.
        let mut skip = 0;
        loop {
            let taken = match self.server.client.results(id, &query).await {
                Ok(Some(lines)) => self.take(lines, &mut skip).await?,
                Ok(None) => {
                    let url = &self.server.url;
                    anyhow::bail!("{url} cannot give results in the order of the input; leave out --order")
                }
                Err(error) => Err(error),
            };
            match pacer.judge(taken, outage_notice).map_err(|error| self.server.explain(error))? {
                Some(_) => return Ok(batch),
                None => pacer.pause().await,
            }
        }
    }
}

/// The batch, once it has ended.
async fn ended(server: &CalledServer, id: &str) -> anyhow::Result<RemoteBatch> {
    let mut pacer = Pacer::new(Polling::default());
    loop {
        let batch = server.client.batch(id).await;
        match pacer.judge(batch, outage_notice).map_err(|error| server.explain(error))? {
            Some(batch) if batch.status.is_terminal() => return Ok(batch),
            _ => pacer.pause().await,
        }
    }
}
