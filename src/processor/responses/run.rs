//! One row on its way through calls of models and tools: it decides, does, keeps, and decides again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::{BoxFuture, FutureExt as _, join_all};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::ResponsesProcessor;
use super::step_log::NotKept;
use crate::domain::ids::RequestId;
use crate::domain::json_error::plainly;
use crate::domain::outcome::{FailureReason, Remedy};
use crate::domain::request::Claimed;
use crate::domain::response::{
    Fields, ItemIds, Limit, Limits, Next, Rules, ScopeEnd, ScopeStart, Served, Step, StepBody, StepPath, StepState,
    ToolCall, ToolOutput, Turn, decide_next, input_items, turns_of,
};
use crate::domain::usage::Usage;
use crate::fault;
use crate::processor::ShouldRetry;
use crate::processor::answer_schemas::RowSchema;
use crate::storage::StepWrite;
use crate::sync::lock;
use crate::telemetry::metrics;
use crate::tools::{Agent, Function, ToolError, Toolset};
use crate::upstream::dialect::{self, ModelCall};
use crate::upstream::{HttpClient as _, Session, UpstreamError};

/// Bytes of all that the models of one row may say: as many as one row may have, by default.
const MOST_SAID: usize = 16 << 20;

/// Why a row goes no further.
pub(super) enum Stop {
    /// A call failed.
    Failed(FailureReason),
    /// A limit that holds for the whole row is reached.
    Reached(Limit),
    /// The row is somebody else's now.
    NotHeld,
}

/// A row that is run.
pub(super) struct Run<'a> {
    pub(super) processor: &'a ResponsesProcessor,
    pub(super) http: &'a Session,
    pub(super) should_retry: &'a ShouldRetry,
    pub(super) row: RequestId,
    pub(super) claimed: &'a Claimed,
    pub(super) limits: Limits,
    /// What the row's last answer must match.
    pub(super) schema: Option<RowSchema>,
    /// In the order in which they were begun.
    steps: Mutex<Vec<Step>>,
    /// Whether any step has ended well since the row was taken up.
    has_progressed: AtomicBool,
    /// Agents use the row's permit one after the other. A step begins when its call does, not when its agent waits for
    /// the permit.
    model: Semaphore,
}

/// The row itself, or an agent within it.
pub(super) struct Scope {
    pub(super) path: StepPath,
    pub(super) model: Arc<str>,
    pub(super) start: ScopeStart,
    pub(super) tools: Toolset,
}

impl<'a> Run<'a> {
    /// A row with `steps` behind it.
    pub(super) fn new(
        processor: &'a ResponsesProcessor,
        (http, should_retry): (&'a Session, &'a ShouldRetry),
        (row, claimed): (RequestId, &'a Claimed),
        limits: Limits,
        schema: Option<RowSchema>,
        steps: Vec<Step>,
    ) -> Self {
        Self {
            processor,
            http,
            should_retry,
            row,
            claimed,
            limits,
            schema,
            steps: Mutex::new(steps),
            has_progressed: AtomicBool::new(false),
            model: Semaphore::new(1),
        }
    }

    /// The steps as they stand.
    pub(super) fn steps(&self) -> MutexGuard<'_, Vec<Step>> {
        lock(&self.steps)
    }

