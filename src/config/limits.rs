//! The limits of files and batches.

use std::sync::Arc;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::durations::duration;
use crate::domain::batch::Window;
use crate::domain::endpoint::{Endpoint, Endpoints};
use crate::domain::project_limits::ProjectLimitTable;
use crate::domain::report::{BatchLimits, IntakeLimits};

/// The limits of files and batches.
#[derive(Args, Debug, Clone)]
pub struct LimitsConfig {
    /// Completion windows that clients may choose. A batch that is not finished when its window closes ends as
    /// `expired`, with the results so far.
    #[arg(long, value_name = "DURATION", value_delimiter = ',', default_values = ["24h", "1h"], value_parser = window)]
    pub completion_windows: Vec<Window>,

    /// The limits of input files.
    #[command(flatten)]
    pub input: InputLimits,

    /// What projects may use: the table `[limits]` of the settings file.
    #[arg(skip)]
    pub projects: Arc<ProjectLimitTable>,
}

/// The limits of input files, and the order of their rows.
#[derive(Args, Debug, Clone)]
pub struct InputLimits {
    /// Refuse batches whose rows name more than one model, as OpenAI does.
    #[arg(long)]
    pub single_model: bool,

    /// Rows one batch may have.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_batch_rows: u32,

    /// Size the input file of a batch may have.
    #[arg(long, value_name = "SIZE", default_value = "200MiB")]
    pub max_batch_bytes: ByteSize,

    /// Size any uploaded file may have; at least that of a batch's input file.
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub max_file_bytes: ByteSize,

    /// Length one line of a batch input file may have when it is uploaded, at most 1GiB. It bounds the memory that a
    /// row needs.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = line_size)]
    pub max_line_bytes: ByteSize,

    /// Paths that rows may name as their url, besides the endpoints that batchwright knows, such as `/v1/foo,/bar`.
    /// Their requests are sent as they are, and every JSON object without an `error` is a success. A path that begins
    /// with `/v1/` is called below the upstream's base URL, any other beside the `/v1` of the base URL.
    #[arg(long, value_name = "PATHS", value_delimiter = ',', value_parser = endpoint)]
    pub extra_endpoints: Vec<Endpoint>,

    /// Endpoints that batches may be for, instead of all; those of `--extra-endpoints` come on top.
    #[arg(long, value_name = "PATHS", value_delimiter = ',', value_parser = known_endpoint)]
    pub only_endpoints: Vec<Endpoint>,

    /// The order in which the rows of an uploaded file are run. `prompt`: rows whose prompts begin alike, such as with
    /// the same system message, follow each other, so that the server need not compute the beginning again; otherwise
    /// in the order of the file. `file`: always in the order of the file.
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = RowOrder::Prompt)]
    pub row_order: RowOrder,
}

/// The order in which the rows of a file are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowOrder {
    /// Rows whose prompts begin alike follow each other.
    Prompt,
    /// In the order of the file.
    File,
}

impl InputLimits {
    /// How uploads are read.
    #[must_use]
    pub fn intake(&self) -> IntakeLimits {
        IntakeLimits {
            max_file_bytes: self.max_file_bytes.as_u64().max(self.max_batch_bytes.as_u64()),
            max_line_bytes: usize::try_from(self.max_line_bytes.as_u64()).unwrap_or(usize::MAX),
            max_rows: u64::from(self.max_batch_rows),
            orders_by_prompt: self.row_order == RowOrder::Prompt,
            endpoints: Endpoints { extra: self.extra_endpoints.clone(), only: self.only_endpoints.clone() },
        }
    }

    /// The limits of a batch.
    #[must_use]
    pub fn batch(&self) -> BatchLimits {
        BatchLimits {
            max_rows: u64::from(self.max_batch_rows),
            max_bytes: self.max_batch_bytes.as_u64(),
            single_model: self.single_model,
        }
    }
}

fn window(text: &str) -> Result<Window, String> {
    let length = duration(text)?;
    if length.is_zero() {
        return Err("a window must be longer than nothing".to_owned());
    }
    Ok(Window { text: text.to_owned(), length })
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::named(text).ok_or_else(|| "an endpoint is a path such as /v1/foo".to_owned())
}

fn known_endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::parse(text).ok_or_else(|| {
        let known: Vec<_> = Endpoint::ALL.into_iter().map(Endpoint::as_str).collect();
        format!("the endpoints are {}; --extra-endpoints adds others", known.join(", "))
    })
}

fn line_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    let allowed = ByteSize::kib(1)..=ByteSize::gib(1);
    if allowed.contains(&size) { Ok(size) } else { Err("a line may have 1KiB to 1GiB".to_owned()) }
}
