//! The body of `POST /v1/batches`, for the OpenAPI document. It is read by hand, for OpenAI's messages.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// The rows of a batch are in a file, come with the request, or are those of another batch that failed or never ran.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the body")]
pub(super) enum BatchBody {
    OfFile(#[schema(inline)] BatchOfFileBody),
    OfRequests(#[schema(inline)] BatchOfRequestsBody),
    Retry(#[schema(inline)] RetryBatchBody),
}

#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the body")]
pub(super) struct BatchOfFileBody {
    /// A file with purpose `batch`.
    #[schema(pattern = "^file-[0-9A-Za-z]{22}$")]
    input_file_id: String,
    /// The endpoint that every row names as its url. `*`: each row may name another (an extension).
    endpoint: String,
    /// One of the windows the server is configured with, such as `24h`.
    completion_window: String,
    #[serde(flatten)]
    #[schema(inline)]
    options: BatchOptionsBody,
}

/// An extension.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the body")]
pub(super) struct BatchOfRequestsBody {
    /// The rows of the batch, as large as a file may be together. `custom_id`, `method` and `url` may be left out,
    /// which are then `request-1` and so on, `POST`, and the endpoint.
    #[schema(min_items = 1, max_items = 50000)]
    requests: Vec<BTreeMap<String, Value>>,
    /// The model of requests whose body names none.
    model: Option<String>,
    /// The endpoint of every row. `*`: each row names its own.
    endpoint: String,
    /// One of the windows the server is configured with, such as `24h`.
    completion_window: String,
    #[serde(flatten)]
    #[schema(inline)]
    options: BatchOptionsBody,
}

/// An extension.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the body")]
pub(super) struct RetryBatchBody {
    /// A batch that has ended, whose rows that failed or never ran this batch runs again. The file, the endpoint and,
    /// unless another is given, the window are those of that batch.
    #[schema(pattern = "^batch_[0-9a-f]{32}$")]
    retry_of: String,
    /// Which of these rows, and with which changes.
    #[schema(inline)]
    retry: Option<RetryChoiceBody>,
    #[serde(flatten)]
    #[schema(inline)]
    options: BatchOptionsBody,
}

/// What every batch may have.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
pub(super) struct BatchOptionsBody {
    /// Up to 16 pairs of texts; keys up to 64 characters, values up to 512. `canary`: how many rows run first, such as
    /// `100` or `100:auto`. `retry_of`: the same as the member.
    metadata: Option<BTreeMap<String, String>>,
    /// How long the output and error files are kept.
    #[schema(inline)]
    output_expires_after: Option<OutputExpiresAfterBody>,
    /// Who is told how the batch ends, beside the webhooks of the server (an extension).
    #[schema(inline)]
    webhook: Option<WebhookBody>,
}

#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
pub(super) struct WebhookBody {
    /// Where the event is posted: `https` and a public address, unless the server allows others.
    #[schema(pattern = "^https?://", example = "https://hooks.example.com/batches")]
    url: String,
    /// What signs the event: `whsec_` and base64, or any other text. It is not shown again.
    secret: String,
}

#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
pub(super) struct RetryChoiceBody {
    /// Only rows that failed with one of these codes.
    codes: Option<Vec<String>>,
    /// Members that replace those of the body of each row, such as `model`. One that is null is removed.
    body: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
pub(super) struct OutputExpiresAfterBody {
    /// Only `created_at`: that of the files.
    #[schema(pattern = "^created_at$")]
    anchor: String,
    /// How long, in seconds.
    #[schema(minimum = 3600, maximum = 2_592_000)]
    seconds: u32,
}
