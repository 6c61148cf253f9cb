//! `batchwright run`: one batch from an input file to its results, without a server. A run that was killed goes on from
//! its work directory.

mod batch;
mod progress;
mod results;
mod work_directory;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Command};

use self::batch::RunBeginning;
use self::progress::RunProgress;
use self::results::RunOutputs;
use self::work_directory::WorkDirectory;
use super::check::error_lines;
use super::exit::Exit;
use super::output::harmless;
use super::{input, line_fault, shutdown};
use crate::app::{BatchEngine, ServiceError, raise_limit_of_open_files};
use crate::config::{
    InputLimits, LogConfig, ResponsesConfig, ServeConfig, ToolsConfig, UpstreamConfig, UpstreamTable, WorkerConfig,
    duration,
};
use crate::daemon::Recording;
use crate::domain::batch::{Batch, BatchError, BatchStatus};
use crate::domain::pause::Pause;
use crate::telemetry::logs;

/// The arguments of `run`.
#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    /// Batch input file; `-` is standard input. Each row is sent to the endpoint that is its url.
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,

    /// File for the results, written in one step once all rows have ended. A file that has the results of this input is
    /// left as it is; one with anything else is replaced only with `--restart`, or if the input is newer. `-` is
    /// standard output. Without `--error-file` it has a line for every row, as with `vllm run-batch`: first those that
    /// succeeded, then those that failed, whose lines have a status that is not 200, or an `error`.
    #[arg(short, long, value_name = "FILE")]
    pub output_file: PathBuf,

    /// File for the lines of rows that failed, which are then not in the output file. It is empty if no row failed.
    #[arg(short, long, value_name = "FILE")]
    pub error_file: Option<PathBuf>,

    /// Directory for the state of the run, which has a copy of the input and the results so far. It is removed when the
    /// results are on the disk. After a crash or Ctrl-C, the same command line goes on from it. By default it is the
    /// output file's name with `.batchwright` behind it (of the input file, if the output is standard output;
    /// `batchwright-run`, if both are standard).
    #[arg(long, value_name = "DIRECTORY")]
    pub work_dir: Option<PathBuf>,

    /// Run all rows anew: throw away what an unfinished run has left in the work directory, with its results, and
    /// replace the output of one that has ended.
    #[arg(long)]
    pub restart: bool,

    /// How long calls in flight may go on after the first Ctrl-C or SIGTERM. A second one ends the program at once.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub grace: Duration,

    /// Settings file in TOML, as that of `serve`, whose other settings are ignored.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The inference server.
    #[command(flatten)]
    pub upstream: UpstreamConfig,
    /// How rows are run.
    #[command(flatten)]
    pub worker: WorkerConfig,
    /// How rows for `/v1/responses` are run.
    #[command(flatten)]
    pub responses: ResponsesConfig,
    /// The limits of the input file.
    #[command(flatten)]
    pub limits: InputLimits,
    /// The log.
    #[command(flatten)]
    pub log: LogConfig,
}

/// Defaults that differ from those of `serve`. A run has one user, whose file may have any size.
const DEFAULTS: [(&str, &str); 3] = [("max_batch_rows", "4294967295"), ("max_batch_bytes", "1PiB"), ("log", "warn")];

/// Settings of `serve` that mean nothing to a run: it has no other workers or batches, and nobody asks for its steps.
const MEANINGLESS: [&str; 5] =
    ["global_max_concurrency", "batch_priorities", "lease", "steps_retention", "metadata_headers"];

/// The command with the defaults of a run.
pub(super) fn with_defaults(mut command: Command) -> Command {
    for (id, value) in DEFAULTS {
        command = command.mut_arg(id, |arg| arg.default_value(value));
    }
    MEANINGLESS.into_iter().fold(command, |command, id| command.mut_arg(id, |arg| arg.hide(true)))
}

