//! One attempt at a row: what it asks for, whether one call does, and the response that comes of it.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ResponsesProcessor;
use super::ask::Question;
use super::previous::{self, Conversation};
use super::run::{Run, Scope, Stop};
use crate::domain::ids::RequestId;
use crate::domain::json_error::plainly;
use crate::domain::outcome::{FailureReason, HttpResponse};
use crate::domain::request::{Claimed, RequestData};
use crate::domain::response::{
    Assembly, Fields, ItemIds, Limits, ScopeEnd, ScopeStart, Step, StepBody, StepPath, StepState, for_model,
    input_items, mcp_function_name, with_every_call_answered,
};
use crate::processor::ShouldRetry;
use crate::processor::ensure::RowSchema;
use crate::storage::Storage;
use crate::tools::Toolset;
use crate::upstream::{Call, HttpClient};

/// What became of an attempt at a row.
pub(super) enum Ended {
    /// There is an answer, as the upstream gave it or as it was put together.
    Answered(HttpResponse),
    /// There is none: why, unless the row is somebody else's now, and whether any step has ended well.
    Stopped { why: Option<FailureReason>, has_progressed: bool },
}

impl Ended {
    pub(super) fn stopped(why: FailureReason) -> Self {
        Self::Stopped { why: Some(why), has_progressed: false }
    }
}

impl ResponsesProcessor {
    /// Takes a row that has `steps` behind it as far as it gets.
    pub(super) async fn attempt(
        &self,
        (data, claimed, steps): (&RequestData, &Claimed, Vec<Step>),
        storage: &dyn Storage,
        http: &impl HttpClient,
        should_retry: &ShouldRetry,
    ) -> Ended {
        let asked = match self.read(data, storage, http, !steps.is_empty()).await {
            Ok(asked) => asked,
            Err(reason) => return Ended::stopped(reason),
        };
        let Some(tools) = asked.tools else {
            return match self.one_call(data, &asked.body, http, should_retry).await {
                Ok(answer) => Ended::Answered(answer),
                Err(reason) => Ended::stopped(reason),
            };
        };
        let opening = match opening(&asked.body, &tools, asked.previous) {
            Ok(opening) => opening,
            Err(reason) => return Ended::stopped(reason),
        };
        let scope = Scope { path: StepPath::root(), opening, tools };
        let limits = limits(&self.settings.limits, &asked.body);
        let run = Run::new(self, (http, should_retry), (data.id, claimed), limits, asked.schema, steps);
        let end = run.to_the_end(&scope).await;
        let end = match end {
            Ok(end) => end,
            Err(Stop::Reached(limit)) => ScopeEnd::Reached(limit),
            Err(Stop::Failed(reason)) => {
                return Ended::Stopped { why: Some(reason), has_progressed: run.has_progressed() };
            }
            Err(Stop::NotHeld) => return Ended::Stopped { why: None, has_progressed: false },
        };
        let answer = self.response(data, &asked.body, Some(&scope.tools), &run.steps(), &end);
        match end {
            ScopeEnd::Invalid(wrong) => Ended::stopped(FailureReason::SchemaInvalid(answer, wrong)),
            _ => Ended::Answered(answer),
        }
    }

    /// `is_begun` if the row has steps: it goes on from them, also if the tools that it began with are not served any more.
    async fn read(
        &self,
        data: &RequestData,
        storage: &dyn Storage,
        http: &impl HttpClient,
        is_begun: bool,
    ) -> Result<Asked, FailureReason> {
        let body = Fields::read(&data.body).map_err(|error| {
            FailureReason::InvalidRow(format!("The row's body is not an object: {}.", plainly(&error)))
        })?;
        let text: Option<Fields> = body
            .get("text")
            .map_err(|error| FailureReason::InvalidRow(format!("'text' is not an object: {}.", plainly(&error))))?;
        let format = text.as_ref().and_then(|text| text.raw("format"));
        let schema = if self.ensured.applies_to(data) { self.ensured.schema(format)? } else { None };
        let previous: Option<String> = body.get("previous_response_id").map_err(|error| {
            FailureReason::InvalidRow(format!("'previous_response_id' is not a string: {}.", plainly(&error)))
        })?;
        if body.get("background").ok().flatten() == Some(true) {
            return Err(FailureReason::Unsupported("'background' has no meaning in a batch; leave it out.".to_owned()));
        }
        let previous = match previous.and_then(|id| RequestId::parse_response(&id)) {
            Some(row) => {
                http.release_permit();
                Some(
                    Box::pin(previous::conversation(storage, &self.blobs, (&data.owner, row), self.clock.now()))
                        .await?,
                )
            }
            // The upstream may have it.
            None => None,
        };
        let tools = if !is_begun && schema.is_none() && previous.is_none() && !self.catalog.serves(&body)? {
            None
        } else {
            if self.catalog.asks_servers(&body) {
                http.release_permit();
            }
            Some(Box::pin(self.catalog.open(&body)).await?)
        };
        if tools.is_some() && body.raw("conversation").is_some() {
            return Err(FailureReason::Unsupported(
                "'conversation' cannot be used with tools that are run here; write the conversation out in 'input'."
                    .to_owned(),
            ));
        }
        Ok(Asked { body, tools, schema, previous })
    }

