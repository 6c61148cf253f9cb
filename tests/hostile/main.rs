//! Requests and lines that no good client sends. `requests.jsonl` and `lines.jsonl` have a line for each, with the
//! answer that it gets. Nothing that is there before is changed by any of them, and nothing is left behind.

#[path = "../common/mod.rs"]
mod common;

mod cases;

use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use cases::{HostileLine, HostileRequest, Stage};
use common::builders::rows;
use common::test_app::TestApp;

/// An answer that takes longer is one that hangs.
const SOON: Duration = Duration::from_secs(30);
/// Requests under way at a time.
const AT_ONCE: usize = 16;

/// Sends bytes, and reads all that comes until the server closes.
async fn converse(app: &TestApp, sent: &[u8], ends: bool) -> Vec<u8> {
    let mut connection = TcpStream::connect(app.address).await.expect("the server listens");
    // The server may have answered and closed before it has all of it.
    let _ = connection.write_all(sent).await;
    if ends {
        let _ = connection.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    answer
}

/// All objects that clients see, and the bytes of the file.
async fn objects(app: &TestApp, stage: &Stage) -> Vec<String> {
    let mut objects = Vec::new();
    for path in ["/v1/files?limit=1000", "/v1/batches?limit=100", &format!("/v1/files/{}/content", stage.file)] {
        objects.push(app.get(path).await.text());
    }
    objects
}

/// What is wrong with the answer to a request; `None` if it is the expected one.
async fn fault(app: &TestApp, stage: &Stage, case: &HostileRequest) -> Option<String> {
    let sent = case.bytes(stage);
    let Ok(answer) = timeout(SOON, converse(app, &sent, case.ends)).await else {
        return Some(format!("{}: no answer within {SOON:?}", case.name));
    };
    let answer = String::from_utf8_lossy(&answer).into_owned();
    case.differs(&answer).map(|difference| format!("{}: {difference}\n  {answer:?}", case.name))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_gets_its_answer_and_changes_nothing() {
    let app = TestApp::start().await;
    let stage = Stage::on(&app).await;
    let cases = cases::requests();
    let before = (objects(&app, &stage).await, app.blobs());

    let faults = stream::iter(&cases).map(|case| fault(&app, &stage, case)).buffer_unordered(AT_ONCE);
    let faults: Vec<String> = faults.filter_map(async |fault| fault).collect().await;

    assert!(faults.is_empty(), "{} of {} differ:\n{}", faults.len(), cases.len(), faults.join("\n"));
    let after = (objects(&app, &stage).await, app.blobs());
    assert_eq!(after, before, "nothing is changed, and nothing is left behind");
    assert!(cases.len() > 500, "the corpus has {} requests", cases.len());
}

/// The code and parameter of the error of each line, by the number of the line.
fn found(errors: &[Value], line: usize) -> Vec<(Option<&str>, Option<&str>)> {
    let of_line = errors.iter().filter(|error| error["line"].as_u64() == u64::try_from(line).ok());
    of_line.map(|error| (error["code"].as_str(), error["param"].as_str())).collect()
}

#[tokio::test]
async fn each_line_gets_its_error_and_no_other_line_does() {
    let app = TestApp::start().await;
    let cases: Vec<HostileLine> = cases::lines();
    // Each stands between good lines, to which it must do nothing.
    let mut file = Vec::new();
    for (case, good) in cases.iter().zip(rows(cases.len()).lines()) {
        file.extend([good.as_bytes(), b"\n", &case.bytes(), b"\n"].concat());
    }

    let errors = app.validation_errors(file).await;

    let mut faults = Vec::new();
    for (no, case) in cases.iter().enumerate() {
        let line = 2 * no + 2;
        let expected = [(Some(case.code.as_str()), case.param.as_deref())];
        if found(&errors, line) != expected {
            faults.push(format!("{}: {:?} instead of {expected:?}", case.name, found(&errors, line)));
        }
        if !found(&errors, line - 1).is_empty() {
            faults.push(format!("the good line before {}: {:?}", case.name, found(&errors, line - 1)));
        }
    }
    assert!(faults.is_empty(), "{} of {} differ:\n{}", faults.len(), cases.len(), faults.join("\n"));
    assert_eq!(app.upstream.calls().len(), 0, "nothing runs");
}
