//! `GET /v1/batches/{batch_id}/requests/{custom_id}/steps`: the calls of a request.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{NamedRequest, find};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};
use crate::domain::ids::RequestId;
use crate::domain::response::{Step, StepBody, StepPath, ToolOutput, Turn};
use crate::domain::time::Timestamp;

/// The steps of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepList {
    /// Always `list`.
    object: &'static str,
    /// In the order in which they started.
    data: Vec<StepObject>,
}

/// One call of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepObject {
    /// Always `batch.request.step`.
    object: &'static str,
    /// The path in the tree of steps: `2` is the third call of the model, `2.0` the first tool that the model called in
    /// that turn, and, if that tool is an agent, `2.0.0` the first call of the agent's own model.
    path: String,
    /// The path of the step that it is part of; null for the request's own model calls.
    #[schema(required)]
    parent: Option<String>,
    /// `model_call` or `tool_call`.
    r#type: &'static str,
    /// `in_progress`, `completed` or `failed`.
    state: &'static str,
    /// The number of attempts so far.
    attempts: u32,
    /// When its last attempt started, in seconds since the Unix epoch.
    started_at: i64,
    /// How long it took, in milliseconds; null until it has ended.
    #[schema(required)]
    duration_ms: Option<u64>,
    /// Why its last attempt failed, or the output of a failed tool.
    #[schema(required)]
    error: Option<String>,
    /// Of a tool: the id that pairs the call with its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<String>,
    /// Of a tool: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of a tool: its arguments, as the model wrote them.
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<String>,
    /// The result: of a model, its turn with `model`, `output` and `usage`; of a tool, `output` and `is_error`.
    #[schema(required, value_type = Option<Object>)]
    result: Option<StepResult>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum StepResult {
    Turn(Turn),
    Output(ToolOutput),
}

impl From<Step> for StepObject {
    fn from(step: Step) -> Self {
        let (call, result) = match step.body {
            StepBody::ModelCall(turn) => (None, turn.map(StepResult::Turn)),
            StepBody::ToolCall(call, output) => (Some(call), output.map(StepResult::Output)),
        };
        let took = |at: Timestamp| u64::try_from(at.since(step.started_at).as_millis()).unwrap_or(u64::MAX);
        let (call_id, name, arguments) = match call {
            Some(call) => (Some(call.call_id), Some(call.name), Some(call.arguments)),
            None => (None, None, None),
        };
        Self {
            object: "batch.request.step",
            parent: step.path.parent().filter(|parent| *parent != StepPath::root()).map(|parent| parent.to_string()),
            r#type: if step.path.is_model_call() { "model_call" } else { "tool_call" },
            path: step.path.to_string(),
            state: step.state.as_str(),
            attempts: step.attempts,
            started_at: step.started_at.0 / 1000,
            duration_ms: step.ended_at.map(took),
            error: step.error,
            call_id,
            name,
            arguments,
            result,
        }
    }
}

/// Lists the calls of a request, while it runs and until `--steps-retention` after its batch has ended. Requests of one
/// call have no steps.
///
/// An extension of batchwright: OpenAI's API has no such operation.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/requests/{custom_id}/steps", tag = "extensions",
    params(
        ("batch_id" = String, Path, pattern = "^batch"),
        ("custom_id" = String, Path, description = "Percent-encoded, slashes too")
    ),
    responses((status = 200, body = StepList), (status = 404, body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn list_request_steps(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id((batch_id, custom_id)): Id<(String, String)>,
) -> Result<Json<StepList>, ApiError> {
    let NamedRequest { batch, row, .. } = find(&app, &owner, &batch_id, &custom_id).await?;
    let steps = app.storage.steps(&owner, RequestId { batch: batch.id, row }).await?;
    Ok(Json(StepList { object: "list", data: steps.into_iter().map(StepObject::from).collect() }))
}
