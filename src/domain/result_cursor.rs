//! How far the results of a batch were read.

use std::fmt;

use super::text_enum::text_enum;

/// A result cursor: the bytes that were read of each result file of a batch. Both files only grow at their ends, so a
/// cursor keeps its place while the batch runs and after.
///
/// Printed as both numbers with `-` between them; to clients it is opaque.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResultCursor {
    /// Of the output file.
    pub output: u64,
    /// Of the error file.
    pub errors: u64,
}

text_enum! {
    /// Which result lines are read.
    pub enum ResultKind {
        /// Those of both files.
        All = "all",
        /// Those of the output file: the rows that succeeded.
        Output = "output",
        /// Those of the error file: all other rows.
        Errors = "errors",
    }
}

impl ResultKind {
    /// Whether lines of the output file are read.
    #[must_use]
    pub fn has_output(self) -> bool {
        self != Self::Errors
    }

    /// Whether lines of the error file are read.
    #[must_use]
    pub fn has_errors(self) -> bool {
        self != Self::Output
    }
}

impl ResultCursor {
    /// Reads the printed form; `None` for anything this program never prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (output, errors) = text.split_once('-')?;
        let cursor = Self { output: output.parse().ok()?, errors: errors.parse().ok()? };
        (cursor.to_string() == text).then_some(cursor)
    }
}

impl fmt::Display for ResultCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.output, self.errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_printing_and_nothing_else_is_one() {
        for cursor in [ResultCursor::default(), ResultCursor { output: u64::MAX, errors: 7 }] {
            assert_eq!(ResultCursor::parse(&cursor.to_string()), Some(cursor));
        }
        for text in ["", "-", "1", "1-", "-1", "01-2", "+1-2", "1-2-3", "1-2 ", "18446744073709551616-0", "x-y"] {
            assert_eq!(ResultCursor::parse(text), None, "{text}");
        }
    }
}
