//! `webhook` of `POST /v1/batches` (an extension): who is told how the batch ends.

use serde_json::{Map, Value};
use url::Url;

use crate::api::ApiError;
use crate::api::json_body::{object, text};
use crate::domain::webhook::{BatchWebhook, SigningSecret};
use crate::net::{self, Reach};

const LONGEST_URL: usize = 2048;

/// The receiver that a body names. A name is not resolved before the event is posted.
pub(super) fn webhook(body: &Map<String, Value>, reach: Reach) -> Result<Option<BatchWebhook>, ApiError> {
    let Some(given) = object(body, "webhook")? else { return Ok(None) };
    let url = text(given, "url", "webhook.url")?;
    let secret = text(given, "secret", "webhook.secret")?;
    if let Some(other) = given.keys().find(|key| !["url", "secret"].contains(&key.as_str())) {
        let other = crate::domain::row::shown(other);
        return Err(ApiError::invalid(format!("Unknown parameter: 'webhook.{other}'.")).code("unknown_parameter"));
    }
    let refused = |why: String| {
        let message = format!("Invalid 'webhook.url': {why}.");
        ApiError::invalid(message).at("webhook.url").code("invalid_value")
    };
    if url.len() > LONGEST_URL {
        return Err(refused(format!("it is longer than {LONGEST_URL} bytes")));
    }
    let url = Url::parse(url).map_err(|error| refused(format!("it cannot be read as a URL, {error}")))?;
    net::check_receiver(&url, reach).map_err(|refusal| refused(refusal.to_string()))?;
    let secret = SigningSecret::parse(secret).map_err(|error| {
        ApiError::invalid(format!("Invalid 'webhook.secret': {error}.")).at("webhook.secret").code("invalid_value")
    })?;
    Ok(Some(BatchWebhook { url: url.into(), secret }))
}