    /// The tokens that all steps have used.
    pub(super) fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for used in self.steps().iter().filter_map(|step| step.turn()?.usage) {
            sum.add(used.usage);
        }
        sum
    }

    pub(super) fn has_progressed(&self) -> bool {
        self.has_progressed.load(Ordering::Relaxed)
    }

    /// Goes on from where the steps end until the scope does.
    pub(super) async fn to_the_end(&self, scope: &Scope) -> Result<ScopeEnd, Stop> {
        loop {
            match self.decide(scope) {
                Next::CallModel => self.call_model(scope).await?,
                Next::CallTools(calls) => self.call_tools(scope, calls).await?,
                Next::End(end) => return Ok(end),
            }
        }
    }

    async fn call_tools(&self, scope: &Scope, calls: Vec<(u32, ToolCall)>) -> Result<(), Stop> {
        // An agent has released it after its call, and another agent may have it now.
        if scope.path == StepPath::root() {
            self.http.release_permit();
        }
        let turn = scope.path.child(self.turns(scope) - 1);
        let calls = calls.into_iter().map(|(no, call)| self.call_tool(scope, turn.child(no), call));
        // All of them end before one that failed counts, so that what they said is kept.
        first_stop(join_all(calls).await)
    }

    fn decide(&self, scope: &Scope) -> Next {
        let served = |name: &str| match scope.tools.function(name) {
            Some(Function::Client) => Served::Elsewhere,
            Some(Function::Mcp(_, function)) if function.needs_approval => Served::AfterApproval,
            // A function that the model has made up is answered with what there is.
            Some(_) | None => Served::Here,
        };
        let rules = Rules {
            limits: &self.limits,
            served: &served,
            check: &|turn| self.check(scope, turn),
            corrections: self.processor.schemas.corrections(),
        };
        decide_next(&self.steps(), &scope.path, &rules)
    }

    fn check(&self, scope: &Scope, turn: &Turn) -> Result<(), String> {
        match &self.schema {
            Some(schema) if scope.path == StepPath::root() && !turn.refuses() => schema.check(&turn.text()),
            _ => Ok(()),
        }
    }

    fn turns(&self, scope: &Scope) -> u32 {
        u32::try_from(turns_of(&scope.path, &self.steps()).count()).unwrap_or(u32::MAX)
    }

    /// The ids of the calls that the scope's turns so far asked for. Some models number those of each turn anew.
    fn used_call_ids(&self, scope: &Scope) -> HashSet<String> {
        turns_of(&scope.path, &self.steps()).flat_map(|(_, turn)| turn.calls()).map(|call| call.call_id).collect()
    }

    async fn call_model(&self, scope: &Scope) -> Result<(), Stop> {
        let path = scope.path.child(self.turns(scope));
        let request = {
            let check = |turn: &Turn| self.check(scope, turn);
            scope.start.next_request(&scope.path, &self.steps(), &self.limits, &check)
        };
        let (seq, asked) = {
            let _turn = self.model.acquire().await.expect("the semaphore is never closed");
            let held_back = |error: UpstreamError| Stop::Failed(error.into());
            self.http.acquire_permit_for(&scope.model).await.map_err(held_back)?;
            let api = self.http.responses_api(&scope.model).await.map_err(held_back)?;
            let is_ignored =
                dialect::asks_for_form(&request) && self.http.ignores_form(&scope.model).await.map_err(held_back)?;
            // Not before: a step's time is that of its call.
            let seq = self.begin(&path, StepBody::ModelCall(None)).await;
            let ids = ItemIds::of_step(self.row, &path);
            let call = ModelCall {
                request: &request,
                model: scope.model.clone(),
                key: self.key(&path),
                used: self.used_call_ids(scope),
                has_native_turns: turns_of(&scope.path, &self.steps()).any(|(_, turn)| turn.has_ids_of_upstream(&ids)),
                ids,
                is_ignored,
            };
            let asked = dialect::call_model(&api, self.http, &call, self.should_retry).await;
            if scope.path != StepPath::root() {
                // The row itself waits for this agent, which may wait for tools next.
                self.http.release_permit();
            }
            (seq, asked.and_then(|turn| self.within_bounds(turn)))
        };
        match asked {
            Ok(turn) => self.end(seq, StepState::Completed, None, |body| *body = StepBody::ModelCall(Some(turn))).await,
            Err(reason) => {
                let state = if reason.is_retriable() { StepState::InProgress } else { StepState::Failed };
                self.end(seq, state, Some(reason.code().to_owned()), |_| {}).await?;
                Err(Stop::Failed(reason))
            }
        }
    }

    /// A turn, unless all that was said is more than a row may hold while it runs.
    fn within_bounds(&self, turn: Turn) -> Result<Turn, FailureReason> {
        let bytes = |turn: &Turn| turn.output.iter().map(|item| item.get().len()).sum::<usize>();
        let before: usize = self.steps().iter().filter_map(Step::turn).map(bytes).sum();
        if before + bytes(&turn) > MOST_SAID {
            let wrong = format!("The upstream's answers to this row are together larger than {MOST_SAID} bytes.");
            return Err(FailureReason::InvalidAnswer(wrong));
        }
        Ok(turn)
    }

    async fn call_tool(&self, scope: &Scope, path: StepPath, call: ToolCall) -> Result<(), Stop> {
        let seq = self.begin(&path, StepBody::ToolCall(call.clone(), None)).await;
        // Some models write nothing for no arguments.
        let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        let said = match scope.tools.function(&call.name) {
            Some(Function::Http(tool)) => tool.call(arguments, &self.key(&path)).await,
            Some(Function::Mcp(server, function)) => match serde_json::from_str::<Map<String, Value>>(arguments) {
                Ok(arguments) => server.call(&function.tool, arguments, &self.key(&path)).await,
                Err(error) => Err(ToolError::InvalidArguments(plainly(&error))),
            },
            Some(Function::Agent(agent)) => match self.run_agent(agent, arguments, &path).await {
                Err(Stop::Failed(reason)) => Err(tool_failure(reason)?),
                said => said?,
            },
            Some(Function::Client) | None => Err(ToolError::Refused(scope.tools.unknown(&call.name))),
        };
        let output = match said {
            Ok(output) => ToolOutput { output, is_error: false },
            Err(error) => ToolOutput { output: error.to_string(), is_error: true },
        };
        let error = output.is_error.then(|| output.output.clone());
        self.end(seq, StepState::Completed, error, |body| *body = StepBody::ToolCall(call, Some(output))).await
    }

    /// Runs an agent to its end within the step at `path`. What it says is the step's output.
    fn run_agent<'b>(
        &'b self,
        agent: &'b Agent,
        arguments: &'b str,
        path: &'b StepPath,
    ) -> BoxFuture<'b, Result<Result<String, ToolError>, Stop>> {
        async move {
            if path.depth() > self.limits.depth {
                return Err(Stop::Reached(Limit::Depth));
            }
            if let Err(wrong) = agent.schema.check(arguments) {
                return Ok(Err(ToolError::InvalidArguments(wrong)));
            }
            let mut request = Fields::default();
            request.set("model", &agent.model);
            request.set("instructions", &agent.instructions);
            request.set("input", &task(arguments));
            request.set("tools", &agent.tools);
            let tools = self.processor.catalog.open(&request).await.map_err(|why| Stop::Failed(why.into()))?;
            request.set("tools", &tools.definitions);
            let input = input_items(request.raw("input")).expect("it is a text");
            let model = agent.model.as_str().into();
            let scope = Scope { path: path.clone(), model, start: ScopeStart { request, input }, tools };
            let end = self.to_the_end(&scope).await?;
            let text = turns_of(&scope.path, &self.steps()).last().map(|(_, turn)| turn.text()).unwrap_or_default();
            match end {
                ScopeEnd::Completed => Ok(Ok(text)),
                ScopeEnd::Reached(Limit::Iterations) => {
                    let most = self.limits.iterations;
                    Ok(Err(ToolError::Failed(format!("The agent has not ended within {most} calls of its model."))))
                }
                ScopeEnd::Reached(limit) => Err(Stop::Reached(limit)),
                ScopeEnd::CutOff => Ok(Err(ToolError::Failed(format!("The agent was cut off. It had said: {text}")))),
                ScopeEnd::Failed | ScopeEnd::Invalid(_) => {
                    Ok(Err(ToolError::Failed("The agent's model failed.".to_owned())))
                }
            }
        }
        .boxed()
    }

    fn key(&self, path: &StepPath) -> String {
        format!("{}.{path}", self.row)
    }

    /// Begins the step at `path`, for the first time or again. Returns its number.
    async fn begin(&self, path: &StepPath, body: StepBody) -> u32 {
        let started_at = self.processor.clock.now();
        let step = {
            let mut steps = self.steps();
            let seq = steps.iter().map(|step| step.seq + 1).max().unwrap_or(0);
            if let Some(step) = steps.iter_mut().find(|step| step.path == *path) {
                step.attempts += 1;
                (step.state, step.error, step.ended_at) = (StepState::InProgress, None, None);
                step.started_at = started_at;
                step.clone()
            } else {
                let (state, path) = (StepState::InProgress, path.clone());
                let step = Step { seq, path, body, state, attempts: 1, error: None, started_at, ended_at: None };
                steps.push(step.clone());
                step
            }
        };
        let seq = step.seq;
        self.processor.steps.begun(self.write(step)).await;
        fault::at("step.begun");
        seq
    }

    /// Ends an attempt at a step, and returns once that is durable.
    async fn end(
        &self,
        seq: u32,
        state: StepState,
        error: Option<String>,
        ended: impl FnOnce(&mut StepBody),
    ) -> Result<(), Stop> {
        let now = self.processor.clock.now();
        let mut step = self.steps().iter().find(|step| step.seq == seq).expect("it was begun").clone();
        ended(&mut step.body);
        step.state = state;
        step.error = error;
        step.ended_at = (state != StepState::InProgress).then_some(now);
        fault::at("step.answered");
        metrics::step_ended(step.path.is_model_call(), step.error.is_none(), now.since(step.started_at));
        match self.processor.steps.ended(self.write(step.clone())).await {
            Ok(()) => {}
            Err(NotKept::NotToBeRun) => return Err(Stop::NotHeld),
            Err(NotKept::Refused(error)) => {
                return Err(Stop::Failed(FailureReason::StorageFault(format!("A step cannot be kept: {error}."))));
            }
        }
        // Others see it only now: what is decided by it is decided by what is durable.
        *self.steps().iter_mut().find(|known| known.seq == seq).expect("it was begun") = step;
        fault::at("step.kept");
        if state == StepState::Completed {
            self.has_progressed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, step: Step) -> StepWrite {
        StepWrite { row: self.row, lease: self.claimed.lease, step }
    }
}

