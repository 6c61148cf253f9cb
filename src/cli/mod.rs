//! The command line: one file for each command.

mod demo;
mod exit;
mod migrate;
mod output;
mod remote;
mod serve;
mod shutdown;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::{Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use demo::DemoArgs;
use exit::Exit;
use output::say;
pub use serve::ServeArgs;

use crate::config::{ConfigError, StorageConfig, layered};
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
    /// Bring the database up to date and end. `serve` does it too, when it starts.
    Migrate(StorageConfig),
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
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// The command with the environment and the settings file under the flags of those that have settings.
fn command(arguments: &[OsString]) -> Result<Command, ConfigError> {
    let mut command = Cli::command();
    for name in ["serve", "migrate"] {
        let at = arguments.iter().position(|argument| argument == name);
        if let Some(found) = command.find_subcommand_mut(name) {
            *found = layered(found.clone(), at.map_or(&[], |at| &arguments[at..]))?;
        }
    }
    Ok(command)
}

/// The command `serve` as `--help` has it, for the tables of the documentation.
///
/// # Panics
/// Never: the command is there.
#[must_use]
pub fn serve_command() -> Command {
    let mut command = Cli::command();
    command.build();
    command.find_subcommand("serve").expect("the command has it").clone()
}

fn execute(action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Serve(args) => block_on(serve::run(*args)),
        Action::Migrate(config) => block_on(migrate::run(config)),
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
