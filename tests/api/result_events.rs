//! The results of a batch, and the batch itself, as events.

use std::time::Duration;

use serde_json::Value;

use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::common::fake_upstream::Reply;
use crate::common::live_results::{Event, EventStream, files};
use crate::common::test_app::TestApp;

/// The lines of the events of a name.
fn lines(events: &[Event], name: &str) -> String {
    events.iter().filter(|event| event.name == name).map(|event| event.data.clone() + "\n").collect()
}

#[tokio::test]
async fn a_stream_goes_on_behind_its_last_event_and_ends_with_the_batch() {
    let app = TestApp::with(&["--max-concurrency", "4", "--concurrency", "fixed"]).await;
    app.upstream.reply(|call| match call {
        call if call.is_of("row-3") || call.is_of("row-9") => Reply::error(400),
        call if call.is_of("row-2") => Reply::chat(&"é".repeat(300_000)),
        call if call.is_of("row-39") => Reply::ok().held(),
        _ => Reply::ok().after(Duration::from_millis(20)),
    });
    let id = app.submit(rows(40)).await;
    let path = format!("/v1/batches/{id}/results");

    let (mut events, mut last) = (Vec::new(), String::new());
    while events.len() < 39 {
        let mut stream = EventStream::open(&app, &path, &last).await;
        // Cut after a few events, within whatever comes then.
        for _ in 0..4.min(39 - events.len()) {
            let event = stream.next().await.expect("more comes");
            last.clone_from(&event.id);
            events.push(event);
        }
    }
    let stream = EventStream::open(&app, &path, &last).await;
    app.upstream.release();
    events.extend(stream.rest().await);

    let batch = app.batch(&id).await;
    let [output, errors] = files(&app, &batch).await;
    assert_eq!(batch["status"], "completed");
    assert_eq!(lines(&events, "output"), output);
    assert_eq!(lines(&events, "error"), errors);
    let end = events.pop().expect("there are events");
    assert_eq!((end.name.as_str(), serde_json::from_str::<Value>(&end.data).expect("JSON")), ("end", batch));
    let again = EventStream::open(&app, &format!("{path}?after={last}"), "").await.rest().await;
    assert_eq!(again.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["output", "end"]);
    let only = EventStream::open(&app, &format!("{path}?kind=errors"), "").await.rest().await;
    assert_eq!((lines(&only, "error"), lines(&only, "output")), (errors, String::new()));
}

#[tokio::test]
async fn a_stream_without_an_end_is_cut_when_the_service_stops() {
    let app = TestApp::with(&["--grace", "100ms"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let id = app.submit(rows(1)).await;
    app.wait_for_status(&id, "in_progress").await;
    let streams = [
        EventStream::open(&app, &format!("/v1/batches/{id}/results"), "").await,
        EventStream::open(&app, &format!("/v1/batches/{id}/events"), "").await,
    ];

    let stopping = app.begin_to_stop();
    for stream in streams {
        let events = stream.rest().await;
        assert!(events.iter().all(|event| ["batch", "progress"].contains(&event.name.as_str())), "{events:?}");
    }
    stopping.ended().await;
}

#[tokio::test]
async fn a_batch_is_told_at_each_change_and_at_its_end() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| if call.is_of("row-1") { Reply::ok().held() } else { Reply::ok() });
    let id = app.submit(rows(2)).await;

    let path = format!("/v1/batches/{id}/events");
    let mut stream = EventStream::open(&app, &path, "").await;
    let mut events = Vec::new();
    eventually("the first row to be told of", async || {
        let event = stream.next().await.expect("more comes");
        let batch: Value = serde_json::from_str(&event.data).expect("JSON");
        events.push((event.name, batch.clone()));
        (batch["rows"]["completed"] == 1).then_some(())
    })
    .await;
    app.upstream.release();
    for event in stream.rest().await {
        events.push((event.name, serde_json::from_str(&event.data).expect("JSON")));
    }

    let batch = app.batch(&id).await;
    let (end, changes) = events.split_last().expect("there are events");
    assert_eq!(end, &("end".to_owned(), batch.clone()));
    let named = |name| changes.iter().filter(move |(known, _)| known == name).map(|(_, object)| object);
    assert_eq!(named("batch").next_back(), Some(&batch));
    assert_eq!(named("progress").next_back(), Some(&app.get(&format!("/v1/batches/{id}/progress")).await.ok()));
    for name in ["batch", "progress"] {
        let objects: Vec<_> = named(name).collect();
        assert!(objects.windows(2).all(|pair| pair[0] != pair[1]), "{objects:?}");
    }
    let again = EventStream::open(&app, &path, "").await.rest().await;
    assert_eq!(again.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["batch", "progress", "end"]);
    assert_eq!(app.get("/v1/batches/batch_0123456789abcdef0123456789abcdef/events").await.status, 404);
}
