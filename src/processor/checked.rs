//! Chat completions whose answer must match the JSON schema that the row asks for.

use serde_json::json;
use serde_json::value::RawValue;

use super::answer_schemas::{AnswerSchemas, RowSchema};
use super::{CancellationFuture, ShouldRetry};
use crate::domain::answer::Answer;
use crate::domain::json_error::plainly;
use crate::domain::outcome::{FailureReason, HttpResponse, Remedy};
use crate::domain::request::{Processing, Request, RequestCompletionResult, RequestData};
use crate::domain::response::{Fields, correction, raw};
use crate::domain::retry::park_pause;
use crate::domain::usage::Usage;
use crate::upstream::dialect::chat;
use crate::upstream::{Call, HttpClient};

/// Bytes of an answer that a model is shown again, to correct it.
const LONGEST_CORRECTED: usize = 4 << 20;

/// A row whose answer is checked.
pub(super) struct SchemaCheckedRow {
    body: Fields,
    messages: Vec<Box<RawValue>>,
    schema: RowSchema,
    /// Tokens of answers that did not match.
    earlier: Usage,
}

impl SchemaCheckedRow {
    /// The row, if its answer is to be checked.
    ///
    /// # Errors
    /// What is wrong with the schema it asks for.
    pub(super) fn of(data: &RequestData, schemas: &AnswerSchemas) -> Result<Option<Self>, FailureReason> {
        if !schemas.applies_to(data) {
            return Ok(None);
        }
        let wrong = |error: serde_json::Error| {
            FailureReason::InvalidRow(format!("The row's body cannot be read: {}.", plainly(&error)))
        };
        let body = Fields::read(&data.body).map_err(wrong)?;
        let Some(schema) = schemas.schema(body.raw("response_format"))? else { return Ok(None) };
        let messages = body.get("messages").map_err(wrong)?.unwrap_or_default();
        Ok(Some(Self { body, messages, schema, earlier: Usage::default() }))
    }

    /// Asks, and asks for corrections, `corrections` times at most.
    pub(super) async fn run(
        mut self,
        request: Request<Processing>,
        http: impl HttpClient,
        should_retry: ShouldRetry,
        cancellation: CancellationFuture,
        corrections: u32,
    ) -> RequestCompletionResult {
        let asked = tokio::select! {
            asked = self.ask(&request, http, &should_retry, corrections) => asked,
            reason = cancellation => return RequestCompletionResult::Canceled(request.cancel(reason)),
        };
        let request = request.spend(self.earlier);
        match asked {
            Err(reason) => RequestCompletionResult::Failed(request.fail(reason)),
            Ok(response) => request.complete(response, &*should_retry),
        }
    }

    /// The last answer.
    async fn ask(
        &mut self,
        request: &Request<Processing>,
        http: impl HttpClient,
        should_retry: &ShouldRetry,
        corrections: u32,
    ) -> Result<HttpResponse, FailureReason> {
        let mut call = Call::from(&request.data);
        for asked in 0.. {
            let response = if asked == 0 { http.post(call).await? } else { call_again(&http, &call).await? };
            let Answer { response, usage } = response.succeeded(&**should_retry).and_then(Answer::of)?;
            let answers = match chat::answers(&response.body) {
                Ok(answers) => answers,
                Err(error) => return Err(FailureReason::UnreadableAnswer(response.unreadable(&plainly(&error)))),
            };
            let wrong = answers.into_iter().find_map(|answer| Some((self.schema.check(&answer.text).err()?, answer)));
            let Some((wrong, answer)) = wrong else { return Ok(response) };
            self.earlier.add(usage);
            if asked == corrections || response.body.len() > LONGEST_CORRECTED {
                return Err(FailureReason::SchemaInvalid(response.into(), wrong));
            }
            let user = json!({ "role": "user", "content": correction(&wrong) });
            self.messages.extend([answer.message, raw(&user)]);
            self.body.set("messages", &self.messages);
            let key = format!("{}.{}", request.data.id, asked + 1);
            call = Call { key, body: self.body.to_json().into(), ..Call::from(&request.data) };
        }
        unreachable!("it is asked until it is answered")
    }
}

/// Makes a further call of a row. The answers so far are kept nowhere else and were paid for, so it waits for an
/// upstream that takes no calls.
async fn call_again(http: &impl HttpClient, call: &Call) -> Result<HttpResponse, FailureReason> {
    let mut refusals = 0;
    loop {
        http.acquire_permit().await?;
        let reason = match http.post(call.clone()).await.map_err(FailureReason::from) {
            Err(reason) if reason.remedy() == Remedy::Wait => reason,
            ended => return ended,
        };
        http.release_permit();
        tokio::time::sleep(park_pause(&reason, refusals, rand::random())).await;
        refusals = refusals.saturating_add(1);
    }
}
