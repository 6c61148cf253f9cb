//! The report of intake about a batch input file, and the check whether a batch can run it (contract §8.3).
//!
//! The report is written once, at upload, and is small for every size of file. Admitting a batch reads the report
//! instead of the rows.

use serde::{Deserialize, Serialize};

use super::batch::BatchError;
use super::batch_endpoint::BatchEndpoint;
use super::endpoint::Endpoints;
use super::row::shown;

/// How many errors are kept for one file, and how many lines of each kind that may become an error.
pub const MAX_KEPT: usize = 1000;

/// The result of reading a batch input file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Lines that are not blank. Each line is either indexed, or counted in `error_count`, or left out because the file
    /// had more rows than a batch could have at the time of its upload.
    pub rows: u64,
    /// The models of the rows, in the order in which they first appear. The row index has the rows of the first model
    /// first, then those of the second, and so on.
    pub models: Vec<ModelRows>,
    /// The first lines that name another model than the first: each line number, counted from 1, with the position of
    /// its model in `models`. At most [`MAX_KEPT`].
    pub other_models: Vec<(u64, usize)>,
    /// The urls of the rows.
    pub urls: Vec<UrlRows>,
    /// The first errors, at most [`MAX_KEPT`].
    pub errors: Vec<BatchError>,
    /// The number of all lines with an error.
    pub error_count: u64,
}

/// The rows of a file that name one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRows {
    /// The model; empty where the endpoint lets the server choose.
    pub model: String,
    /// How many rows name it.
    pub rows: u32,
}

/// The rows of a file that name one url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlRows {
    /// The url.
    pub url: String,
    /// How many rows name it.
    pub rows: u64,
    /// The numbers of the first such lines, counted from 1; at most [`MAX_KEPT`].
    pub lines: Vec<u64>,
}

/// How uploads are read, and their configured limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeLimits {
    /// The largest file, in bytes.
    pub max_file_bytes: u64,
    /// The longest line, in bytes; longer ones are refused without being held.
    pub max_line_bytes: usize,
    /// The most rows that are indexed; further rows are only counted, because no batch can have so many.
    pub max_rows: u64,
    /// Whether rows whose prompts begin alike follow each other in the row index.
    pub orders_by_prompt: bool,
    /// The endpoints that rows may name.
    pub endpoints: Endpoints,
}

/// The configured limits of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most rows of one batch.
    pub max_rows: u64,
    /// The largest input file of a batch, in bytes.
    pub max_bytes: u64,
    /// Whether every row of a batch must name the same model, as at OpenAI.
    pub single_model: bool,
}

/// A lane to be opened: positions `first..last` of the row index go to `model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLane {
    /// The model.
    pub model: String,
    /// The first position.
    pub first: u32,
    /// The position after the last.
    pub last: u32,
}

impl NewLane {
    /// How many rows go to it.
    #[must_use]
    pub fn rows(&self) -> u64 {
        u64::from(self.last - self.first)
    }
}

/// The model of a batch with these lanes, which it has only if all its rows name the same one.
#[must_use]
pub fn model_of(lanes: &[NewLane]) -> Option<&str> {
    match lanes {
        [only] if !only.model.is_empty() => Some(&only.model),
        _ => None,
    }
}

impl Report {
    /// Checks whether a batch can run the file, and splits its rows into lanes. `bytes` is the size of the file.
    ///
    /// # Errors
    /// Every reason found, file-wide ones first, then by line.
    pub fn lanes(
        &self,
        endpoint: BatchEndpoint,
        bytes: u64,
        limits: &BatchLimits,
    ) -> Result<Vec<NewLane>, Vec<BatchError>> {
        let mut errors = self.file_errors(bytes, limits);
        if errors.is_empty() {
            errors = self.line_errors(endpoint, limits);
        }
        if errors.is_empty() { Ok(self.split()) } else { Err(errors) }
    }

    fn file_errors(&self, bytes: u64, limits: &BatchLimits) -> Vec<BatchError> {
        let mut errors = Vec::new();
        if self.rows == 0 {
            errors.push(file_error("empty_file", "The batch input file has no requests.".to_owned()));
        }
        if self.rows > limits.max_rows {
            let message = format!(
                "The batch input file has {} requests, more than the {} one batch may have. \
                 Please try again with a smaller batch.",
                self.rows, limits.max_rows
            );
            errors.push(file_error("too_many_tasks", message));
        } else if self.left_out() > 0 {
            // The limit was raised after the upload. The rows that were left out were not validated either.
            let message = format!(
                "The batch input file has {} requests, more than the {} one batch could have when it was uploaded. \
                 Please upload the file again.",
                self.rows,
                self.rows - self.left_out()
            );
            errors.push(file_error("too_many_tasks", message));
        }
        if bytes > limits.max_bytes {
            let model = self.models.first().map_or("", |first| first.model.as_str());
            let message = format!(
                "The batch input file is larger than the {} maximum for the {} model. \
                 Please try again with a smaller batch.",
                limits.max_bytes,
                shown(model)
            );
            errors.push(file_error("invalid_request", message));
        }
        errors
    }

