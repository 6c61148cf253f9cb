//! One server whose answers are a script.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;

use super::*;
use crate::config::Dialect;
use crate::domain::ids::{BatchId, RequestId};

/// Answers with one status after the other, and the last again and again.
#[derive(Debug, Clone)]
struct Scripted {
    statuses: &'static [u16],
    calls: Arc<AtomicUsize>,
}

impl HttpClient for Scripted {
    async fn post(&self, _call: Call) -> Result<HttpResponse, UpstreamError> {
        let no = self.calls.fetch_add(1, SeqCst).min(self.statuses.len() - 1);
        Ok(HttpResponse { status: self.statuses[no], ..HttpResponse::default() })
    }
}

async fn post(server: &Server, endpoint: Endpoint) -> Result<u16, UpstreamError> {
    let admission = server.admission(&"m".into());
    let call = Call { endpoint, model: "m".into(), key: String::new(), body: Bytes::new(), file: None };
    let admitted = admission.begin(false)?;
    let headers = RowHeaders::of(RequestId { batch: BatchId::new(), row: 0 }, "row");
    let answer = server.post(&call, &headers, admitted, &mut CallHistory::default()).await;
    answer.map(|response| response.status)
}

fn server(statuses: &'static [u16], dialect: Dialect) -> (Server, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    let client = Scripted { statuses, calls: calls.clone() };
    let settings = ServerSettings { dialect, ..ServerSettings::default() };
    let server = Server::embedded(client, settings, Clock::System);
    server.follow_limit(64);
    (server, calls)
}

#[tokio::test]
async fn an_answer_that_may_be_the_servers_is_asked_for_again_and_judged_again() {
    use Endpoint::{ChatCompletions, Responses};
    // What the server answers, what a row gets, and after how many calls. The server shows its models.
    let cases: [(Endpoint, &'static [u16], Option<u16>, usize); 7] = [
        (ChatCompletions, &[403], Some(403), 2),
        (ChatCompletions, &[404, 200], Some(200), 2),
        (ChatCompletions, &[404, 429], None, 2),
        (ChatCompletions, &[403, 401], None, 2),
        // Of an API that has not answered yet, such an answer says that it is not there.
        (Responses, &[404], Some(404), 1),
        (Responses, &[403, 200], Some(200), 2),
        (Responses, &[429], None, 1),
    ];
    for (endpoint, statuses, expected, made) in cases {
        let (server, calls) = server(statuses, Dialect::Auto);

        let answer = post(&server, endpoint).await;

        match expected {
            Some(status) => assert_eq!(answer, Ok(status), "{endpoint:?} {statuses:?}"),
            None => assert!(matches!(answer, Err(UpstreamError::Unavailable(_))), "{endpoint:?} {statuses:?}"),
        }
        assert_eq!(calls.load(SeqCst), made, "{endpoint:?} {statuses:?}");
    }
}

#[tokio::test]
async fn each_model_has_an_admission_of_its_own_as_long_as_it_is_used() {
    let (server, _) = server(&[401], Dialect::Native);
    let [refused, other]: [Arc<str>; 2] = ["m".into(), "other".into()];
    let kept = [server.admission(&refused), server.admission(&other)];

    for _ in 0..5 {
        let _ = post(&server, Endpoint::Embeddings).await;
    }

    assert!(post(&server, Endpoint::Embeddings).await.is_err_and(|error| matches!(error, UpstreamError::HeldBack(_))));
    assert!(!kept[0].may_begin() && kept[1].may_begin());
    let [(model, why)] = &server.troubles()[..] else { panic!("{:?}", server.troubles()) };
    assert_eq!(&**model, "m");
    assert!(why.contains("401"), "{why}");
    drop(kept);
    assert!(server.troubles().is_empty());
    assert!(server.admission(&refused).may_begin(), "it was forgotten");
}

#[tokio::test]
async fn whoever_follows_is_told_when_rows_may_begin() {
    let (server, _) = server(&[401], Dialect::Native);
    let server = Arc::new(server);
    let admission = server.admission(&"m".into());
    for _ in 0..5 {
        let _ = post(&server, Endpoint::Embeddings).await;
    }
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (followed, seen) = (server.clone(), admission.clone());
    let following = tokio::spawn(async move {
        followed.follow(|| tell.send(seen.may_begin()).expect("it is heard")).await;
    });

    assert_eq!(told.recv().await, Some(false));
    while !told.recv().await.expect("it follows") {}
    assert!(admission.enter().is_some());
    following.abort();
}
