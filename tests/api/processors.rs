//! A processor of an embedding program: its rows end as it says, and its errors are its own.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use batchwright::domain::outcome::{FailureReason, HttpResponse};
use batchwright::domain::request::{Claimed, Request, RequestCompletionResult};
use batchwright::domain::time::Clock;
use batchwright::processor::{CancellationFuture, ProcessorError, RequestProcessor, ShouldRetry};
use batchwright::storage::Storage;
use batchwright::upstream::{Call, HttpClient, NoUpstream};
use batchwright::{ServeConfig, Service};
use serde_json::json;
use tokio::net::TcpListener;

use crate::common::builders::{file, line};
use crate::common::client::{Client, text};

/// Ends each row as its name says, and counts how often it was asked.
#[derive(Default)]
struct Scripted(Mutex<HashMap<String, u32>>);

#[async_trait]
impl<S: Storage, H: HttpClient> RequestProcessor<S, H> for Scripted {
    async fn process(
        &self,
        request: Request<Claimed>,
        http: H,
        _storage: &S,
        should_retry: ShouldRetry,
        _cancellation: CancellationFuture,
    ) -> Result<RequestCompletionResult, ProcessorError> {
        let times = {
            let mut asked = self.0.lock().expect("nobody panics with the lock");
            let times = asked.entry(request.data.custom_id.clone()).or_default();
            *times += 1;
            *times
        };
        let name = request.data.custom_id.clone();
        let call = Call::from(&request.data);
        let request = request.process(Clock::System.now());
        let fail = |request: Request<_>, reason| Ok(RequestCompletionResult::Failed(request.fail(reason)));
        match name.as_str() {
            "error" => Err("It gave up.".into()),
            "panic" => panic!("a test"),
            "upstream" => match http.post(call).await {
                Err(error) => fail(request, error.into()),
                Ok(response) => Ok(request.complete(response, &*should_retry)),
            },
            "tool" => fail(request, FailureReason::ToolServerUnreachable("It is away.".to_owned())),
            "storage" if times < 3 => fail(request, FailureReason::StorageUnavailable("It is away.".to_owned())),
            _ => {
                let answer = HttpResponse::json(200, &json!({ "asked": times }));
                Ok(request.complete(answer, &*should_retry))
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_embedded_processor_end_as_it_says_and_its_errors_are_its_own() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut settings = ServeConfig::default();
    settings.storage.data_dir = directory.path().to_owned();
    settings.worker.max_retries = 0;
    let service = Service::embed(settings, NoUpstream, Scripted::default()).await.expect("it starts");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let client = Client::new(format!("http://{}", listener.local_addr().expect("it is bound")));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(service.serve(listener, async { drop(stopped.await) }));

    let names = ["error", "panic", "upstream", "tool", "storage"];
    let id = client.submit(file(names.map(line))).await;
    let results = client.results(&client.wait_for(&id, "completed").await).await;

    let mut errors: Vec<[&str; 2]> =
        results.errors.iter().map(|line| [text(&line["custom_id"]), text(&line["error"]["code"])]).collect();
    errors.sort_unstable();
    let expected = [
        ["error", "processor_error"],
        ["panic", "processor_error"],
        ["tool", "tool_server_unreachable"],
        ["upstream", ""],
    ];
    assert_eq!(errors, expected);
    let refused = results.errors.iter().find(|line| text(&line["custom_id"]) == "upstream").expect("it is there");
    assert_eq!(refused["response"]["status_code"], 501);
    // Without retries it is asked three times: what is away costs no attempt.
    let [output] = &results.output[..] else { panic!("{:?}", results.output) };
    assert_eq!(output["response"]["body"], json!({ "asked": 3 }));
    drop(stop);
    serving.await.expect("it does not panic").expect("it stops in order");
}
