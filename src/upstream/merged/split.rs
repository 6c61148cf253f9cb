//! Bodies of embeddings rows as one body, and the answer to it as theirs.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::domain::outcome::HttpResponse;
use crate::domain::response::Fields;

/// Bytes of an answer that is held without a reservation.
const LARGEST: usize = 256 << 10;

/// The body of a row: its inputs, and what it has beside them.
#[derive(Debug)]
pub(super) struct EmbeddingsRow {
    inputs: Vec<Box<RawValue>>,
    /// All other members, as they were written.
    common: Bytes,
}

impl EmbeddingsRow {
    /// A body whose input is a text or a list of texts.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::read(body).ok()?;
        let input = fields.remove("input")?;
        let inputs: Vec<Box<RawValue>> =
            if is_text(&input) { vec![input] } else { serde_json::from_str(input.get()).ok()? };
        let are_texts = !inputs.is_empty() && inputs.iter().all(|input| is_text(input));
        are_texts.then(|| Self { inputs, common: fields.to_json().into() })
    }

    /// How many texts it has.
    pub(super) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Bytes of its texts.
    pub(super) fn bytes(&self) -> usize {
        self.inputs.iter().map(|input| input.get().len()).sum()
    }

    /// What rows of one call have in common.
    pub(super) fn common(&self) -> &Bytes {
        &self.common
    }
}

fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// The body for the inputs of all rows, which have all else in common.
pub(super) fn merged(rows: &[&EmbeddingsRow]) -> Bytes {
    let mut fields = rows.first().and_then(|row| Fields::read(&row.common).ok()).unwrap_or_default();
    let inputs: Vec<&RawValue> = rows.iter().flat_map(|row| &row.inputs).map(|input| &**input).collect();
    fields.set("input", &inputs);
    fields.to_json().into()
}

/// The answers of the rows in an answer to all of them. None if it does not have exactly one embedding for each input,
/// or if a row's part of it is larger than [`LARGEST`].
pub(super) fn split(response: &HttpResponse, rows: &[&EmbeddingsRow]) -> Option<Vec<HttpResponse>> {
    let object = Fields::read(&response.body).ok()?;
    let data: Vec<Fields> = object.get("data").ok()??;
    let mut data: Vec<(u64, Fields)> =
        data.into_iter().map(|entry| Some((entry.get("index").ok()??, entry))).collect::<Option<_>>()?;
    data.sort_by_key(|(index, _)| *index);
    let inputs: usize = rows.iter().map(|row| row.inputs()).sum();
    let are_all = data.len() == inputs && (0..).zip(&data).all(|(place, (index, _))| place == *index);
    if !are_all {
        return None;
    }
    let usage: Option<Fields> = object.get("usage").ok()?;
    let mut shares = usage.map(|usage| UsageShares::new(usage, rows.iter().map(|row| row.bytes()).sum()));
    let mut data = data.into_iter().map(|(_, entry)| entry);
    let answers = rows.iter().map(|row| {
        let mut own = object.clone();
        let entries = data.by_ref().take(row.inputs()).enumerate().map(|(index, mut entry)| {
            entry.set("index", &index);
            entry
        });
        own.set("data", &entries.collect::<Vec<_>>());
        if let Some(shares) = &mut shares {
            own.set("usage", &shares.next(row.bytes()));
        }
        let body = Bytes::from(own.to_json());
        (body.len() <= LARGEST).then(|| HttpResponse { body, ..response.clone() })
    });
    answers.collect()
}

/// The usage of a call, shared out among its rows by the bytes of their texts. The shares add up to the whole.
struct UsageShares {
    usage: Fields,
    all: u64,
    /// Bytes of the rows that have their shares.
    before: u64,
}

impl UsageShares {
    fn new(usage: Fields, all: usize) -> Self {
        Self { usage, all: (all as u64).max(1), before: 0 }
    }