/// The failure of the calls that decides about the row. A permanent one comes first, so that the row is not tried
/// again; then one that costs an attempt, so that the series ends.
fn first_stop(ended: Vec<Result<(), Stop>>) -> Result<(), Stop> {
    let remedy = |stop: &Stop| match stop {
        Stop::Failed(reason) => reason.remedy(),
        Stop::Reached(_) | Stop::NotHeld => Remedy::Nothing,
    };
    ended.into_iter().filter_map(Result::err).min_by_key(remedy).map_or(Ok(()), Err)
}

/// An agent's failure as that of a tool, unless it may pass or is this program's own.
fn tool_failure(reason: FailureReason) -> Result<ToolError, Stop> {
    match reason {
        FailureReason::NonRetriableHttpStatus(response) => {
            Ok(ToolError::Failed(format!("The agent's model answered with status {}.", response.status)))
        }
        FailureReason::InvalidAnswer(text) | FailureReason::Unsupported(text) => Ok(ToolError::Failed(text)),
        reason => Err(Stop::Failed(reason)),
    }
}

/// What an agent is told to do: the text of its one argument, or all of them as they are.
fn task(arguments: &str) -> String {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Input {
        input: String,
    }
    serde_json::from_str::<Input>(arguments).map_or_else(|_| arguments.to_owned(), |task| task.input)
}
