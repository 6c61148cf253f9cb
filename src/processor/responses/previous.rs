//! `previous_response_id`: the conversation that a response made here ended with.

use serde_json::value::RawValue;

use super::unreadable::unreadable;
use crate::domain::ids::RequestId;
use crate::domain::outcome::FailureReason;
use crate::domain::owner::Owner;
use crate::domain::response::{Fields, for_model, input_items};
use crate::domain::result::response_made_for;
use crate::domain::row::RowCall;
use crate::domain::time::Timestamp;
use crate::storage::blobs::Blobs;
use crate::storage::results::result_line;
use crate::storage::rows::RowReader;
use crate::storage::{ReadError, Storage};

/// Responses in a row that may go on from each other.
const LONGEST_CHAIN: usize = 100;
/// Bytes of all items of a conversation: as many as one row may have, by default.
const MOST_BYTES: usize = 16 << 20;

/// The conversation before a row.
pub(super) struct Conversation {
    /// What was said, in its order.
    pub(super) items: Vec<Box<RawValue>>,
    /// The response that it goes on from itself, if that was not made here: the upstream may have it.
    pub(super) before: Option<String>,
}

/// The conversation that ended with the response made for `row`; only the owner of the row's batch can go on from it.
/// It is what its model was told, and not what the client was shown: tools of MCP servers are functions.
pub(super) async fn conversation(
    storage: &dyn Storage,
    blobs: &Blobs,
    (owner, row): (&Owner, RequestId),
    now: Timestamp,
) -> Result<Conversation, FailureReason> {
    let mut exchanges = Vec::new();
    let (mut next, mut bytes, mut before) = (Some(row), 0, None);
    while let Some(row) = next {
        let exchange = match exchange(storage, blobs, (owner, row), now).await {
            Ok(exchange) => exchange,
            Err(error) => return Err(unreadable("The previous response", &error, blobs).await),
        };
        let Some(exchange) = exchange else {
            let id = row.response_id();
            return Err(FailureReason::Unsupported(format!("Previous response with id '{id}' not found.")));
        };
        next = exchange.before.as_deref().and_then(RequestId::parse_response);
        before = exchange.before;
        bytes += exchange.items.iter().map(|item| item.get().len()).sum::<usize>();
        exchanges.push(exchange.items);
        if exchanges.len() > LONGEST_CHAIN || bytes > MOST_BYTES {
            return Err(FailureReason::Unsupported("The conversation before this request is too long.".to_owned()));
        }
    }
    let items: Vec<_> = exchanges.into_iter().rev().flatten().collect();
    Ok(Conversation { items, before })
}

/// What was said between one response and the next.
struct Exchange {
    items: Vec<Box<RawValue>>,
    before: Option<String>,
}

async fn exchange(
    storage: &dyn Storage,
    blobs: &Blobs,
    (owner, row): (&Owner, RequestId),
    now: Timestamp,
) -> Result<Option<Exchange>, ReadError> {
    let Some(line) = result_line(storage, blobs, owner, row, now).await? else { return Ok(None) };
    let Some(input) = storage.batch_input(owner, row.batch).await? else { return Ok(None) };
    let Some(asked) = RowReader::new(blobs.clone(), input).line(row.row).await? else { return Ok(None) };
    Ok(read(&asked, response_made_for(row, &line.text)))
}

fn read(asked: &[u8], response: Option<&RawValue>) -> Option<Exchange> {
    let call: RowCall<'_> = serde_json::from_slice(asked).ok()?;
    let body = Fields::read(call.body.get().as_bytes()).ok()?;
    let response = Fields::read(response?.get().as_bytes()).ok()?;
    let mut items = input_items(body.raw("input")).ok()?;
    let output: Vec<Box<RawValue>> = response.get("output").ok()??;
    items.extend(output);
    let items = items.into_iter().flat_map(for_model).collect();
    Some(Exchange { items, before: body.get("previous_response_id").ok()? })
}
