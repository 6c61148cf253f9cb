//! One line of an input, output or error file: whether it has the shape of the contract (§9.1 to §9.3).

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::domain::ids::row_of_line_id;
use crate::domain::line::NeverRan;

/// The error of one line.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("the line is not UTF-8")]
    NotUtf8,
    #[error("{part} is not a JSON object")]
    NotAnObject { part: &'static str },
    #[error("{part}: {}", without_line(source))]
    Shape { part: &'static str, source: serde_json::Error },
    #[error("error is not null; the output file has only requests that succeeded")]
    ErrorInOutput,
    #[error("status_code {status} stands in the output file, which has only 2xx")]
    FailedStatusInOutput { status: u16 },
    #[error("status_code {status} stands in the error file, which has none of 200 to 299")]
    GoodStatusInErrors { status: u16 },
    #[error("response and error are both null")]
    BothNull,
    #[error("response and error are both given")]
    BothGiven,
}

/// Removes the line number from a message: `serde_json` counts within this one line, so it is always 1.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or_default();
    format!("{message} (column {})", error.column())
}

/// A result line whose ids could be read.
pub struct Finding<'a> {
    pub id: Cow<'a, str>,
    pub custom_id: Cow<'a, str>,
    /// The outcome of the request, or the error in the rest of the line.
    pub outcome: Result<LineOutcome<'a>, Wrong>,
}

impl Finding<'_> {
    /// The number of the row that a line without a `custom_id` belongs to: its row could no longer be read, not even
    /// its name. `None` for lines that must have a `custom_id`.
    pub fn row_if_nameless(&self) -> Option<u32> {
        match &self.outcome {
            Ok(LineOutcome::Code(code)) if self.custom_id.is_empty() && *code == NeverRan::InputUnavailable.code() => {
                row_of_line_id(&self.id)
            }
            _ => None,
        }
    }
}

/// The outcome of a request, as its result line has it.
pub enum LineOutcome<'a> {
    /// The upstream answered with this status.
    Status(u16),
    /// There was no answer, for the reason with this code.
    Code(Cow<'a, str>),
}

#[derive(Deserialize)]
struct InputLine<'a> {
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
}

/// `response` and `error` are raw JSON, to tell an absent member from null.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResultLine<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
    #[serde(borrow)]
    response: &'a RawValue,
    #[serde(borrow)]
    error: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseMember<'a> {
    status_code: u16,
    #[serde(rename = "request_id", borrow)]
    _request_id: Cow<'a, str>,
    #[serde(rename = "body")]
    _body: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorMember<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(rename = "message", borrow)]
    _message: Cow<'a, str>,
}

/// The `custom_id` of a line of the input file.
pub fn custom_id(line: &[u8]) -> Result<Cow<'_, str>, Wrong> {
    let line = std::str::from_utf8(line).map_err(|_| Wrong::NotUtf8)?;
    let input: InputLine<'_> = object("the line", line)?;
    Ok(input.custom_id)
}

/// Reads a line of the output file.
pub fn output(line: &[u8]) -> Result<Finding<'_>, Wrong> {
    finding(line, |response, error| {
        let status = status(response)?;
        if error != "null" {
            return Err(Wrong::ErrorInOutput);
        }
        if (200..300).contains(&status) {
            Ok(LineOutcome::Status(status))
        } else {
            Err(Wrong::FailedStatusInOutput { status })
        }
    })
}

/// Reads a line of a file that is both the output and the error file.
pub fn output_or_error(line: &[u8]) -> Result<Finding<'_>, Wrong> {
    let failed = || error(line).ok().filter(|finding| finding.outcome.is_ok());
    let found = output(line)?;
    if found.outcome.is_ok() { Ok(found) } else { Ok(failed().unwrap_or(found)) }
}

/// Reads a line of the error file.
pub fn error(line: &[u8]) -> Result<Finding<'_>, Wrong> {
    finding(line, |response, error| match (response, error) {
        ("null", "null") => Err(Wrong::BothNull),
        ("null", error) => {
            let error: ErrorMember<'_> = object("error", error)?;
            Ok(LineOutcome::Code(error.code))
        }
        (response, "null") => match status(response)? {
            status @ 200..300 => Err(Wrong::GoodStatusInErrors { status }),
            status => Ok(LineOutcome::Status(status)),
        },
        (response, error) => {
            status(response)?;
            let error: ErrorMember<'_> = object("error", error)?;
            // Only these lines have both: the last answer, and the error about it.
            let is_about_answer = matches!(&*error.code, "schema_invalid" | "invalid_upstream_answer");
            if is_about_answer { Ok(LineOutcome::Code(error.code)) } else { Err(Wrong::BothGiven) }
        }
    })
}

fn finding<'a>(
    line: &'a [u8],
    judge: impl FnOnce(&'a str, &'a str) -> Result<LineOutcome<'a>, Wrong>,
) -> Result<Finding<'a>, Wrong> {
    let line = std::str::from_utf8(line).map_err(|_| Wrong::NotUtf8)?;
    let result: RawResultLine<'_> = object("the line", line)?;
    let outcome = judge(result.response.get(), result.error.get());
    Ok(Finding { id: result.id, custom_id: result.custom_id, outcome })
}

fn status(response: &str) -> Result<u16, Wrong> {
    let response: ResponseMember<'_> = object("response", response)?;
    Ok(response.status_code)
}

fn object<'a, T: Deserialize<'a>>(part: &'static str, text: &'a str) -> Result<T, Wrong> {
    // Derived deserializers accept an array in place of an object.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Wrong::NotAnObject { part });
    }
    serde_json::from_str(text).map_err(|source| Wrong::Shape { part, source })
}
