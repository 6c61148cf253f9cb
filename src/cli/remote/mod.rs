//! The commands that speak to a server, as any client does.
//!
//! Results go to standard output and all else to standard error. The commands keep nothing on disk but what they are
//! asked to write: a command that was interrupted goes on when it is run again.

mod batches;
mod files;
mod input;
mod objects;
mod results;
mod retry;
mod server;
mod submit;
mod watch;

use std::process::ExitCode;

use clap::Subcommand;

use super::exit::Exit;
use super::output::say;
use server::Interruption;

/// The commands of a client.
#[derive(Subcommand)]
pub(super) enum RemoteAction {
    /// Upload an input file and create a batch of it.
    Submit(Box<submit::SubmitArgs>),
    /// Show how batches get on, until they have ended.
    Watch(watch::WatchArgs),
    /// Fetch the result lines of a batch.
    Results(results::ResultsArgs),
    /// Show a batch.
    Status(batches::StatusArgs),
    /// List batches, the newest first.
    List(batches::ListArgs),
    /// Cancel batches. Each keeps the results that it has.
    Cancel(batches::SteerArgs),
    /// Pause batches: calls under way end, and no new row starts. The window goes on.
    Pause(batches::SteerArgs),
    /// Let paused batches go on.
    Resume(batches::SteerArgs),
    /// Create a batch of the rows of another one that did not succeed.
    Retry(retry::RetryArgs),
    /// List, show, upload, download and delete files.
    #[command(subcommand)]
    Files(files::FilesAction),
}

/// Runs a command to its end, or until the user interrupts it.
pub(super) async fn run(action: RemoteAction) -> anyhow::Result<ExitCode> {
    let interruption = Interruption::default();
    // A task of its own, so that a reader of standard output that has stopped reading does not keep the signal away.
    let work = tokio::spawn(execute(action, interruption.clone()));
    tokio::select! {
        done = work => Ok(done??.into()),
        _ = tokio::signal::ctrl_c() => {
            say(format!("\ninterrupted{}", interruption.hint()));
            Ok(Exit::Interrupted.into())
        }
    }
}

async fn execute(action: RemoteAction, interruption: Interruption) -> anyhow::Result<Exit> {
    match action {
        RemoteAction::Submit(args) => submit::run(*args, &interruption).await,
        RemoteAction::Watch(args) => watch::run(args, &interruption).await,
        RemoteAction::Results(args) => results::run(args, &interruption).await,
        RemoteAction::Status(args) => batches::status(args).await,
        RemoteAction::List(args) => batches::list(args).await,
        RemoteAction::Cancel(args) => batches::steer(args, batches::Verb::Cancel).await,
        RemoteAction::Pause(args) => batches::steer(args, batches::Verb::Pause).await,
        RemoteAction::Resume(args) => batches::steer(args, batches::Verb::Resume).await,
        RemoteAction::Retry(args) => retry::run(args).await,
        RemoteAction::Files(action) => files::run(action).await,
    }
}