    fn next(&mut self, bytes: usize) -> Fields {
        let (from, to) = (self.before, self.before + bytes as u64);
        self.before = to;
        let part = |count: u64, end: u64| u64::try_from(u128::from(count) * u128::from(end) / u128::from(self.all));
        let mut share = self.usage.clone();
        for (name, value) in self.usage.iter() {
            if let Ok(count) = value.get().parse::<u64>()
                && let (Ok(end), Ok(start)) = (part(count, to), part(count, from))
            {
                share.set(name, &(end - start));
            }
        }
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(body: &str) -> EmbeddingsRow {
        EmbeddingsRow::read(body.as_bytes()).expect("a row")
    }

    fn answer(body: &str) -> HttpResponse {
        HttpResponse { status: 200, body: body.to_owned().into(), ..HttpResponse::default() }
    }

    #[test]
    fn rows_whose_inputs_are_texts_can_be_one_call() {
        let cases = [
            (r#"{"model":"m","input":"a"}"#, Some(1)),
            (r#"{"model":"m","input":["a","b"],"dimensions":8}"#, Some(2)),
            (r#"{"model":"m","input":[]}"#, None),
            (r#"{"model":"m","input":[1,2]}"#, None),
            (r#"{"model":"m","input":[[1],[2]]}"#, None),
            (r#"{"model":"m","input":["a",1]}"#, None),
            (r#"{"model":"m"}"#, None),
            ("[]", None),
        ];
        for (body, inputs) in cases {
            assert_eq!(EmbeddingsRow::read(body.as_bytes()).map(|row| row.inputs()), inputs, "{body}");
        }
        assert_eq!(row(r#"{"input":"a","model":"m"}"#).common(), row(r#"{"model":"m","input":["b"]}"#).common());
        assert_ne!(row(r#"{"input":"a","model":"m"}"#).common(), row(r#"{"model":"n","input":"a"}"#).common());
    }

    #[test]
    fn each_row_gets_its_own_object() {
        let rows = [row(r#"{"model":"m","input":"aa"}"#), row(r#"{"model":"m","input":["bbbb","cc"]}"#)];
        let rows: Vec<&EmbeddingsRow> = rows.iter().collect();
        assert_eq!(merged(&rows), &br#"{"model":"m","input":["aa","bbbb","cc"]}"#[..]);

        let entry =
            |index: u32, number: &str| format!(r#"{{"object":"embedding","index":{index},"embedding":[{number}]}}"#);
        let data = [entry(2, "3.0"), entry(0, "1.10"), entry(1, "2e0")].join(",");
        let whole = format!(
            r#"{{"object":"list","data":[{data}],"model":"m","usage":{{"prompt_tokens":7,"total_tokens":7}}}}"#
        );
        let answers = split(&answer(&whole), &rows).expect("it has all");

        let body = |data: String, tokens: u32| {
            let usage = format!(r#"{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}"#);
            format!(r#"{{"object":"list","data":[{data}],"model":"m","usage":{usage}}}"#)
        };
        // 4 of 14 bytes, and the rest.
        assert_eq!(answers[0].body, body(entry(0, "1.10"), 2));
        assert_eq!(answers[1].body, body([entry(0, "2e0"), entry(1, "3.0")].join(","), 5));
    }

    #[test]
    fn an_answer_that_is_not_one_for_each_input_is_no_answer() {
        let rows = [row(r#"{"input":"a"}"#), row(r#"{"input":"b"}"#)];
        let rows: Vec<&EmbeddingsRow> = rows.iter().collect();
        let cases = [
            "x",
            "{}",
            r#"{"data":[{"index":0}]}"#,
            r#"{"data":[{"index":0},{"index":0}]}"#,
            r#"{"data":[{"index":0},{"index":2}]}"#,
            r#"{"data":[{"index":0},{"index":1},{"index":2}]}"#,
            r#"{"data":[{"index":0},{}]}"#,
        ];
        for body in cases {
            assert!(split(&answer(body), &rows).is_none(), "{body}");
        }
        assert!(split(&answer(r#"{"data":[{"index":1},{"index":0}]}"#), &rows).is_some(), "usage is not needed");
    }
}
