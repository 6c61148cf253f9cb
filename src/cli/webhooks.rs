//! `batchwright webhooks`: the events of batches, and sending them again, on the database itself.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::UsageError;
use super::output::{OutputArgs, Tabled, say, time};
use crate::app::existing_storage_beside;
use crate::config::StorageConfig;
use crate::domain::ids::{BatchId, EventId};
use crate::domain::time::Clock;
use crate::domain::webhook::{DeliveryState, WebhookRecord};
use crate::storage::Storage;

/// Deliveries that are read at once.
const PAGE: u32 = 1000;

/// The commands of `webhooks`.
#[derive(Subcommand, Debug)]
pub enum WebhooksAction {
    /// List the events of batches and what became of them, newest first.
    List(ListWebhooksArgs),
    /// Send the event of a batch to its receivers again, also if they have it.
    ///
    /// The event keeps its `webhook-id`. A running service sends it within some seconds.
    Replay(ReplayArgs),
}

/// The arguments of `webhooks list`.
#[derive(Args, Debug)]
pub struct ListWebhooksArgs {
    /// Only events that were given up.
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    storage: StorageConfig,
}

/// The arguments of `webhooks replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The event, `evt_…`.
    #[arg(value_name = "EVENT_ID", required_unless_present = "batch", conflicts_with = "batch")]
    event: Option<String>,
    /// The batch whose event is sent again.
    #[arg(long, value_name = "ID")]
    batch: Option<String>,
    #[command(flatten)]
    storage: StorageConfig,
}

/// A delivery as it is printed.
#[derive(Serialize)]
struct DeliveryLine {
    event_id: String,
    event: &'static str,
    batch_id: String,
    webhook_id: String,
    receiver: String,
    state: &'static str,
    tries: u32,
    created_at: i64,
    next_try_at: Option<i64>,
    error: Option<String>,
}

impl From<WebhookRecord> for DeliveryLine {
    fn from(record: WebhookRecord) -> Self {
        Self {
            event_id: EventId::of(record.batch).to_string(),
            event: record.event.as_str(),
            batch_id: record.batch.to_string(),
            webhook_id: record.id.to_string(),
            receiver: record.receiver,
            state: record.state.as_str(),
            tries: record.tries,
            created_at: record.created_at.seconds(),
            next_try_at: record.due_at.map(crate::domain::time::Timestamp::seconds),
            error: record.error,
        }
    }
}

impl Tabled for DeliveryLine {
    const COLUMNS: &'static [&'static str] =
        &["EVENT", "TYPE", "RECEIVER", "STATE", "TRIES", "CREATED", "NEXT TRY", "ERROR"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.event_id.clone(),
            self.event.to_owned(),
            self.receiver.clone(),
            self.state.to_owned(),
            self.tries.to_string(),
            time(self.created_at),
            self.next_try_at.map(time).unwrap_or_default(),
            self.error.clone().unwrap_or_default(),
        ]
    }
}

pub(super) async fn run(action: WebhooksAction) -> anyhow::Result<ExitCode> {
    match action {
        WebhooksAction::List(args) => list(args).await?,
        WebhooksAction::Replay(args) => replay(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListWebhooksArgs) -> anyhow::Result<()> {
    let (storage, _lock) = existing_storage_beside(&args.storage).await.context("the database cannot be used")?;
    let is_asked = |record: &WebhookRecord| !args.failed || record.state == DeliveryState::Failed;
    let mut lines = Vec::new();
    let mut after = None;
    loop {
        let page = storage.deliveries(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        lines.extend(page.into_iter().filter(is_asked).map(DeliveryLine::from));
    }
    Ok(args.output.print_list(&lines)?)
}

async fn replay(args: ReplayArgs) -> anyhow::Result<()> {
    let given = args.event.as_deref().map(|event| (event, EventId::parse(event).map(EventId::batch)));
    let given = given.or_else(|| args.batch.as_deref().map(|batch| (batch, BatchId::parse(batch))));
    let (text, Some(batch)) = given.unwrap_or_default() else {
        let text = given.map(|(text, _)| text).unwrap_or_default();
        return Err(UsageError(format!("'{text}' is no id of an event (evt_…) or of a batch (batch_…)")).into());
    };
    let (storage, _lock): (Arc<dyn Storage>, _) =
        existing_storage_beside(&args.storage).await.context("the database cannot be used")?;
    match storage.replay(batch, Clock::System.now()).await? {
        0 => {
            anyhow::bail!("there is no event of '{text}': its batch has not ended, had no receiver, or ended long ago")
        }
        receivers => say(format!("The event is sent again to {receivers} receivers.")),
    }
    Ok(())
}
