//! Reads a batch input file line by line, and makes the row index and the report.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::prompt_order::{Beginnings, by_beginning};
use crate::domain::batch::BatchError;
use crate::domain::endpoint::{Endpoint, Endpoints};
use crate::domain::index::IndexEntry;
use crate::domain::report::{IntakeLimits, MAX_KEPT, ModelRows, Report, UrlRows};
use crate::domain::row::{RowError, RowHead, inspect, shown};
use crate::domain::splitter::{Line, LineSplitter};

/// Models of one file. Each model has a lane of its own, and a file with more models is a mistake.
const MAX_MODELS: usize = 1000;
/// Bytes of one piece of the index.
const PIECE: usize = 256 << 10;

/// The result of reading a batch input file.
#[derive(Debug)]
pub struct Found {
    /// The row index in dispatch order: the pieces of its blob.
    pub index: Vec<Bytes>,
    /// The report.
    pub report: Report,
}

/// Why an upload is refused because its file cannot be a batch input file at all (contract §2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadRefusal {
    /// The file has no bytes.
    #[error("Invalid file format for Batch API. The file is empty.")]
    Empty,
    /// The first line that is not blank is not JSON.
    #[error("Invalid file format for Batch API. Must be .jsonl")]
    NotJsonLines,
    /// A line is not UTF-8.
    #[error("Invalid file for Batch API. Must be utf-8 encoded")]
    NotUtf8,
}

/// Reads the chunks of a file as they come.
pub struct Indexer {
    splitter: Option<LineSplitter>,
    rows: Rows,
    has_bytes: bool,
}

struct Rows {
    /// The most rows that are indexed.
    limit: u64,
    max_line_bytes: usize,
    orders_by_prompt: bool,
    endpoints: Endpoints,
    models: Vec<ModelEntries>,
    model_numbers: HashMap<String, usize>,
    /// The number of the previous row's model, which is mostly also that of the next.
    last_model: usize,
    /// A 128-bit hash of each `custom_id` with random keys, so that no id is kept and the set needs no keys itself.
    seen: HashSet<u128, FixedState>,
    keys: (RandomState, RandomState),
    urls: Vec<(Endpoint, UrlRows)>,
    report: Report,
    refusal: Option<UploadRefusal>,
}

/// The rows of one model in file order.
#[derive(Default)]
struct ModelEntries {
    /// The encoded entries in pieces: one growing buffer would be copied again and again.
    pieces: Vec<Vec<u8>>,
    /// How the prompts of the rows begin; empty if rows are not ordered by that.
    beginnings: Vec<Beginnings>,
}

impl Indexer {
    /// An indexer at the start of a file.
    #[must_use]
    pub fn new(limits: &IntakeLimits) -> Self {
        Self {
            splitter: Some(LineSplitter::new(limits.max_line_bytes)),
            rows: Rows {
                limit: limits.max_rows.min(u64::from(u32::MAX)),
                max_line_bytes: limits.max_line_bytes,
                orders_by_prompt: limits.orders_by_prompt,
                endpoints: limits.endpoints.clone(),
                models: Vec::new(),
                model_numbers: HashMap::new(),
                last_model: 0,
                seen: HashSet::default(),
                keys: (RandomState::new(), RandomState::new()),
                urls: Vec::new(),
                report: Report::default(),
                refusal: None,
            },
            has_bytes: false,
        }
    }

    /// Reads the next chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.has_bytes |= !chunk.is_empty();
        if self.rows.refusal.is_some() {
            return;
        }
        if let Some(splitter) = &mut self.splitter {
            splitter.push(chunk, |line| self.rows.read(&line));
        }
    }

    /// Reads the end of the file.
    ///
    /// # Errors
    /// Why the file cannot be a batch input file at all. Bad lines are in the report instead.
    pub fn finish(mut self) -> Result<Found, UploadRefusal> {
        if let Some(splitter) = self.splitter.take() {
            splitter.finish(|line| self.rows.read(&line));
        }
        if !self.has_bytes {
            return Err(UploadRefusal::Empty);
        }
        self.rows.finish()
    }
}

