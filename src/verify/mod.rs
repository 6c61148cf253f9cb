//! Proves from a batch's files alone that every request has exactly one well-formed result line.
//!
//! Files are read line by line; only the ids stay in memory. The check needs no server, so that users can make it
//! themselves. Files are never changed.

mod line;
mod report;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::domain::splitter::BYTE_ORDER_MARK;
use line::Finding;
pub use report::VerifyReport;

/// Which files to check.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct VerifyArgs {
    /// The input file of the batch, as it was uploaded.
    #[arg(long, value_name = "PATH")]
    pub input: PathBuf,

    /// The output file of the batch; left out if no request succeeded.
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,

    /// The error file of the batch; left out if every request succeeded. The output file again if it has the lines of
    /// failed requests too, as that of `run` without `--error-file`.
    #[arg(long, value_name = "PATH")]
    pub errors: Option<PathBuf>,
}

/// Why the check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Checks the result files of a batch against its input file.
///
/// # Errors
/// A file cannot be read. Errors within the files are in the report.
pub fn verify(args: &VerifyArgs) -> Result<VerifyReport, VerifyError> {
    let mut check = Check::default();
    check.input(&args.input)?;
    match (&args.output, &args.errors) {
        (Some(output), Some(errors)) if output == errors => {
            let lines = check.results(output, line::output_or_error)?;
            check.report.error_lines = check.report.failed();
            check.report.output_lines = lines - check.report.error_lines;
        }
        (output, errors) => {
            if let Some(path) = output {
                check.report.output_lines = check.results(path, line::output)?;
            }
            if let Some(path) = errors {
                check.report.error_lines = check.results(path, line::error)?;
            }
        }
    }
    check.unanswered(&args.input);
    Ok(check.report)
}

/// The state of a check.
#[derive(Default)]
struct Check<'a> {
    /// The requests by `custom_id`.
    requests: HashMap<String, InputRequest<'a>>,
    /// The position of each line id.
    line_ids: HashMap<String, LinePosition<'a>>,
    /// The lines without a `custom_id`, by the row number at the end of their id.
    nameless: HashMap<u32, LinePosition<'a>>,
    report: VerifyReport,
}

struct InputRequest<'a> {
    /// The line of the input file.
    line: u64,
    /// The row number: its position among the lines that are not blank, counted from 0.
    row: u64,
    /// The first result line found for it.
    result: Option<LinePosition<'a>>,
}

#[derive(Clone, Copy)]
struct LinePosition<'a> {
    path: &'a Path,
    line: u64,
}

impl<'a> Check<'a> {
    fn input(&mut self, path: &'a Path) -> Result<(), VerifyError> {
        for_each_line(path, |number, bytes| {
            if bytes.trim_ascii().is_empty() {
                return;
            }
            self.report.rows += 1;
            let custom_id = match line::custom_id(bytes) {
                Ok(custom_id) => custom_id,
                Err(wrong) => return self.report.problem(path, number, format_args!("{wrong}")),
            };
            match self.requests.entry(custom_id.into_owned()) {
                Entry::Vacant(entry) => {
                    entry.insert(InputRequest { line: number, row: self.report.rows - 1, result: None });
                }
                Entry::Occupied(entry) => {
                    let (id, first) = (entry.key(), entry.get().line);
                    self.report.problem(path, number, format_args!("custom_id {id:?} is that of line {first}, too"));
                }
            }
        })
    }

    /// Checks one result file and says how many lines it has.
    fn results(
        &mut self,
        path: &'a Path,
        parse: fn(&[u8]) -> Result<Finding<'_>, line::Wrong>,
    ) -> Result<u64, VerifyError> {
        let mut lines = 0;
        for_each_line(path, |number, bytes| {
            if bytes.trim_ascii().is_empty() {
                return self.report.problem(path, number, format_args!("the line is blank"));
            }
            lines += 1;
            self.result(LinePosition { path, line: number }, parse(bytes.trim_ascii_end()));
        })?;
        Ok(lines)
    }

    fn result(&mut self, position: LinePosition<'a>, parsed: Result<Finding<'_>, line::Wrong>) {
        let finding = match parsed {
            Ok(finding) => finding,
            Err(wrong) => return self.report.problem(position.path, position.line, format_args!("{wrong}")),
        };
        let row = finding.row_if_nameless();
        match finding.outcome {
            Ok(line::LineOutcome::Status(status)) => *self.report.by_status.entry(status).or_default() += 1,
            Ok(line::LineOutcome::Code(code)) => match self.report.by_code.get_mut(&*code) {
                Some(count) => *count += 1,
                None => drop(self.report.by_code.insert(code.into_owned(), 1)),
            },
            Err(wrong) => self.report.problem(position.path, position.line, format_args!("{wrong}")),
        }
        self.line_id(position, &finding.id);
        match row {
            Some(row) => {
                self.report.nameless_lines += 1;
                // A second line with this row number has the same id, which is reported already.
                self.nameless.entry(row).or_insert(position);
            }
            None => self.custom_id(position, &finding.custom_id),
        }
    }

    fn line_id(&mut self, position: LinePosition<'a>, id: &str) {
        if !id.starts_with("batch_req_") {
            self.report.problem(position.path, position.line, format_args!("id {id:?} does not start with batch_req_"));
        }
        match self.line_ids.entry(id.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(position);
            }
            Entry::Occupied(entry) => {
                let first = entry.get();
                let message = format_args!("id {id:?} is that of {}:{}, too", first.path.display(), first.line);
                self.report.problem(position.path, position.line, message);
            }
        }
    }

    fn custom_id(&mut self, position: LinePosition<'a>, id: &str) {
        match self.requests.get_mut(id) {
            None => {
                let message = format_args!("custom_id {id:?} is of no request in the input file");
                self.report.problem(position.path, position.line, message);
            }
            Some(InputRequest { result: Some(first), .. }) => {
                let first = format_args!("{}:{}", first.path.display(), first.line);
                let message = format_args!("custom_id {id:?} has a second line; the first is {first}");
                self.report.problem(position.path, position.line, message);
            }
            Some(request) => request.result = Some(position),
        }
    }

    /// Reports the requests without a result line, in the order of the input file.
    fn unanswered(&mut self, input: &Path) {
        let mut without = Vec::new();
        for (id, request) in self.requests.iter().filter(|(_, request)| request.result.is_none()) {
            // A line without a `custom_id` belongs to the request with the row number in its id.
            let row = u32::try_from(request.row).ok();
            if row.and_then(|row| self.nameless.remove(&row)).is_none() {
                without.push((request.line, id));
            }
        }
        for position in self.nameless.values() {
            let message = format_args!("the line has no custom_id, and its id is of no request without another line");
            self.report.problem(position.path, position.line, message);
        }
        without.sort_unstable();
        for (line, id) in without {
            self.report.problem(input, line, format_args!("custom_id {id:?} has no line in the result files"));
        }
    }
}

/// Calls `each` with the number of every line, counted from 1, and its bytes with the newline if there is one. A byte
/// order mark, which editors put before the first line, is left out.
fn for_each_line(path: &Path, mut each: impl FnMut(u64, &[u8])) -> Result<(), VerifyError> {
    let failed = |source| VerifyError::Read { path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let mark = if number == 1 { BYTE_ORDER_MARK } else { b"" };
        each(number, line.strip_prefix(mark).unwrap_or(&line));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