pub(super) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let progress = RunProgress::new();
    input::check(&args.input)?;
    let results = RunOutputs::new(&args)?;
    let directory = WorkDirectory::of(&args);
    if !args.restart
        && !directory.has_run()
        && let Some(report) = results.left_before(&args)?
    {
        progress.say(&format!(
            "{} has the lines of all {} rows already, of which {} failed; --restart runs all rows anew",
            results.places(),
            report.rows,
            report.failed()
        ));
        return Ok(Exit::of_ended(BatchStatus::Completed, report.failed()).into());
    }
    logs::start_with(&args.log.log, progress.log_writer())?;
    raise_limit_of_open_files();
    let settings = settings(&args, &directory)?;
    directory.prepare(args.restart)?;
    let mut engine = open(&settings, &directory).await?;
    let ended = tokio::select! {
        ended = work(&args, &settings, &mut engine, &results, &progress) => ended,
        () = shutdown::requested(true) => {
            stop(&args, engine, &progress).await;
            return Ok(Exit::Interrupted.into());
        }
    };
    match ended? {
        RunEnd::Paused(pause) => {
            engine.stop(args.grace).await;
            progress.say(&format!(
                "error: {} Mend the cause, and run the same command with --restart, which runs all rows anew; without \
                 it, these rows stay failed and the others run. With --pause-after-alike 0, a run goes on whatever its \
                 first rows come to",
                harmless(&pause.cause.message())
            ));
            Ok(Exit::Failed.into())
        }
        RunEnd::Refused(errors) => {
            close(engine, &directory).await;
            let fault = line_fault::first_of(&args.input, &errors);
            progress.say(error_lines(&input::name(&args.input), &errors, fault.as_ref()).trim_end());
            Ok(Exit::ValidationFailed.into())
        }
        RunEnd::Batch(batch) => {
            close(engine, &directory).await;
            progress.ended(&batch, &results);
            Ok(Exit::of_ended(batch.status, batch.counts.total - batch.counts.completed).into())
        }
    }
}

/// Ends a run of which nothing is left to do.
async fn close(mut engine: BatchEngine, directory: &WorkDirectory) {
    engine.stop(Duration::ZERO).await;
    drop(engine);
    directory.remove();
}

/// How a run ended.
enum RunEnd {
    /// The input was refused, and no row ran.
    Refused(Vec<BatchError>),
    /// All of the first rows failed alike, and no other row starts.
    Paused(Pause),
    /// The results are written.
    Batch(Box<Batch>),
}

/// Begins the batch or finds it, runs its rows, and writes its results.
async fn work(
    args: &RunArgs,
    settings: &ServeConfig,
    engine: &mut BatchEngine,
    results: &RunOutputs,
    progress: &RunProgress,
) -> anyhow::Result<RunEnd> {
    let batch = match batch::begin(args, engine).await? {
        RunBeginning::Refused(message) => return Ok(RunEnd::Refused(vec![super::check::refusal(message)])),
        RunBeginning::Batch(batch) => *batch,
    };
    // Not before: rows of an unfinished run over another input are not to be sent.
    engine.run_rows(settings, Recording::AtOnce)?;
    if let Some(upstreams) = engine.upstreams() {
        tokio::spawn(async move { upstreams.check().await });
    }
    let ended = batch::wait(engine, batch, progress).await;
    let batch = ended.context("the run has stopped, and the same command line goes on with it")?;
    if !batch.errors.is_empty() {
        return Ok(RunEnd::Refused(batch.errors));
    }
    if let (false, Some(pause)) = (batch.status.is_terminal(), batch.pause.clone()) {
        return Ok(RunEnd::Paused(pause));
    }
    results.write(engine, &batch).await?;
    Ok(RunEnd::Batch(Box::new(batch)))
}

/// The settings of a service that does the same, except for its address.
fn settings(args: &RunArgs, directory: &WorkDirectory) -> anyhow::Result<ServeConfig> {
    let mut settings = ServeConfig {
        upstream: args.upstream.clone(),
        worker: args.worker.clone(),
        responses: args.responses.clone(),
        log: args.log.clone(),
        ..ServeConfig::default()
    };
    settings.storage.data_dir = directory.data();
    settings.limits.input = args.limits.clone();
    if let Some(path) = &args.config {
        settings.responses.tools = ToolsConfig::read(path)?;
        settings.upstream.upstreams = UpstreamTable::read_all(path)?;
    }
    Ok(settings)
}

async fn open(settings: &ServeConfig, directory: &WorkDirectory) -> anyhow::Result<BatchEngine> {
    BatchEngine::open(settings).await.map_err(|error| {
        directory.remove_if_empty();
        match error {
            ServiceError::DataDirectoryInUse(_) => directory.in_use(),
            error => error.into(),
        }
    })
}

/// Stops an interrupted run, at once if it is interrupted again.
async fn stop(args: &RunArgs, mut engine: BatchEngine, progress: &RunProgress) {
    let grace = humantime::format_duration(args.grace);
    progress.say(&format!("stopping: calls in flight may go on for {grace}; Ctrl-C again stops at once"));
    tokio::select! {
        () = engine.stop(args.grace) => {}
        // Recorded lines are durable whenever the process ends.
        () = shutdown::requested(true) => {}
    }
    progress.interrupted();
}
