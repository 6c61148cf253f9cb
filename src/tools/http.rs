//! Functions behind a URL: the arguments are posted, the answer's body is the output.

use std::convert::Infallible;
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Response, Url};
use tokio::sync::Semaphore;

use super::ToolError;
use crate::domain::retry::may_pass;
use crate::domain::schema::Schema;
use crate::net::{self, AnswerProgress, BoundedBody, IDEMPOTENCY_KEY};

/// The pause before the first retry; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Characters of a failed call's response that the model sees.
const ERROR_BYTES: usize = 2048;
/// Bytes of cached outputs of one tool.
const CACHE_BYTES: u64 = 16 << 20;

/// The settings of an HTTP tool.
#[derive(Debug)]
pub struct HttpToolSettings {
    /// Where the arguments are posted.
    pub url: Url,
    /// Headers to send.
    pub headers: HeaderMap,
    /// The schema of the arguments.
    pub schema: Schema,
    /// How long one call may take.
    pub timeout: Duration,
    /// Calls that may be under way at once.
    pub max_concurrency: u32,
    /// Calls after the first, for failures that may pass.
    pub retries: u32,
    /// Bytes an output may have.
    pub max_output_bytes: usize,
    /// Whether the same arguments always have the same output.
    pub cache: bool,
}

/// A function that is called by posting its arguments to a URL.
pub struct HttpTool {
    settings: HttpToolSettings,
    client: Client,
    places: Semaphore,
    /// The cached outputs, by arguments.
    outputs: Option<Cache<String, Result<String, ToolError>, OutputWeight>>,
}

#[derive(Clone)]
struct OutputWeight;

impl Weighter<String, Result<String, ToolError>> for OutputWeight {
    fn weight(&self, arguments: &String, said: &Result<String, ToolError>) -> u64 {
        (arguments.len() + said.as_ref().map_or(0, String::len)) as u64
    }
}

impl HttpTool {
    /// A tool that is called through `client`.
    #[must_use]
    pub fn new(settings: HttpToolSettings, client: Client) -> Self {
        let outputs = settings.cache.then(|| Cache::with_weighter(1024, CACHE_BYTES, OutputWeight));
        Self { places: Semaphore::new(settings.max_concurrency as usize), client, outputs, settings }
    }

    /// Calls the tool. The same `key` stands for the same call.
    ///
    /// # Errors
    /// Why there is no output.
    pub async fn call(&self, arguments: &str, key: &str) -> Result<String, ToolError> {
        self.settings.schema.check(arguments).map_err(ToolError::InvalidArguments)?;
        match &self.outputs {
            None => self.call_until_it_answers(arguments, key).await,
            Some(outputs) => {
                // Calls with the same arguments at the same time share one call. A failure is not kept.
                let call = async { Ok::<_, Infallible>(self.call_until_it_answers(arguments, key).await) };
                let Ok(said) = outputs.get_or_insert_async(arguments, call).await;
                if said.is_err() {
                    outputs.remove(arguments);
                }
                said
            }
        }
    }

    async fn call_until_it_answers(&self, arguments: &str, key: &str) -> Result<String, ToolError> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..self.settings.retries {
            match self.call_once(arguments, key).await {
                Called::Ended(result) => return result,
                Called::MayPass(_) => tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await,
            }
            pause *= 2;
        }
        match self.call_once(arguments, key).await {
            Called::Ended(result) => result,
            Called::MayPass(error) => Err(error),
        }
    }

    async fn call_once(&self, arguments: &str, key: &str) -> Called {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let call = self
            .client
            .post(self.settings.url.clone())
            .headers(self.settings.headers.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(&IDEMPOTENCY_KEY, key)
            .body(arguments.to_owned());
        let answer = async {
            let response = call.send().await.map_err(|error| ToolError::of_http(&error))?;
            let status = response.status();
            Ok((status, self.body(response).await?))
        };
        match tokio::time::timeout(self.settings.timeout, answer).await {
            Err(_) => Called::MayPass(ToolError::TimedOut(self.settings.timeout)),
            Ok(Err(error @ ToolError::TooLarge { .. })) => Called::Ended(Err(error)),
            Ok(Err(error)) => Called::MayPass(error),
            Ok(Ok((status, body))) if status.is_success() => Called::Ended(Ok(body)),
            Ok(Ok((status, body))) => {
                let shown = body.char_indices().nth(ERROR_BYTES).map_or(body.as_str(), |(end, _)| &body[..end]);
                let error = ToolError::Failed(format!("The tool answered with status {status}: {shown}"));
                if may_pass(status.as_u16()) { Called::MayPass(error) } else { Called::Ended(Err(error)) }
            }
        }
    }

    async fn body(&self, response: Response) -> Result<String, ToolError> {
        let limit = self.settings.max_output_bytes;
        match net::read_body(response, limit, &AnswerProgress::default())
            .await
            .map_err(|error| ToolError::of_http(&error))?
        {
            BoundedBody::Whole(body) => Ok(String::from_utf8_lossy(&body).into_owned()),
            BoundedBody::TooLong(_) => Err(ToolError::TooLarge { limit }),
        }
    }
}

enum Called {
    Ended(Result<String, ToolError>),
    MayPass(ToolError),
}
