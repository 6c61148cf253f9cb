//! `previous_response_id`: the conversation that a response made here ended with.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::domain::ids::RequestId;
use crate::domain::outcome::FailureReason;
use crate::domain::response::{Fields, input_items, mcp_function_name};
use crate::domain::result::response_made_for;
use crate::domain::row::RowCall;
use crate::domain::time::Timestamp;
use crate::storage::blobs::Blobs;
use crate::storage::results::result_line;
use crate::storage::rows::RowReader;
use crate::storage::{ReadError, Storage};
use crate::telemetry::chain;

/// Responses in a row that may go on from each other.
const LONGEST_CHAIN: usize = 100;
/// Bytes of all items of a conversation.
const MOST_BYTES: usize = 64 << 20;

/// The items of the conversation that ended with the response made for `row`, in their order. They are what its model
/// was told, and not what the client was shown: tools of MCP servers are functions.
pub(super) async fn conversation(
    storage: &dyn Storage,
    blobs: &Blobs,
    row: RequestId,
    now: Timestamp,
) -> Result<Vec<Box<RawValue>>, FailureReason> {
    let mut exchanges = Vec::new();
    let (mut next, mut bytes) = (Some(row), 0);
    while let Some(row) = next {
        let exchange = exchange(storage, blobs, row, now).await.map_err(|error: ReadError| {
            FailureReason::Network(format!("The previous response cannot be read: {}.", chain(&error)))
        })?;
        let Some(exchange) = exchange else {
            let id = row.response_id();
            return Err(FailureReason::Unsupported(format!("Previous response with id '{id}' not found.")));
        };
        next = exchange.before;
        bytes += exchange.items.iter().map(|item| item.get().len()).sum::<usize>();
        exchanges.push(exchange.items);
        if exchanges.len() > LONGEST_CHAIN || bytes > MOST_BYTES {
            return Err(FailureReason::Unsupported("The conversation before this request is too long.".to_owned()));
        }
    }
    Ok(exchanges.into_iter().rev().flatten().collect())
}

/// What was said between one response and the next.
struct Exchange {
    items: Vec<Box<RawValue>>,
    before: Option<RequestId>,
}

async fn exchange(
    storage: &dyn Storage,
    blobs: &Blobs,
    row: RequestId,
    now: Timestamp,
) -> Result<Option<Exchange>, ReadError> {
    let Some(line) = result_line(storage, blobs, row, now).await? else { return Ok(None) };
    let Some(input) = storage.batch_input(row.batch).await? else { return Ok(None) };
    let Some(asked) = RowReader::new(blobs.clone(), input).line(row.row).await? else { return Ok(None) };
    Ok(read(&asked, response_made_for(row, &line.text)))
}

fn read(asked: &[u8], response: Option<&RawValue>) -> Option<Exchange> {
    let call: RowCall<'_> = serde_json::from_slice(asked).ok()?;
    let body = Fields::read(call.body.get().as_bytes()).ok()?;
    let response = Fields::read(response?.get().as_bytes()).ok()?;
    let mut items = input_items(body.raw("input")).ok()?;
    let output: Vec<Box<RawValue>> = response.get("output").ok()??;
    items.extend(output.into_iter().flat_map(as_told));
    let before: Option<String> = body.get("previous_response_id").ok()?;
    Some(Exchange { items, before: before.and_then(|id| RequestId::parse_response(&id)) })
}

/// An item of a response as its model was told of it.
fn as_told(item: Box<RawValue>) -> Vec<Box<RawValue>> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Item {
        r#type: String,
        id: String,
        server_label: String,
        name: String,
        arguments: String,
        output: Option<String>,
        error: Option<Failure>,
    }
    #[derive(Deserialize)]
    struct Failure {
        content: Vec<Text>,
    }
    #[derive(Deserialize)]
    struct Text {
        text: String,
    }
    let read: Item = serde_json::from_str(item.get()).unwrap_or_default();
    match read.r#type.as_str() {
        "mcp_list_tools" => Vec::new(),
        "mcp_call" => {
            let error = read.error.map(|error| error.content.into_iter().map(|text| text.text).collect::<String>());
            let name = mcp_function_name(&read.server_label, &read.name);
            let call = json!({
                "type": "function_call", "call_id": read.id, "name": name, "arguments": read.arguments,
            });
            let output = json!({
                "type": "function_call_output", "call_id": read.id, "output": read.output.or(error).unwrap_or_default(),
            });
            [call, output].iter().map(|item| to_raw_value(item).expect("it is JSON")).collect()
        }
        _ => vec![item],
    }
}
