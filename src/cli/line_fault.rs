//! Where the first line of an input file stops being JSON, and why. A server says only that it does.

use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;

use super::input;
use crate::domain::batch::BatchError;
use crate::domain::row::RowError;
use crate::intake::UploadRefusal;

/// The first line of a file that is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LineFault {
    /// The line, counted from 1.
    pub(super) line: u64,
    /// The byte of the line at which it stops being JSON, counted from 1.
    pub(super) column: usize,
    /// What is wrong there.
    pub(super) message: String,
}

/// The first such line of a file with these errors, unless none of them says that there is one. Standard input cannot
/// be read again.
pub(super) fn first_of(path: &Path, errors: &[BatchError]) -> Option<LineFault> {
    let refusals = [UploadRefusal::NotJsonLines, UploadRefusal::NotUtf8].map(|refusal| refusal.to_string());
    let is_no_json =
        |error: &BatchError| error.code == RowError::InvalidJson.code() || refusals.contains(&error.message);
    if input::is_standard(path) || !errors.iter().any(is_no_json) {
        return None;
    }
    let mut first = None;
    // The search ends with what is found; a file that is gone meanwhile has no fault.
    let found = input::for_each_line(path, |number, line| {
        first = fault_of(line).map(|(column, message)| LineFault { line: number, column, message });
        if first.is_some() { Err(anyhow::anyhow!("found")) } else { Ok(()) }
    });
    found.err().and(first)
}

/// At which byte a line stops being JSON, and why.
fn fault_of(line: &[u8]) -> Option<(usize, String)> {
    if line.starts_with(&[0xff, 0xfe]) || line.starts_with(&[0xfe, 0xff]) {
        return Some((1, "the file is UTF-16: save it as UTF-8".to_owned()));
    }
    let text = match str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            let byte = line[at];
            return Some((at + 1, format!("the byte {byte:#04x} is not UTF-8: save the file as UTF-8")));
        }
    };
    let error = serde_json::from_str::<&RawValue>(text).err()?;
    let column = error.column().max(1);
    let from = text.as_bytes().get(column - 1..).unwrap_or_default();
    let at_quote =
        ["\u{201c}", "\u{201d}", "\u{2018}", "\u{2019}"].iter().any(|quote| from.starts_with(quote.as_bytes()));
    let why = if at_quote {
        "a typographic quote, where JSON has \"".to_owned()
    } else if text.trim() == "[" {
        "the file is one JSON array: write each of its elements on a line of its own, such as with `jq -c '.[]'`"
            .to_owned()
    } else if text.trim_start().starts_with("\"{") {
        "the line is a quoted text: save the file as plain text instead of CSV".to_owned()
    } else if from.starts_with(b",") && error.to_string().starts_with("trailing characters") {
        "a comma behind the object".to_owned()
    } else {
        let text = error.to_string();
        text.split(" at line ").next().unwrap_or(&text).to_owned()
    };
    Some((column, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_json_says_where_and_why() {
        let good: [&[u8]; 2] = [br#"{"a":1}"#, br#"[{"a":1}]"#];
        assert_eq!(good.map(fault_of), [None, None]);
        let cases: [(&[u8], usize, &str); 8] = [
            (br#"{"a":1},"#, 8, "a comma behind the object"),
            ("{\u{201c}a\u{201d}:1}".as_bytes(), 2, "a typographic quote"),
            (b"[", 1, "one JSON array"),
            (br#""{""a"":1}""#, 4, "instead of CSV"),
            (b"a,b", 1, "expected value"),
            (br#"{"a":1"#, 6, "EOF while parsing an object"),
            (b"\"\xe9\"", 2, "0xe9 is not UTF-8"),
            (b"\xff\xfe{\0", 1, "UTF-16"),
        ];
        for (line, column, why) in cases {
            let found = fault_of(line).expect("it is no JSON");
            assert!(found.0 == column && found.1.contains(why), "{}: {found:?}", String::from_utf8_lossy(line));
        }
    }
}
