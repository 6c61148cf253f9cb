//! One attempt at a row: what it asks for, whether one call does, and the response that comes of it.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ResponsesProcessor;
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
use crate::domain::usage::Usage;
use crate::processor::ShouldRetry;
use crate::processor::answer_schemas::RowSchema;
use crate::storage::Storage;
use crate::tools::Toolset;
use crate::upstream::dialect::{self, ModelCall};
use crate::upstream::{Call, HttpClient as _, ResponsesApi, Session};

/// What became of an attempt at a row.
pub(super) enum Ended {
    /// There is an answer, as the upstream gave it or as it was put together.
    Answered(HttpResponse),
    /// There is none: why, unless the row is somebody else's now, whether any step has ended well, and the tokens that
    /// the steps have used.
    Stopped { why: Option<FailureReason>, has_progressed: bool, usage: Usage },
}

impl Ended {
    pub(super) fn stopped(why: FailureReason) -> Self {
        Self::Stopped { why: Some(why), has_progressed: false, usage: Usage::default() }
    }
}

impl ResponsesProcessor {
    /// Takes a row that has `steps` behind it as far as it gets.
    pub(super) async fn attempt(
        &self,
        (data, claimed, steps): (&RequestData, &Claimed, Vec<Step>),
        storage: &dyn Storage,
        http: &Session,
        should_retry: &ShouldRetry,
    ) -> Ended {
        if steps.is_empty() && is_plain(&data.body) {
            match self.pass_through_if_used(data, http).await {
                Ok(Some(answer)) => return Ended::Answered(answer),
                Ok(None) => {}
                Err(reason) => return Ended::stopped(reason),
            }
        }
        let plan = match self.read(data, storage, http, !steps.is_empty()).await {
            Ok(plan) => plan,
            Err(reason) => return Ended::stopped(reason),
        };
        let Some(tools) = plan.tools else {
            return match self.one_call((data, &plan.body), http, should_retry).await {
                Ok(answer) => Ended::Answered(answer),
                Err(reason) => Ended::stopped(reason),
            };
        };
        let start = match scope_start(&plan.body, &tools, plan.previous) {
            Ok(start) => start,
            Err(reason) => return Ended::stopped(reason),
        };
        let scope = Scope { path: StepPath::root(), model: data.model.clone(), start, tools };
        let limits = limits(&self.limits, &plan.body);
        let run = Run::new(self, (http, should_retry), (data.id, claimed), limits, plan.schema, steps);
        let end = run.to_the_end(&scope).await;
        let end = match end {
            Ok(end) => end,
            Err(Stop::Reached(limit)) => ScopeEnd::Reached(limit),
            Err(Stop::Failed(reason)) => {
                let (has_progressed, usage) = (run.has_progressed(), run.usage());
                return Ended::Stopped { why: Some(reason), has_progressed, usage };
            }
            Err(Stop::NotHeld) => {
                return Ended::Stopped { why: None, has_progressed: false, usage: Usage::default() };
            }
        };
        let answer = self.response(data, &plan.body, Some(&scope.tools), &run.steps(), &end);
        match end {
            ScopeEnd::Invalid(wrong) => {
                let why = Some(FailureReason::SchemaInvalid(answer.into(), wrong));
                Ended::Stopped { why, has_progressed: false, usage: run.usage() }
            }
            _ => Ended::Answered(answer),
        }
    }

    /// `is_begun` if the row has steps: it goes on from them, also if the tools that it began with are not served any
    /// more.
    async fn read(
        &self,
        data: &RequestData,
        storage: &dyn Storage,
        http: &Session,
        is_begun: bool,
    ) -> Result<RowPlan, FailureReason> {
        let body = Fields::read(&data.body).map_err(|error| {
            FailureReason::InvalidRow(format!("The row's body is not an object: {}.", plainly(&error)))
        })?;
        let text: Option<Fields> = body
            .get("text")
            .map_err(|error| FailureReason::InvalidRow(format!("'text' is not an object: {}.", plainly(&error))))?;
        let format = text.as_ref().and_then(|text| text.raw("format"));
        let schema = if self.schemas.applies_to(data) { self.schemas.schema(format)? } else { None };
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
        Ok(RowPlan { body, tools, schema, previous })
    }

