//! The library's client against the real service, where it does more than the other tests use.

use batchwright::client::{BatchRequest, Client, ClientError, Polling};
use batchwright::domain::batch::BatchStatus;

use crate::common::builders::rows;
use crate::common::test_app::TestApp;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_file_of_several_megabytes_goes_up_and_its_results_come_down() {
    let app = TestApp::start().await;
    let client = Client::new(&format!("{}/v1", app.base_url)).expect("a base URL");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (input, output) = (directory.path().join("input.jsonl"), directory.path().join("output.jsonl"));
    // Blank lines are no rows.
    std::fs::write(&input, rows(3) + &"\n".repeat(3 << 20)).expect("the directory can be written");

    let file = client.upload_file(&input).await.expect("the file is taken");
    let batch = client.create_batch(&BatchRequest::new(&file.id, CHAT)).await.expect("the batch is created");
    let ended = client.wait(&batch.id, Polling::default(), |_| ()).await.expect("the batch ends");

    assert_eq!(file.filename, "input.jsonl");
    assert_eq!(file.bytes, std::fs::metadata(&input).expect("it is there").len());
    assert_eq!((ended.status, ended.request_counts.completed), (BatchStatus::Completed, 3));
    let output_id = ended.output_file_id.expect("three rows succeeded");
    let bytes = client.download_to(&output_id, &output).await.expect("the file can be downloaded");
    let text = std::fs::read_to_string(&output).expect("it is there");
    assert_eq!((bytes, text.lines().count()), (text.len() as u64, 3));
}

#[tokio::test]
async fn batches_are_listed_cancelled_and_refused_in_the_words_of_the_server() {
    let app = TestApp::start().await;
    let client = Client::new(&format!("{}/v1", app.base_url)).expect("a base URL");
    let file = client.upload_bytes("input.jsonl", rows(1)).await.expect("the file is taken");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let request = BatchRequest::new(&file.id, CHAT);
        let batch = client.create_batch(&request).await.expect("the batch is created");
        client.wait(&batch.id, Polling::default(), |_| ()).await.expect("the batch ends");
        ids.push(batch.id);
    }

    let page = client.batches(None, 2).await.expect("a page");
    let rest = client.batches(Some(&page.data[1].id), 2).await.expect("a page");
    let listed: Vec<_> = page.data.iter().chain(&rest.data).map(|batch| batch.id.clone()).rev().collect();
    assert_eq!((listed, page.has_more, rest.has_more), (ids.clone(), true, false));

    let error = client.cancel_batch(&ids[0]).await.expect_err("it has ended");
    assert!(matches!(&error, ClientError::Refused(answer) if answer.status == 409), "{error}");
    let error = client.content("file-none").await.expect_err("there is none");
    assert!(error.to_string().contains("file-none") && !error.may_pass(), "{error}");
}
