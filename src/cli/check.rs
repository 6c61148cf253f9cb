//! `batchwright check`: what a server would say of input files, without one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use bytesize::ByteSize;
use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use super::input;
use super::line_fault::{self, LineFault};
use super::output::print_text;
use crate::config::InputLimits;
use crate::domain::batch::BatchError;
use crate::domain::batch_endpoint::BatchEndpoint;
use crate::domain::endpoint::Endpoint;
use crate::domain::report::{IntakeLimits, Report};
use crate::intake::Indexer;

/// The arguments of `check`.
#[derive(Args, Debug, Clone)]
pub struct CheckArgs {
    /// Batch input files; `-` is standard input. The url of a file's first row is taken as the endpoint of its batch.
    #[arg(value_name = "INPUT", required = true)]
    pub inputs: Vec<PathBuf>,

    /// Print a JSON object for each file, one a line.
    #[arg(long)]
    pub json: bool,

    /// The limits, whose defaults are those of `serve`.
    #[command(flatten)]
    pub limits: InputLimits,
}

/// So many models are named in a summary.
const NAMED_MODELS: usize = 3;

/// What was found in a file.
#[derive(Serialize)]
struct CheckedFile {
    file: String,
    valid: bool,
    bytes: u64,
    rows: u64,
    models: Vec<RowCount>,
    urls: Vec<RowCount>,
    errors: Vec<BatchError>,
    /// Where the first line that is not JSON stops being it.
    first_fault: Option<LineFault>,
}

/// How many rows name a model or a url.
#[derive(Serialize)]
struct RowCount {
    name: String,
    rows: u64,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut exit = Exit::Well;
    for path in &args.inputs {
        let checked = check(path, &args.limits)?;
        print_text(&if args.json { serde_json::to_string(&checked)? + "\n" } else { checked.text() })?;
        if !checked.valid {
            exit = Exit::ValidationFailed;
        }
    }
    Ok(exit.into())
}

fn check(path: &Path, limits: &InputLimits) -> anyhow::Result<CheckedFile> {
    let intake = IntakeLimits { orders_by_prompt: false, ..limits.intake() };
    let mut indexer = Indexer::new(&intake);
    let mut bytes = 0;
    let read = input::for_each_chunk(path, |chunk| {
        bytes += chunk.len() as u64;
        // The rest is not read: the server does not read it either.
        if bytes > intake.max_file_bytes {
            return Err(anyhow!(TooLarge));
        }
        indexer.push(chunk);
        Ok(())
    });
    let refused = match read {
        Err(error) if error.is::<TooLarge>() => Err(error.to_string()),
        Err(error) => return Err(error),
        Ok(()) => indexer.finish().map(|found| found.report).map_err(|refusal| refusal.to_string()),
    };
    let (report, errors) = match refused {
        Ok(report) => {
            let errors = report.lanes(endpoint(&report), bytes, &limits.batch()).err().unwrap_or_default();
            (report, errors)
        }
        Err(message) => (Report::default(), vec![refusal(message)]),
    };
    let models = report.models.into_iter().map(|model| RowCount { name: model.model, rows: model.rows.into() });
    let urls = report.urls.into_iter().map(|url| RowCount { name: url.url, rows: url.rows });
    Ok(CheckedFile {
        file: input::name(path),
        valid: errors.is_empty(),
        bytes,
        rows: report.rows,
        models: models.collect(),
        urls: urls.collect(),
        first_fault: line_fault::first_of(path, &errors),
        errors,
    })
}

/// A file has more bytes than any may have.
#[derive(Debug, thiserror::Error)]
#[error("File is too large.")]
struct TooLarge;

/// The endpoint of a batch over a file: the url of its first row. Without a good row, every endpoint has the same
/// errors.
fn endpoint(report: &Report) -> BatchEndpoint {
    report.urls.first().and_then(|rows| BatchEndpoint::named(&rows.url)).unwrap_or(Endpoint::ChatCompletions.into())
}

/// The error of a file whose upload is refused.
pub(super) fn refusal(message: String) -> BatchError {
    BatchError { code: "invalid_file".to_owned(), message, param: None, line: None }
}

/// The errors of a file, one a line, as compilers have them.
pub(super) fn error_lines(file: &str, errors: &[BatchError], fault: Option<&LineFault>) -> String {
    let mut text = String::new();
    for BatchError { code, message, line, .. } in errors {
        let place = line.map_or_else(String::new, |line| format!(":{line}"));
        writeln!(text, "{file}{place}: {code}: {message}").expect("a String takes all");
    }
    if let Some(LineFault { line, column, message }) = fault {
        writeln!(text, "{file}:{line}:{column}: {message}").expect("a String takes all");
    }
    text
}

impl CheckedFile {
    fn text(&self) -> String {
        let mut text = error_lines(&self.file, &self.errors, self.first_fault.as_ref());
        let verdict = if self.valid { "OK" } else { "NOT OK" };
        let (rows, bytes) = (self.rows, ByteSize(self.bytes));
        let (models, urls) = (listed(&self.models), listed(&self.urls));
        writeln!(text, "{}: {verdict}: {rows} rows, {bytes}; models: {models}; urls: {urls}", self.file)
            .expect("a String takes all");
        text
    }
}

fn listed(counts: &[RowCount]) -> String {
    let shown = |count: &RowCount| {
        let name = if count.name.is_empty() { "(the server's own)" } else { &count.name };
        format!("{name} ({})", count.rows)
    };
    let mut names: Vec<_> = counts.iter().take(NAMED_MODELS).map(shown).collect();
    if counts.len() > NAMED_MODELS {
        names.push(format!("{} others", counts.len() - NAMED_MODELS));
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