    /// Calls `/v1/responses` of a server of which nothing says that it has no such API.
    async fn pass_through_if_used(
        &self,
        data: &RequestData,
        http: &Session,
    ) -> Result<Option<HttpResponse>, FailureReason> {
        let api = http.responses_api(&data.model).await?;
        if api.is_used() { pass_through(&api, data, http).await } else { Ok(None) }
    }

    /// A row that is one call. Of an upstream with `/v1/responses` it is the row's body, and its answer is the row's.
    async fn one_call(
        &self,
        (data, body): (&RequestData, &Fields),
        http: &Session,
        should_retry: &ShouldRetry,
    ) -> Result<HttpResponse, FailureReason> {
        let is_ignored = dialect::asks_for_form(body) && http.ignores_form(&data.model).await?;
        let api = http.responses_api(&data.model).await?;
        if !is_ignored && let Some(answer) = pass_through(&api, data, http).await? {
            return Ok(answer);
        }
        let path = StepPath::root().child(0);
        let started_at = self.clock.now();
        let ids = ItemIds::of_step(data.id, &path);
        let (request, model, key, used) = (body, data.model.clone(), data.id.to_string(), HashSet::new());
        let call = ModelCall { request, model, key, ids, used, has_native_turns: false, is_ignored };
        let turn = dialect::call_chat(http, &call, should_retry).await?;
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
        HttpResponse { status: 200, body, ..HttpResponse::default() }
    }
}

/// Calls `/v1/responses` with the row's body as it was uploaded. `None` if the server has no such API.
async fn pass_through(
    api: &ResponsesApi,
    data: &RequestData,
    http: &Session,
) -> Result<Option<HttpResponse>, FailureReason> {
    if !api.is_next() {
        return Ok(None);
    }
    let answer = http.post(Call::from(data)).await?;
    Ok((!api.is_lacking(&answer)).then_some(answer))
}

/// Whether a body has nothing in it that can make its row more than one call, or that is refused here. Most rows are
/// such rows: this reads a body without copying any of it.
fn is_plain(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        tools: Option<&'a RawValue>,
        #[serde(borrow)]
        text: Option<&'a RawValue>,
        #[serde(borrow)]
        previous_response_id: Option<&'a RawValue>,
        #[serde(borrow)]
        background: Option<&'a RawValue>,
    }
    // A list could be read as the members in their order.
    body.starts_with(b"{")
        && serde_json::from_slice::<Members<'_>>(body).is_ok_and(|has| {
            let others = [has.text, has.previous_response_id, has.background];
            others.iter().all(Option::is_none) && has.tools.is_none_or(|tools| tools.get() == "[]")
        })
}

/// What a row asks for.
struct RowPlan {
    body: Fields,
    /// None if one call does.
    tools: Option<Toolset>,
    /// What its answer must match.
    schema: Option<RowSchema>,
    /// The conversation that it goes on from.
    previous: Option<Conversation>,
}

/// The start of the row's own scope.
fn scope_start(body: &Fields, tools: &Toolset, previous: Option<Conversation>) -> Result<ScopeStart, FailureReason> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_plain_if_nothing_in_it_concerns_this_program() {
        let cases = [
            (r#"{"model":"m","input":"Hi"}"#, true),
            (r#"{"input":[{"text":"x","tools":1}],"tools":[],"text":null,"background":null}"#, true),
            (r#"{"input":"Hi","tools":[{"type":"web_search"}]}"#, false),
            (r#"{"input":"Hi","text":{}}"#, false),
            (r#"{"input":"Hi","previous_response_id":"resp_1"}"#, false),
            (r#"{"input":"Hi","background":true}"#, false),
            (r#"{"input":"Hi","\u0074ools":[1]}"#, false),
            (r#"{"tools":[],"tools":[1]}"#, false),
            ("[null,null,null,null]", false),
        ];
        for (body, expected) in cases {
            assert_eq!(is_plain(body.as_bytes()), expected, "{body}");
        }
    }
}
