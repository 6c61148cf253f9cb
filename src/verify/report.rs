//! The report of a check, and its text for a terminal.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Problems that are kept with their text; further ones are only counted.
const KEPT_PROBLEMS: usize = 20;

/// The report about the files of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Requests: the lines of the input file that are not blank.
    pub rows: u64,
    /// Lines of the output file, without blank ones.
    pub output_lines: u64,
    /// Lines of the error file, without blank ones.
    pub error_lines: u64,
    /// The number of lines in both files for each status code.
    pub by_status: BTreeMap<u16, u64>,
    /// The number of lines in the error file for each error code.
    pub by_code: BTreeMap<String, u64>,
    /// Lines of the error file without a `custom_id`, for requests that could no longer be read.
    pub nameless_lines: u64,
    /// The first problems: the file, the number of the line, and what is wrong there.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problem_count: u64,
}

impl VerifyReport {
    /// Whether every request has exactly one line, and every line is well-formed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.problem_count == 0
    }

    /// The lines of requests that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        let refused = self.by_status.iter().filter(|(status, _)| !(200..300).contains(*status));
        refused.map(|(_, lines)| lines).sum::<u64>() + self.by_code.values().sum::<u64>()
    }

    pub(super) fn problem(&mut self, path: &Path, line: u64, what: fmt::Arguments<'_>) {
        self.problem_count += 1;
        if self.problems.len() < KEPT_PROBLEMS {
            self.problems.push(format!("{}:{line}: {what}", path.display()));
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, output_lines, error_lines, .. } = self;
        writeln!(f, "{rows} requests, {output_lines} lines in the output file, {error_lines} in the error file")?;
        for (status, count) in &self.by_status {
            writeln!(f, "  {count:>8}  status {status}")?;
        }
        for (code, count) in &self.by_code {
            writeln!(f, "  {count:>8}  {code}")?;
        }
        if self.nameless_lines > 0 {
            writeln!(f, "  {:>8}  without a custom_id, told by the row number in their id", self.nameless_lines)?;
        }
        if self.holds() {
            return write!(f, "OK: every one of {rows} requests has exactly one line");
        }
        write!(f, "NOT OK: {} problem{}", self.problem_count, if self.problem_count == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        match self.problem_count - self.problems.len() as u64 {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}