impl Rows {
    fn read(&mut self, line: &Line<'_>) {
        match *line {
            Line::TooLong { number } => {
                self.report.rows += 1;
                self.note(&RowError::TooLong { limit: self.max_line_bytes }, number);
            }
            Line::Whole { bytes, offset, number } => {
                let Ok(text) = str::from_utf8(bytes) else {
                    self.refusal.get_or_insert(UploadRefusal::NotUtf8);
                    return;
                };
                if !text.trim_ascii().is_empty() {
                    self.read_row(text, offset, number);
                }
            }
        }
    }

    fn read_row(&mut self, text: &str, offset: u64, number: u64) {
        self.report.rows += 1;
        if self.report.rows > self.limit {
            return;
        }
        let read = inspect(text, &self.endpoints).and_then(|head| self.place(&head).map(|model| (head, model)));
        match read {
            Ok((head, model)) => {
                let row = u32::try_from(self.report.rows - 1).expect("bounded by max_rows");
                let length = u32::try_from(text.len()).expect("bounded by max_line_bytes");
                self.models[model].push(IndexEntry { offset, length, row });
                if self.orders_by_prompt {
                    self.models[model].beginnings.push(Beginnings::of(head.prompt()));
                }
                self.count_model(model, number);
                self.count_url(head.endpoint, number);
            }
            Err(error) => {
                if error == RowError::InvalidJson && self.report.rows == 1 {
                    self.refusal.get_or_insert(UploadRefusal::NotJsonLines);
                }
                self.note(&error, number);
            }
        }
    }

    /// Checks a row against the rows before it, and finds the number of its model.
    fn place(&mut self, head: &RowHead<'_>) -> Result<usize, RowError> {
        let hash = u128::from(self.keys.0.hash_one(&*head.custom_id)) << 64
            | u128::from(self.keys.1.hash_one(&*head.custom_id));
        if !self.seen.insert(hash) {
            return Err(RowError::DuplicateCustomId { custom_id: shown(&head.custom_id) });
        }
        if self.report.models.get(self.last_model).is_some_and(|last| last.model == head.model) {
            return Ok(self.last_model);
        }
        if let Some(&known) = self.model_numbers.get(&*head.model) {
            return Ok(known);
        }
        let model = self.report.models.len();
        if model >= MAX_MODELS {
            return Err(RowError::TooManyModels { number: model + 1, limit: MAX_MODELS });
        }
        self.model_numbers.insert(head.model.to_string(), model);
        self.report.models.push(ModelRows { model: head.model.to_string(), rows: 0 });
        self.models.push(ModelEntries::default());
        Ok(model)
    }

    fn count_model(&mut self, model: usize, number: u64) {
        self.report.models[model].rows += 1;
        self.last_model = model;
        if model > 0 && self.report.other_models.len() < MAX_KEPT {
            self.report.other_models.push((number, model));
        }
    }

    fn count_url(&mut self, endpoint: Endpoint, number: u64) {
        let position = self.urls.iter().position(|(known, _)| *known == endpoint);
        let position = position.unwrap_or_else(|| {
            let rows = UrlRows { url: endpoint.as_str().to_owned(), rows: 0, lines: Vec::new() };
            self.urls.push((endpoint, rows));
            self.urls.len() - 1
        });
        let rows = &mut self.urls[position].1;
        rows.rows += 1;
        if rows.lines.len() < MAX_KEPT {
            rows.lines.push(number);
        }
    }

    fn note(&mut self, error: &RowError, number: u64) {
        self.report.error_count += 1;
        if self.report.errors.len() < MAX_KEPT {
            self.report.errors.push(BatchError {
                code: error.code().to_owned(),
                message: error.to_string(),
                param: error.param().map(str::to_owned),
                line: Some(number),
            });
        }
    }

