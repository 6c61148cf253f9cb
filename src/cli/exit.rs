//! The exit codes of the commands that run, watch or fetch batches. README.md has the same table.

use std::io;
use std::process::ExitCode;

use crate::client::{ClientError, RemoteBatch};
use crate::domain::batch::BatchStatus;

/// How a command ended. Of several ends, such as those of several batches, the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exit {
    /// All is well. If the command waited for a batch, every row succeeded.
    Well,
    /// The batch completed, and some of its rows failed.
    RowsFailed,
    /// The batch was cancelled.
    Cancelled,
    /// The window of the batch closed before every row had run.
    Expired,
    /// The input file was refused: no row ran.
    ValidationFailed,
    /// The server could not be reached.
    Unreachable,
    /// The command line is wrong.
    Usage,
    /// Any other error.
    Failed,
    /// The user interrupted the command. The batch goes on.
    Interrupted,
}

impl Exit {
    /// The number of the exit code.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::RowsFailed => 3,
            Self::ValidationFailed => 4,
            Self::Expired => 5,
            Self::Cancelled => 6,
            Self::Unreachable => 7,
            Self::Interrupted => 130,
        }
    }

    /// The exit of a command that waited for a batch, which has ended with this status and so many failed rows.
    pub(super) fn of_ended(status: BatchStatus, failed: u64) -> Self {
        match status {
            BatchStatus::Failed => Self::ValidationFailed,
            BatchStatus::Expired => Self::Expired,
            BatchStatus::Cancelling | BatchStatus::Cancelled => Self::Cancelled,
            _ if failed > 0 => Self::RowsFailed,
            _ => Self::Well,
        }
    }

    /// The exit of a command that waited for this batch, which has ended.
    pub(super) fn of_batch(batch: &RemoteBatch) -> Self {
        Self::of_ended(batch.status, batch.request_counts.failed)
    }

    /// The exit of a command that failed, or `None` if its reader has closed standard output (`… | head`), which is no
    /// error and needs no message.
    pub(super) fn of_error(error: &anyhow::Error) -> Option<Self> {
        let is_closed_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        for cause in error.chain() {
            if cause.downcast_ref::<io::Error>().is_some_and(is_closed_pipe) {
                return None;
            }
            match cause.downcast_ref::<ClientError>() {
                Some(ClientError::Unreachable(_) | ClientError::TimedOut) => return Some(Self::Unreachable),
                Some(ClientError::Io(error)) if is_closed_pipe(error) => return None,
                _ => {}
            }
            if cause.is::<UsageError>() {
                return Some(Self::Usage);
            }
        }
        Some(Self::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A mistake in the command line that only the command itself can find.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_of_a_batch_follows_from_its_status_and_its_failed_rows() {
        let cases = [
            (BatchStatus::Completed, 0, 0),
            (BatchStatus::Completed, 1, 3),
            (BatchStatus::Failed, 0, 4),
            (BatchStatus::Expired, 7, 5),
            (BatchStatus::Cancelled, 7, 6),
        ];
        for (status, failed, code) in cases {
            assert_eq!(Exit::of_ended(status, failed).code(), code, "{status} with {failed} failed rows");
        }
    }

    #[test]
    fn the_readme_has_every_exit_code_and_no_other() {
        let (_, rest) = include_str!("../../README.md").split_once("<!-- exits -->\n").expect("the table is marked");
        let (table, _) = rest.split_once("<!-- /exits -->").expect("its end is marked");
        let explained = table.lines().skip(2).filter_map(|row| row.split('|').nth(1)?.trim().parse().ok());
        let exits = [Exit::Well, Exit::Failed, Exit::Usage, Exit::RowsFailed, Exit::ValidationFailed, Exit::Expired];
        let codes = exits.into_iter().chain([Exit::Cancelled, Exit::Unreachable, Exit::Interrupted]).map(Exit::code);

        assert_eq!(explained.collect::<Vec<u8>>(), codes.collect::<Vec<u8>>());
    }

    #[test]
    fn the_exit_of_an_error_follows_from_its_cause() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let cases = [
            (anyhow::anyhow!("any"), Some(1)),
            (UsageError("wrong".to_owned()).into(), Some(2)),
            (ClientError::TimedOut.into(), Some(7)),
            (anyhow::Error::from(ClientError::Unreachable("away".to_owned())).context("no list"), Some(7)),
            (ClientError::BaseUrl.into(), Some(1)),
            (anyhow::Error::from(broken()).context("no list"), None),
            (ClientError::Io(broken()).into(), None),
        ];
        for (error, code) in cases {
            assert_eq!(Exit::of_error(&error).map(Exit::code), code, "{error:#}");
        }
    }
}