    fn line_errors(&self, endpoint: BatchEndpoint, limits: &BatchLimits) -> Vec<BatchError> {
        let mut errors = self.errors.clone();
        let mut count = self.error_count;
        for other in self.urls.iter().filter(|url| !endpoint.includes(&url.url)) {
            count += other.rows;
            errors.extend(other.lines.iter().map(|&line| BatchError {
                code: "invalid_url".to_owned(),
                message: "The URL provided for this request does not match the batch endpoint.".to_owned(),
                param: Some("url".to_owned()),
                line: Some(line),
            }));
        }
        if limits.single_model {
            count += self.models.iter().skip(1).map(|model| u64::from(model.rows)).sum::<u64>();
            errors.extend(self.other_models.iter().map(|&(line, model)| BatchError {
                code: "mismatched_model".to_owned(),
                message: format!(
                    "The model '{}' for this request does not match the rest of the batch. \
                     Each batch must contain requests for a single model.",
                    self.models.get(model).map_or_else(String::new, |rows| shown(&rows.model))
                ),
                param: Some("body.model".to_owned()),
                line: Some(line),
            }));
        }
        errors.sort_by_key(|error| error.line);
        errors.truncate(MAX_KEPT);
        let left_out = count.saturating_sub(errors.len() as u64);
        if left_out > 0 {
            let message = format!("{left_out} more errors were found; only the first {} are listed.", errors.len());
            errors.push(file_error("too_many_errors", message));
        }
        errors
    }

    /// How many rows the index has.
    #[must_use]
    pub fn indexed(&self) -> u64 {
        self.models.iter().map(|model| u64::from(model.rows)).sum()
    }

    /// How many rows intake counted without reading them.
    fn left_out(&self) -> u64 {
        self.rows.saturating_sub(self.indexed() + self.error_count)
    }

    fn split(&self) -> Vec<NewLane> {
        let mut first = 0;
        let lane = |rows: &ModelRows| {
            let lane = NewLane { model: rows.model.clone(), first, last: first + rows.rows };
            first = lane.last;
            lane
        };
        self.models.iter().map(lane).collect()
    }
}

/// The error of a batch whose input file does not exist (contract §8.3).
#[must_use]
pub fn file_not_found(file_id: &str) -> BatchError {
    BatchError {
        code: "invalid_request".to_owned(),
        message: format!("Cannot find file {}, or you do not have access to it.", shown(file_id)),
        param: Some("file_id".to_owned()),
        line: None,
    }
}

fn file_error(code: &str, message: String) -> BatchError {
    BatchError { code: code.to_owned(), message, param: None, line: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::endpoint::Endpoint;

    const LIMITS: BatchLimits = BatchLimits { max_rows: 10, max_bytes: 1000, single_model: false };

    fn report() -> Report {
        Report {
            rows: 5,
            models: vec![ModelRows { model: "a".to_owned(), rows: 3 }, ModelRows { model: "b".to_owned(), rows: 2 }],
            other_models: vec![(2, 1), (4, 1)],
            urls: vec![UrlRows { url: "/v1/responses".to_owned(), rows: 5, lines: vec![1, 2, 3, 4, 5] }],
            errors: Vec::new(),
            error_count: 0,
        }
    }

    fn codes(result: Result<Vec<NewLane>, Vec<BatchError>>) -> Vec<(String, Option<u64>)> {
        result.expect_err("refused").into_iter().map(|error| (error.code, error.line)).collect()
    }

    #[test]
    fn a_good_file_makes_a_lane_for_each_model() {
        let lanes = report().lanes(Endpoint::Responses.into(), 1000, &LIMITS).expect("in order");

        assert_eq!(
            lanes,
            [
                NewLane { model: "a".to_owned(), first: 0, last: 3 },
                NewLane { model: "b".to_owned(), first: 3, last: 5 },
            ]
        );
    }

    #[test]
    fn a_batch_has_a_model_if_all_its_rows_name_the_same_one() {
        let cases: [(&[&str], Option<&str>); 4] =
            [(&["a"], Some("a")), (&["a", "b"], None), (&[""], None), (&[], None)];
        for (models, expected) in cases {
            let lane = |model: &&str| NewLane { model: (*model).to_owned(), first: 0, last: 1 };
            let lanes: Vec<_> = models.iter().map(lane).collect();

            assert_eq!(model_of(&lanes), expected, "{models:?}");
        }
    }

    #[test]
    fn each_line_of_another_url_or_model_is_named() {
        let urls = codes(report().lanes(Endpoint::Embeddings.into(), 1, &LIMITS));
        assert_eq!(urls.len(), 5);
        assert_eq!(urls[4], ("invalid_url".to_owned(), Some(5)));

        let single = BatchLimits { single_model: true, ..LIMITS };
        let models = codes(report().lanes(Endpoint::Responses.into(), 1, &single));
        assert_eq!(models, [("mismatched_model".to_owned(), Some(2)), ("mismatched_model".to_owned(), Some(4))]);
    }

    #[test]
    fn what_is_wrong_with_the_whole_file_has_no_line() {
        let empty = Report::default();
        let large = Report { rows: 11, ..report() };
        let cut = Report { rows: 10, error_count: 4, ..report() };

        assert_eq!(codes(empty.lanes(Endpoint::Responses.into(), 0, &LIMITS)), [("empty_file".to_owned(), None)]);
        assert_eq!(
            codes(large.lanes(Endpoint::Responses.into(), 1001, &LIMITS)),
            [("too_many_tasks".to_owned(), None), ("invalid_request".to_owned(), None)]
        );
        assert_eq!(codes(cut.lanes(Endpoint::Responses.into(), 1, &LIMITS)), [("too_many_tasks".to_owned(), None)]);
    }

    #[test]
    fn errors_beyond_those_kept_are_counted() {
        let kept = BatchError { code: "x".to_owned(), message: String::new(), param: None, line: Some(3) };
        let report = Report { rows: 12, errors: vec![kept], error_count: 7, ..report() };

        let errors =
            report.lanes(Endpoint::Responses.into(), 1, &BatchLimits { max_rows: 12, ..LIMITS }).expect_err("refused");

        assert_eq!(errors.len(), 2);
        assert_eq!(errors[1].code, "too_many_errors");
        assert_eq!(errors[1].message, "6 more errors were found; only the first 1 are listed.");
    }
}