    fn finish(mut self) -> Result<Found, UploadRefusal> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        self.report.urls = self.urls.into_iter().map(|(_, rows)| rows).collect();
        let index = self.models.into_iter().flat_map(ModelEntries::in_dispatch_order).map(Bytes::from).collect();
        Ok(Found { index, report: self.report })
    }
}

impl ModelEntries {
    fn push(&mut self, entry: IndexEntry) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.extend_from_slice(&entry.encode()),
            _ => self.pieces.push(entry.encode().to_vec()),
        }
    }

    /// The pieces of the model's part of the index.
    fn in_dispatch_order(self) -> Vec<Vec<u8>> {
        let order = by_beginning(&self.beginnings);
        if order.is_sorted() {
            return self.pieces;
        }
        let bytes = self.pieces.concat();
        let entry = |at: usize| &bytes[at * IndexEntry::WIDTH..][..IndexEntry::WIDTH];
        order
            .chunks(PIECE / IndexEntry::WIDTH)
            .map(|rows| rows.iter().copied().flat_map(entry).copied().collect())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::NearlyGood;

    const LIMITS: IntakeLimits = IntakeLimits {
        max_file_bytes: 1 << 20,
        max_line_bytes: 2000,
        max_rows: 5,
        orders_by_prompt: true,
        endpoints: Endpoints::KNOWN,
    };

    fn row(id: &str, model: &str) -> String {
        format!(r#"{{"custom_id":"{id}","method":"POST","url":"/v1/responses","body":{{"model":"{model}"}}}}"#)
    }

    fn index(file: &[u8]) -> Result<Found, UploadRefusal> {
        let mut indexer = Indexer::new(&LIMITS);
        for chunk in file.chunks(7) {
            indexer.push(chunk);
        }
        indexer.finish()
    }

    fn rows_in_dispatch_order(found: &Found) -> Vec<u32> {
        IndexEntry::decode(&found.index.concat()).map(|entry| entry.row).collect()
    }

    #[test]
    fn rows_are_grouped_by_model_and_keep_their_numbers() {
        let file = [row("a", "x"), row("b", "y"), String::new(), row("c", "x"), row("d", "y")].join("\n");

        let found = index(file.as_bytes()).expect("a batch input file");

        assert_eq!(rows_in_dispatch_order(&found), [0, 2, 1, 3]);
        let models: Vec<_> = found.report.models.iter().map(|rows| (rows.model.as_str(), rows.rows)).collect();
        assert_eq!(models, [("x", 2), ("y", 2)]);
        assert_eq!(found.report.other_models, [(2, 1), (5, 1)]);
        assert_eq!(found.report.rows, 4);
        assert_eq!(found.report.urls[0].lines, [1, 2, 4, 5]);
        let third = IndexEntry::decode(&found.index.concat()).nth(1).expect("four entries");
        let start = usize::try_from(third.offset).unwrap();
        assert_eq!(&file[start..start + third.length as usize], row("c", "x"));
    }

    #[test]
    fn rows_of_a_model_are_grouped_by_the_beginning_of_their_prompts() {
        let row = |id: &str, model: &str, prompt: &str| {
            let (system, body) = (prompt.repeat(300), format!(r#""model":"{model}","messages":[{{"content":"#));
            format!(
                r#"{{"custom_id":"{id}","method":"POST","url":"/v1/chat/completions","body":{{{body}"{system} {id}"}}]}}}}"#
            )
        };
        let file = [row("a", "x", "p"), row("b", "x", "q"), row("c", "y", "p"), row("d", "x", "p"), row("e", "x", "q")];
        let in_order = |orders_by_prompt| {
            let mut indexer = Indexer::new(&IntakeLimits { orders_by_prompt, ..LIMITS });
            indexer.push(file.join("\n").as_bytes());
            rows_in_dispatch_order(&indexer.finish().expect("a batch input file"))
        };

        assert_eq!(in_order(true), [0, 3, 1, 4, 2]);
        assert_eq!(in_order(false), [0, 1, 3, 4, 2]);
    }

    #[test]
    fn bad_lines_are_reported_by_number_and_the_rest_is_read_on() {
        let long = "x".repeat(3000);
        let file = [row("a", "x"), "{".to_owned(), row("a", "x"), long, row("b", "x")].join("\r\n");

        let found = index(file.as_bytes()).expect("a batch input file");

        let errors: Vec<_> =
            found.report.errors.iter().map(|error| (error.code.as_str(), error.line.expect("a line"))).collect();
        assert_eq!(errors, [("invalid_json_line", 2), ("duplicate_custom_id", 3), ("invalid_request", 4)]);
        assert_eq!(found.report.error_count, 3);
        assert_eq!(rows_in_dispatch_order(&found), [0, 4]);
    }

    #[test]
    fn rows_beyond_the_limit_are_counted_and_not_kept() {
        let file: Vec<String> = (0..9).map(|number| row(&number.to_string(), "x")).collect();

        let found = index(file.join("\n").as_bytes()).expect("a batch input file");

        assert_eq!(found.report.rows, 9);
        assert_eq!(rows_in_dispatch_order(&found).len(), 5);
    }

    #[test]
    fn what_is_no_batch_input_file_is_refused() {
        assert_eq!(index(b"").expect_err("refused"), UploadRefusal::Empty);
        assert_eq!(index(b"\ncustom_id,model\n").expect_err("refused"), UploadRefusal::NotJsonLines);
        let latin1 = [row("a", "x").as_bytes(), b"\n{\"custom_id\":\"\xe9\"}"].concat();
        assert_eq!(index(&latin1).expect_err("refused"), UploadRefusal::NotUtf8);
    }

    #[test]
    fn a_first_line_of_json_that_is_no_row_is_an_error_of_that_line() {
        let found = index(b"[1]\n").expect("a batch input file");

        assert_eq!(found.report.errors[0].code, "invalid_type");
        assert_eq!(found.report.errors[0].line, Some(1));
    }

    #[test]
    fn blank_files_have_no_rows() {
        assert_eq!(index(b"\n \r\n\n").expect("a batch input file").report.rows, 0);
    }

    /// The places of the rows in file order, and the errors.
    fn places(file: &[u8], chunk: usize) -> Result<(Vec<IndexEntry>, Vec<BatchError>), UploadRefusal> {
        let mut indexer = Indexer::new(&LIMITS);
        file.chunks(chunk).for_each(|chunk| indexer.push(chunk));
        let found = indexer.finish()?;
        let mut entries: Vec<_> = found.index.iter().flat_map(|piece| IndexEntry::decode(piece)).collect();
        entries.sort_by_key(|entry| entry.offset);
        Ok((entries, found.report.errors))
    }

    #[test]
    fn fuzz_the_index_is_the_same_in_whatever_chunks_a_file_comes_and_names_its_rows() {
        let rows = [row("a", "m"), row("b", "n"), String::new(), row("c", "m")].join("\n");
        let broken = format!("{}\r\n{{}}\n\n[1]\n{}", row("a", "m"), row("a", "m"));
        let seeds = [rows.as_bytes(), broken.as_bytes()];
        bolero::check!().with_type::<NearlyGood>().with_iterations(3_000).for_each(|made| {
            let file = made.bytes(&seeds);
            let whole = places(&file, file.len().max(1));
            assert_eq!(whole, places(&file, made.chunk()));
            for entry in whole.into_iter().flat_map(|(entries, _)| entries) {
                let line = &file[usize::try_from(entry.offset).expect("it is short")..][..entry.length as usize];
                let line = str::from_utf8(line).expect("a file that is taken is UTF-8");
                assert!(inspect(line, &LIMITS.endpoints).is_ok(), "{line:?}");
            }
        });
    }
}