    /// A row that is one call. Of an upstream with `/v1/responses` it is the row's body, and its answer is the row's.
    async fn one_call(
        &self,
        data: &RequestData,
        body: &Fields,
        http: &impl HttpClient,
        should_retry: &ShouldRetry,
    ) -> Result<HttpResponse, FailureReason> {
        if self.asker.is_native() {
            let answer = http.post(Call::from(data)).await?;
            if !self.asker.finds_none(&answer) {
                return Ok(answer);
            }
        }
        let path = StepPath::root().child(0);
        let started_at = self.clock.now();
        let ids = ItemIds::of_step(data.id, &path);
        let question = Question { request: body, key: data.id.to_string(), ids, used: HashSet::new() };
        let turn = self.asker.ask_chat(http, &question, should_retry).await?;
        let end = ScopeEnd::of(&turn);
        let step = Step {
            seq: 0,
            path,
            body: StepBody::ModelCall(Some(turn)),
            state: StepState::Completed,
            attempts: 1,
            error: None,
            started_at,
            ended_at: Some(self.clock.now()),
        };
        Ok(self.response(data, body, None, &[step], &end))
    }

    fn response(
        &self,
        data: &RequestData,
        body: &Fields,
        tools: Option<&Toolset>,
        steps: &[Step],
        end: &ScopeEnd,
    ) -> HttpResponse {
        let assembly = Assembly {
            row: data.id,
            body,
            lists: tools.map_or(&[], |tools| &tools.lists),
            mcp: &|name| tools?.mcp(name),
            steps,
            end,
            ended_at: self.clock.now(),
        };
        let body = Bytes::from(assembly.response().to_json());
        HttpResponse { status: 200, request_id: None, retry_after: None, body }
    }
}

/// What a row asks for.
struct Asked {
    body: Fields,
    /// None if one call does.
    tools: Option<Toolset>,
    /// What its answer must match.
    schema: Option<RowSchema>,
    /// The conversation that it goes on from.
    previous: Option<Conversation>,
}

/// What the row's model is asked first.
fn opening(body: &Fields, tools: &Toolset, previous: Option<Conversation>) -> Result<ScopeStart, FailureReason> {
    let mut request = body.clone();
    if !tools.definitions.is_empty() {
        request.set("tools", &tools.definitions);
    }
    if let Some(choice) = body.raw("tool_choice").and_then(|choice| of_server(choice, tools)) {
        request.set("tool_choice", &choice);
    }
    let input = input_items(body.raw("input")).map_err(|error| {
        FailureReason::InvalidRow(format!("'input' is neither a text nor a list: {}.", plainly(&error)))
    })?;
    if input.iter().any(|item| approves(item)) {
        return Err(FailureReason::Unsupported(
            "An approval cannot be given here; ask again with \"require_approval\": \"never\".".to_owned(),
        ));
    }
    let is_text = body.raw("input").is_some_and(|input| input.get().starts_with('"'));
    let Some(Conversation { mut items, before }) = previous else {
        if !is_text && !tools.lists.is_empty() {
            let told: Vec<_> = input.into_iter().flat_map(for_model).collect();
            request.remove("input");
            return Ok(ScopeStart { request, input: told });
        }
        return Ok(ScopeStart { request, input });
    };
    items.extend(input.into_iter().flat_map(for_model));
    request.remove("input");
    match before {
        Some(id) => request.set("previous_response_id", &id),
        None => drop(request.remove("previous_response_id")),
    }
    Ok(ScopeStart { request, input: with_every_call_answered(items) })
}

fn approves(item: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Response {
        r#type: String,
        approve: bool,
    }
    let response = serde_json::from_str::<Response>(item.get());
    response.is_ok_and(|response| response.r#type == "mcp_approval_response" && response.approve)
}

/// The choice of a tool of an MCP server that is served here as that of the function it is to the model, or of any of
/// them.
fn of_server(choice: &RawValue, tools: &Toolset) -> Option<Value> {
    #[derive(Deserialize)]
    struct Choice {
        r#type: String,
        server_label: String,
        name: Option<String>,
    }
    let choice: Choice = serde_json::from_str(choice.get()).ok().filter(|choice: &Choice| choice.r#type == "mcp")?;
    if !tools.lists.iter().any(|list| list.label == choice.server_label) {
        return None;
    }
    if let Some(name) = &choice.name {
        return Some(json!({ "type": "function", "name": mcp_function_name(&choice.server_label, name) }));
    }
    let functions = tools.functions_of(&choice.server_label).into_iter();
    let functions: Vec<Value> = functions.map(|name| json!({ "type": "function", "name": name })).collect();
    Some(json!({ "type": "allowed_tools", "mode": "required", "tools": functions }))
}

/// The bounds of a row: it can ask for less than it may have.
fn limits(limits: &Limits, body: &Fields) -> Limits {
    let number = |name: &str| body.get::<u64>(name).ok().flatten();
    let tool_calls = number("max_tool_calls")
        .map_or(limits.tool_calls, |most| u32::try_from(most).unwrap_or(u32::MAX).min(limits.tool_calls));
    Limits { tool_calls, output_tokens: number("max_output_tokens"), ..limits.clone() }
}
