//! Posting events to receivers: signed as Standard Webhooks has it, and to public addresses alone unless the settings
//! allow others.
//!
//! Which events are due, and what becomes of them, is in the storage. The daemon's duty `deliver` works on them.

mod signature;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};

use crate::config::{WebhookTable, WebhooksConfig};
use crate::domain::ids::DeliveryId;
use crate::domain::time::Timestamp;
use crate::domain::webhook::{
    BatchWebhook, DeliveryTarget, SigningSecret, Subscription, TryVerdict, WebhookDelivery, after_failed_try,
};
use crate::net::{self, AnswerProgress, ClientSettings, Reach};

/// How long a receiver may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read, so that the connection can be used again. Nothing depends on them.
const ANSWER_BYTES: usize = 4 << 10;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The receivers of the settings, and what posts to these and to those of single batches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhooks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    reach: Reach,
    tables: Vec<WebhookTable>,
    receivers: BTreeMap<String, BatchWebhook>,
}

/// Why webhooks cannot be used as the settings have them.
#[derive(Debug, thiserror::Error)]
pub enum WebhooksError {
    /// A receiver of the settings.
    #[error("the webhook '{name}' cannot be used: {why}")]
    Receiver {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// The system's TLS certificates.
    #[error("the HTTP client of webhooks cannot be set up")]
    Client(#[source] reqwest::Error),
}

impl Webhooks {
    /// The receivers of the settings.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn new(config: &WebhooksConfig) -> Result<Self, WebhooksError> {
        let reach = reach_of(config);
        let receiver = |table: &WebhookTable| {
            let read = receiver(table.url.reveal(), table.secret.reveal(), reach);
            let read = read.map_err(|why| WebhooksError::Receiver { name: table.name.clone(), why })?;
            Ok((table.name.clone(), read))
        };
        let receivers = config.receivers.iter().map(receiver).collect::<Result<_, _>>()?;
        let client = ClientSettings { reach, max_idle: Some(4), ..ClientSettings::default() };
        let client = client.build().map_err(WebhooksError::Client)?;
        Ok(Self(Arc::new(Inner { client, reach, tables: config.receivers.clone(), receivers })))
    }

    /// Which events go to the receivers of the settings.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Subscription> {
        let subscription = |table: &WebhookTable| Subscription {
            receiver: table.name.clone(),
            owner: table.project.clone(),
            events: table.events.clone(),
        };
        self.0.tables.iter().map(subscription).collect()
    }

    /// Whether this process can post to a receiver: to one of a batch, or to one of its settings. Others are left to
    /// the replicas whose settings have them.
    #[must_use]
    pub fn has(&self, receiver: &str) -> bool {
        receiver.contains("://") || self.0.receivers.contains_key(receiver)
    }

    /// Posts an event, as the `no`th try.
    pub async fn post(&self, delivery: &WebhookDelivery, no: u32, now: Timestamp) -> TryVerdict {
        let receiver = match &delivery.target {
            DeliveryTarget::OfBatch(receiver) => Some(receiver),
            DeliveryTarget::OfSettings(name) => self.0.receivers.get(name),
        };
        let answered = match receiver {
            Some(receiver) => self.send(receiver, delivery, now).await,
            None => Err("the settings have it no more".to_owned()),
        };
        match answered {
            Ok(status) if status.is_success() => TryVerdict::Delivered,
            Ok(StatusCode::GONE) => {
                TryVerdict::GivenUp("it answered with status 410: it takes no more events".to_owned())
            }
            Ok(status) => {
                let why = format!("it answered with status {}", status.as_u16());
                after_failed_try(no, rand::random(), why)
            }
            Err(why) => after_failed_try(no, rand::random(), why),
        }
    }

    async fn send(&self, to: &BatchWebhook, delivery: &WebhookDelivery, now: Timestamp) -> Result<StatusCode, String> {
        let url = checked_url(&to.url, self.0.reach)?;
        let body = delivery.event.payload(delivery.batch, delivery.created_at);
        let headers = signed(delivery.id, now, &body, &to.secret);
        let call = self.0.client.post(url).headers(headers).body(body);
        let answer = async {
            let response = call.send().await.map_err(|error| net::innermost(&error))?;
            let status = response.status();
            let _ = net::read_body(response, ANSWER_BYTES, &AnswerProgress::default()).await;
            Ok(status)
        };
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("it did not answer within {} s", TIMEOUT.as_secs())),
        }
    }
}

/// Which addresses events are posted to.
#[must_use]
pub fn reach_of(config: &WebhooksConfig) -> Reach {
    if config.webhook_allow_private { Reach::Everywhere } else { Reach::PublicOnly }
}

/// A receiver with this URL and this secret.
///
/// # Errors
/// Which of the two cannot be used, and why.
fn receiver(url: &str, secret: &str, reach: Reach) -> Result<BatchWebhook, String> {
    let secret = SigningSecret::parse(secret).map_err(|error| error.to_string())?;
    Ok(BatchWebhook { url: checked_url(url, reach)?.into(), secret })
}

fn checked_url(url: &str, reach: Reach) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|error| format!("its URL cannot be read: {error}"))?;
    net::check_receiver(&url, reach).map_err(|refusal| refusal.to_string())?;
    Ok(url)
}

fn signed(id: DeliveryId, now: Timestamp, body: &str, secret: &SigningSecret) -> HeaderMap {
    let (id, at) = (id.to_string(), now.seconds());
    let ascii = |text: String| HeaderValue::try_from(text).expect("ids, numbers and base64 are ASCII");
    let signature = ascii(signature::signature(&id, at, body, secret));
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ID, ascii(id)),
        (TIMESTAMP, HeaderValue::from(at)),
        (SIGNATURE, signature),
    ])
}
