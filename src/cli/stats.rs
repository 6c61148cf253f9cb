//! `batchwright stats`: what is in an input file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::input;
use super::output::{OutputArgs, Tabled};

/// The arguments of `stats`.
#[derive(Args, Debug, Clone)]
pub struct StatsArgs {
    /// Batch input file; `-` is standard input.
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Members of objects whose texts are not read by a model.
const NOT_PROMPT: [&str; 9] = ["role", "type", "name", "id", "url", "image_url", "input_audio", "file_data", "file_id"];

/// What a file has.
#[derive(Default, Serialize)]
struct FileStats {
    rows: u64,
    bytes: u64,
    models: BTreeMap<String, u64>,
    urls: BTreeMap<String, u64>,
    row_bytes: Distribution,
    prompt_characters: Distribution,
    duplicate_custom_ids: u64,
    duplicate_bodies: u64,
    /// Lines that cannot be read as rows.
    bad_lines: u64,
}

/// Numbers, of which the smallest, the largest and the one in the middle are asked for. Equal numbers cost no more than
/// one.
#[derive(Default)]
struct Distribution(BTreeMap<u64, u64>);

#[derive(Deserialize)]
struct StatsRow<'a> {
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct StatsBody {
    #[serde(default)]
    model: String,
    instructions: Option<Value>,
    messages: Option<Value>,
    input: Option<Value>,
    prompt: Option<Value>,
}

pub(super) fn run(args: &StatsArgs) -> anyhow::Result<ExitCode> {
    let mut stats = FileStats::default();
    let (mut ids, mut bodies) = (TextHashes::default(), TextHashes::default());
    input::for_each_row(&args.input, |row| {
        stats.rows += 1;
        stats.bytes += row.len() as u64 + 1;
        stats.row_bytes.add(row.len() as u64);
        let read = serde_json::from_slice::<StatsRow<'_>>(row);
        let read = read.and_then(|row| Ok((serde_json::from_str::<StatsBody>(row.body.get())?, row)));
        let Ok((body, StatsRow { custom_id, url, body: text })) = read else {
            stats.bad_lines += 1;
            return Ok(());
        };
        stats.duplicate_custom_ids += u64::from(ids.has_seen(&custom_id));
        stats.duplicate_bodies += u64::from(bodies.has_seen(text.get()));
        *stats.urls.entry(url.into_owned()).or_default() += 1;
        let texts = [body.instructions, body.messages, body.input, body.prompt];
        stats.prompt_characters.add(texts.iter().flatten().map(characters).sum());
        *stats.models.entry(body.model).or_default() += 1;
        Ok(())
    })?;
    args.output.print_one(&stats)?;
    Ok(ExitCode::SUCCESS)
}

/// The characters of all texts in a value that may be a part of the prompt.
fn characters(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.chars().count() as u64,
        Value::Array(values) => values.iter().map(characters).sum(),
        Value::Object(members) => {
            let read = members.iter().filter(|(name, _)| !NOT_PROMPT.contains(&name.as_str()));
            read.map(|(_, value)| characters(value)).sum()
        }
        _ => 0,
    }
}

/// Hashes of texts, a few bytes for each.
#[derive(Default)]
struct TextHashes {
    seen: HashSet<u64>,
    keys: RandomState,
}

impl TextHashes {
    fn has_seen(&mut self, text: &str) -> bool {
        !self.seen.insert(self.keys.hash_one(text))
    }
}

impl Distribution {
    fn add(&mut self, number: u64) {
        *self.0.entry(number).or_default() += 1;
    }

    /// The smallest, the one in the middle, the largest and the sum; of none, four zeros.
    fn figures(&self) -> [u64; 4] {
        let count: u64 = self.0.values().sum();
        let mut before = 0;
        let median = self.0.iter().find(|(_, times)| {
            before += **times;
            before * 2 >= count
        });
        let sum = self.0.iter().map(|(number, times)| number * times).sum();
        let numbers = [self.0.first_key_value(), median, self.0.last_key_value()];
        let [least, median, most] = numbers.map(|entry| entry.map_or(0, |(number, _)| *number));
        [least, median, most, sum]
    }
}

impl Serialize for Distribution {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [min, median, max, total] = self.figures();
        serde_json::json!({ "min": min, "median": median, "max": max, "total": total }).serialize(serializer)
    }
}

impl Tabled for FileStats {
    const COLUMNS: &'static [&'static str] = &[
        "ROWS",
        "BYTES",
        "MODELS",
        "URLS",
        "BYTES OF A ROW",
        "CHARACTERS OF A PROMPT",
        "CHARACTERS OF ALL PROMPTS",
        "DUPLICATE IDS",
        "DUPLICATE BODIES",
        "BAD LINES",
    ];

    fn cells(&self) -> Vec<String> {
        let listed = |counts: &BTreeMap<String, u64>| {
            let shown = counts.iter().map(|(name, rows)| format!("{name} ({rows})"));
            shown.collect::<Vec<_>>().join(", ")
        };
        let spread = |of: &Distribution| {
            let [least, median, most, _] = of.figures();
            format!("{least} to {most}, median {median}")
        };
        let [.., characters] = self.prompt_characters.figures();
        vec![
            self.rows.to_string(),
            format!("{} ({})", self.bytes, ByteSize(self.bytes)),
            listed(&self.models),
            listed(&self.urls),
            spread(&self.row_bytes),
            spread(&self.prompt_characters),
            characters.to_string(),
            self.duplicate_custom_ids.to_string(),
            self.duplicate_bodies.to_string(),
            self.bad_lines.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_numbers_are_the_least_the_middle_the_most_and_the_sum() {
        let cases: [(&[u64], [u64; 4]); 4] =
            [(&[], [0; 4]), (&[7], [7, 7, 7, 7]), (&[3, 1, 2], [1, 2, 3, 6]), (&[5, 1, 1, 1, 9], [1, 1, 9, 17])];
        for (numbers, expected) in cases {
            let mut distribution = Distribution::default();
            for number in numbers {
                distribution.add(*number);
            }

            assert_eq!(distribution.figures(), expected, "{numbers:?}");
        }
    }

    #[test]
    fn the_characters_of_a_prompt_are_those_of_its_texts() {
        let messages = serde_json::json!([
            { "role": "system", "content": "Grüß" },
            { "role": "user", "content": [
                { "type": "text", "text": "abc" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } },
            ] },
        ]);

        assert_eq!(characters(&messages), 7);
    }
}
