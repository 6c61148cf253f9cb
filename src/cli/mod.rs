//! The command line: one file for each command.

mod check;
mod demo;
mod documentation;
mod exit;
mod input;
mod keys;
mod line_fault;
mod migrate;
mod output;
mod remote;
mod run;
mod sample;
mod serve;
mod shutdown;
mod split;
mod stats;
mod webhooks;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use check::CheckArgs;
pub use demo::DemoArgs;
pub use documentation::{CompletionsArgs, ManArgs};
use exit::Exit;
use output::say;
pub use run::RunArgs;
pub use sample::SampleArgs;
pub use serve::ServeArgs;
pub use split::SplitArgs;
pub use stats::StatsArgs;
pub use webhooks::WebhooksAction;

use crate::config::{ConfigError, StorageConfig, layered, variable_of};
use crate::simulator::{self, Simulator, SimulatorArgs};
use crate::telemetry::logs;
use crate::verify::{VerifyArgs, verify};

/// The OpenAI Files and Batch API for any OpenAI-compatible inference server.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Serve the API and run batches against an inference server.
    Serve(Box<ServeArgs>),
    /// Run a batch from an input file to its results, without a server.
    ///
    /// Every row gets exactly one line. Rows are tried again, wait while the inference server takes no calls, and are
    /// recorded as they end. A run that was killed goes on with the same command line: only rows whose calls were in
    /// flight are sent again. Exit code: 0 if all rows succeeded, 3 if rows failed, 4 if the input was refused, 130 if
    /// the run was interrupted, 2 if the command line is wrong, 1 otherwise.
    Run(Box<RunArgs>),
    /// Say what a server would find wrong with input files, line by line.
    ///
    /// Exit code: 0 if nothing is, 4 if something is.
    Check(CheckArgs),
    /// Print what is in an input file: rows, models, sizes, duplicates.
    Stats(StatsArgs),
    /// Print random rows of an input file, in its order.
    Sample(SampleArgs),
    /// Split an input file into parts that are within the limits of a batch, and print their names.
    ///
    /// The parts of in.jsonl are in-0001.jsonl and so on. Blank lines are left out.
    Split(SplitArgs),
    /// Bring the database up to date and end. `serve` does it too, when it starts.
    Migrate(StorageConfig),
    /// Make, list and revoke API keys, in the database itself. A service may run on it meanwhile.
    #[command(subcommand)]
    Keys(keys::KeysAction),
    /// List the events that webhooks are told, or send them again.
    #[command(subcommand)]
    Webhooks(WebhooksAction),
    /// Stand in for an inference server, for trying things out and for tests.
    Simulate(SimulatorArgs),
    /// Show everything at work: a server, a simulated upstream and one batch from upload to proof.
    Demo(DemoArgs),
    /// Prove from the files alone that every request of a batch has exactly one line.
    Verify(VerifyArgs),
    #[command(flatten)]
    Remote(remote::RemoteAction),
    /// Print the OpenAPI document.
    Openapi,
    /// Print a script that completes this command line in a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands.
    Man(ManArgs),
}

/// Runs the program with these arguments, the first of which is its name.
#[must_use]
pub fn run(arguments: &[OsString]) -> ExitCode {
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match execute(cli.action) {
        Ok(code) => code,
        Err(error) => match Exit::of_error(&error) {
            Some(exit) => {
                say(format!("error: {error:#}"));
                exit.into()
            }
            None => ExitCode::SUCCESS,
        },
    }
}

fn parse(arguments: &[OsString]) -> Result<Cli, ExitCode> {
    let command = command(arguments).map_err(|error| {
        say(format!("error: {error}"));
        ExitCode::from(2)
    })?;
    let matches = command.try_get_matches_from(arguments);
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| {
        // Help and version are "errors" too: they go to standard output and are a success.
        let _ = error.print();
        if let Some(source) = source_of_value(&error, arguments) {
            say(format!("The value is that of {source}."));
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// Where a wrong value of a flag comes from, if not from the command line.
fn source_of_value(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let is_value = matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue);
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg).filter(|_| is_value) else {
        return None;
    };
    let flag = named.split_whitespace().find(|word| word.starts_with("--"))?;
    let is_given = arguments.iter().any(|argument| argument.to_string_lossy().split('=').next() == Some(flag));
    let variable = variable_of(flag.trim_start_matches('-'));
    match std::env::var_os(&variable) {
        _ if is_given => None,
        Some(_) => Some(format!("the environment variable {variable}")),
        None => Some("the settings file".to_owned()),
    }
}

/// The command with the environment and the settings file under the flags of those that have settings.
fn command(arguments: &[OsString]) -> Result<Command, ConfigError> {
    let mut command = bare_command();
    for name in ["serve", "run", "migrate"] {
        layer(&mut command, name, arguments)?;
    }
    for (parent, names) in [("keys", &["create", "list", "revoke"][..]), ("webhooks", &["list", "replay"])] {
        let Some(parent) = command.find_subcommand_mut(parent) else { continue };
        for name in names {
            layer(parent, name, arguments)?;
        }
    }
    Ok(command)
}

/// Puts environment and settings file under the flags of a subcommand.
fn layer(command: &mut Command, name: &str, arguments: &[OsString]) -> Result<(), ConfigError> {
    let at = arguments.iter().position(|argument| argument == name);
    if let Some(found) = command.find_subcommand_mut(name) {
        *found = layered(found.clone(), at.map_or(&[], |at| &arguments[at..]))?;
    }
    Ok(())
}

fn bare_command() -> Command {
    let command = Cli::command().mut_subcommand("run", run::with_defaults);
    // The order in which rows would run makes no difference to a check.
    command.mut_subcommand("check", |check| check.mut_arg("row_order", |arg| arg.hide(true)))
}

/// The whole command line as `--help` has it, for documentation.
#[must_use]
pub fn documented_command() -> Command {
    let mut command = bare_command();
    command.build();
    command
}

fn execute(action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Serve(args) => block_on(serve::run(*args)),
        Action::Migrate(config) => block_on(migrate::run(config)),
        Action::Keys(action) => block_on(keys::run(action)),
        Action::Webhooks(action) => block_on(webhooks::run(action)),
        Action::Run(args) => block_on(run::run(*args)),
        Action::Check(args) => check::run(&args),
        Action::Stats(args) => stats::run(&args),
        Action::Sample(args) => sample::run(&args),
        Action::Split(args) => split::run(&args),
        Action::Demo(args) => block_on(demo::run(args)),
        Action::Simulate(args) => block_on(simulate(args)),
        Action::Verify(args) => {
            let report = verify(&args)?;
            println!("{report}");
            Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Action::Remote(action) => block_on(remote::run(action)),
        Action::Openapi => {
            print!("{}", crate::api::openapi::document_text());
            Ok(ExitCode::SUCCESS)
        }
        Action::Completions(args) => documentation::completions(bare_command(), &args),
        Action::Man(args) => documentation::man(bare_command(), &args),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A blocking read that hangs must not keep the process alive.
    runtime.shutdown_background();
    result
}

async fn simulate(args: SimulatorArgs) -> anyhow::Result<ExitCode> {
    logs::start("info")?;
    let listener = serve::listen(args.listen).await?;
    tracing::info!(address = %format!("http://{}/v1", listener.local_addr()?), latency = %args.latency, "simulating");
    simulator::serve(listener, Simulator::new(args), async {
        shutdown::requested(true).await;
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
