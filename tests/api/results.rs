//! The results of a batch as pages, while it runs and after.

use std::time::{Duration, Instant};

use batchwright::api::ServerLimits;
use batchwright::client::Client;
use batchwright::domain::result_cursor::{ResultCursor, ResultKind};
use reqwest::{Method, RequestBuilder};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use tokio::io::AsyncReadExt as _;

use crate::common::builders::{file, line, rows};
use crate::common::client::{Answer, send};
use crate::common::eventually::eventually;
use crate::common::fake_upstream::Reply;
use crate::common::live_results::{all_pages, files, has_ended, next_cursor, results, sorted};
use crate::common::raw_http::{get, open};
use crate::common::test_app::TestApp;

/// Refuses `row-1` and `row-4`, and holds `row-5`.
fn two_fail_and_one_is_held(app: &TestApp) {
    app.upstream.reply(|call| match call {
        call if call.is_of("row-1") || call.is_of("row-4") => Reply::error(400),
        call if call.is_of("row-5") => Reply::ok().held(),
        _ => Reply::ok(),
    });
}

fn line_count(answer: &Answer) -> usize {
    answer.text().lines().count()
}

async fn once_recorded(app: &TestApp, id: &str, lines: usize) -> Answer {
    eventually("lines to be recorded", async || {
        let page = results(app, id, "").await;
        (line_count(&page) == lines).then_some(page)
    })
    .await
}

#[tokio::test]
async fn lines_are_read_while_the_batch_runs_each_once_and_as_the_files_have_them() {
    let app = TestApp::start().await;
    two_fail_and_one_is_held(&app);
    let id = app.submit(rows(6)).await;

    let early = once_recorded(&app, &id, 5).await;
    let kinds = [results(&app, &id, "kind=output").await, results(&app, &id, "kind=errors").await];
    let behind = results(&app, &id, &format!("after={}", next_cursor(&early))).await;
    let counts = app.batch(&id).await["request_counts"].clone();
    app.upstream.release();
    let rest = results(&app, &id, &format!("wait=30&after={}", next_cursor(&early))).await;
    let batch = app.wait_for(&id, "completed").await;
    let [output, errors] = files(&app, &batch).await;

    assert_eq!((early.header("content-type"), has_ended(&early)), ("application/x-ndjson", false));
    assert_eq!(counts, serde_json::json!({ "total": 6, "completed": 3, "failed": 2 }));
    assert_eq!(kinds.each_ref().map(line_count), [3, 2]);
    assert_eq!(early.text(), kinds[0].text() + &kinds[1].text());
    assert_eq!((behind.text(), next_cursor(&behind)), (String::new(), next_cursor(&early)));
    assert_eq!(output, kinds[0].text() + &rest.text());
    assert_eq!(errors, kinds[1].text());
    assert_eq!(all_pages(&app, &id, "kind=output").await, output);
    assert_eq!(all_pages(&app, &id, "kind=errors&limit=1").await, errors);
    assert_eq!(all_pages(&app, &id, "kind=all").await, format!("{output}{errors}"));
    for limit in 1..=6 {
        assert_eq!(all_pages(&app, &id, &format!("limit={limit}")).await, format!("{output}{errors}"), "{limit}");
        assert_eq!(line_count(&results(&app, &id, &format!("limit={limit}")).await), limit);
    }
}

#[tokio::test]
async fn the_cursor_is_how_far_each_file_was_read() {
    let app = TestApp::start().await;
    two_fail_and_one_is_held(&app);
    app.upstream.release();
    let id = app.submit(rows(6)).await;
    let batch = app.wait_for(&id, "completed").await;
    let [output, errors] = files(&app, &batch).await;

    let first = results(&app, &id, "limit=1").await;
    let rest = results(&app, &id, &format!("after={}-0", first.bytes.len())).await;
    let errors_alone = results(&app, &id, &format!("after={}-0", output.len())).await;

    assert_eq!(next_cursor(&first), format!("{}-0", first.bytes.len()));
    assert_eq!(next_cursor(&rest), format!("{}-{}", output.len(), errors.len()));
    assert_eq!(first.text() + &rest.text(), format!("{output}{errors}"));
    assert_eq!(errors_alone.text(), errors);
    assert_eq!([&first, &rest, &errors_alone].map(has_ended), [false, true, true]);
    // What an empty parameter says is nothing.
    assert_eq!(results(&app, &id, "after=&limit=&wait=&kind=&order=").await.text(), format!("{output}{errors}"));
}

#[tokio::test]
async fn wrong_parameters_and_damaged_cursors_are_refused_with_what_to_do() {
    let app = TestApp::start().await;
    let id = app.submit(rows(2)).await;
    app.wait_for(&id, "completed").await;
    let cases = [
        ("after=x", "'x' is no cursor"),
        ("after=5", "'5' is no cursor"),
        ("after=-1-0", "'-1-0' is no cursor"),
        ("after=5-0", "'5-0' is not at a line of this batch"),
        ("after=99999-0", "'99999-0' is not at a line of this batch"),
        ("after=0-1", "'0-1' is not at a line of this batch"),
        ("kind=output&after=5-0", "'5-0' is not at a line of this batch"),
        ("kind=some", "Supported values are: 'all', 'output', and 'errors'."),
        ("limit=0", "Expected a value >= 1"),
        ("limit=10001", "Expected a value <= 10000"),
        ("wait=61", "Expected a value <= 60"),
        ("wait=soon", "expected an integer"),
        ("order=desc", "Supported values are: 'input'."),
        ("order=input&limit=5", "Leave 'limit' out"),
    ];

    for (query, message) in cases {
        let answer = results(&app, &id, query).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(message), "{query}: {}", answer.text());
        let events = app.request(Method::GET, &format!("/v1/batches/{id}/results?{query}"));
        let events = send(events.header("accept", "text/html, text/event-stream;q=0.9")).await;
        assert_eq!((events.status, events.text()), (answer.status, answer.text()), "{query}");
    }
    let unknown = results(&app, "batch_0123456789abcdef0123456789abcdef", "").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_wait_ends_with_the_next_line_and_with_the_batch() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::ok().held());
    let id = app.submit(rows(1)).await;

    let started = Instant::now();
    let none = results(&app, &id, "wait=1").await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    let waits = async || tokio::join!(results(&app, &id, "wait=60"), results(&app, &id, "wait=60&kind=errors"));
    let release = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        app.upstream.release();
    };
    let ((line, no_errors), ()) = tokio::join!(waits(), release);

    assert_eq!((line_count(&none), has_ended(&none), next_cursor(&none)), (0, false, "0-0"));
    assert_eq!(line_count(&line), 1);
    assert_eq!((line_count(&no_errors), has_ended(&no_errors)), (0, true));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Asks until the one permit to wait is had.
async fn until_it_may_wait(request: RequestBuilder) -> Answer {
    loop {
        let answer = send(request.try_clone().expect("it has no body")).await;
        if answer.status != 503 {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_stop_ends_waits_and_a_client_that_leaves_makes_room_for_another() {
    let limits = ServerLimits { waits: 1, ..ServerLimits::default() };
    let app = TestApp::within(limits, &["--grace", "100ms"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let id = app.submit(rows(1)).await;
    let path = format!("/v1/batches/{id}/results?wait=60");
    let refused = async |app: &TestApp, is_refused: bool| {
        eventually("the one permit to wait", async || {
            let answer = results(app, &id, "wait=1").await;
            ((answer.status == 503) == is_refused).then_some(answer)
        })
        .await
    };

    let waiting = tokio::spawn(until_it_may_wait(app.request(Method::GET, &path)));
    let answer = refused(&app, true).await;
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(results(&app, &id, "").await.status, 200, "without a wait there is no limit");
    waiting.abort();
    refused(&app, false).await;
    let waiting = tokio::spawn(until_it_may_wait(app.request(Method::GET, &path)));
    refused(&app, true).await;
    let stopping = Instant::now();
    app.stop().await;

    let answer = waiting.await.expect("it is not aborted");
    assert_eq!((answer.status, has_ended(&answer)), (200, false));
    assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
}

#[tokio::test]
async fn a_page_is_bounded_but_has_one_line_of_any_length() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| match call {
        call if call.is_of("row-1") => Reply::chat(&"x".repeat(9 << 20)),
        _ => Reply::chat(&"x".repeat(3 << 20)),
    });
    let id = app.submit(rows(5)).await;
    let batch = app.wait_for(&id, "completed").await;
    let [output, _] = files(&app, &batch).await;

    let (mut cursor, mut pages) = (String::new(), Vec::new());
    loop {
        let page = results(&app, &id, &format!("after={cursor}")).await;
        next_cursor(&page).clone_into(&mut cursor);
        pages.push(page.text());
        if has_ended(&page) {
            break;
        }
    }

    assert!(pages.concat() == output);
    for page in &pages {
        assert!(page.len() <= 8 << 20 || page.lines().count() == 1, "{} bytes", page.len());
    }
    assert_eq!(pages.iter().filter(|page| page.len() > 8 << 20).count(), 1);
}

#[tokio::test]
async fn a_cursor_goes_on_when_parts_are_merged() {
    let app = TestApp::with(&["--max-concurrency", "2", "--concurrency", "fixed"]).await;
    app.upstream.reply(|call| {
        let reply = if call.is_of("row-3") { Reply::error(400) } else { Reply::ok() };
        reply.after(Duration::from_millis(150))
    });
    let id = app.submit(rows(60)).await;

    let (mut cursor, mut lines) = (String::new(), [String::new(), String::new()]);
    let mut pages = 0;
    loop {
        let page = results(&app, &id, &format!("after={cursor}&wait=10&limit=7")).await;
        let cursors = [cursor.as_str(), next_cursor(&page)].map(|text| ResultCursor::parse(text).unwrap_or_default());
        let output = usize::try_from(cursors[1].output - cursors[0].output).expect("few");
        lines[0].push_str(&page.text()[..output]);
        lines[1].push_str(&page.text()[output..]);
        next_cursor(&page).clone_into(&mut cursor);
        pages += 1;
        if has_ended(&page) {
            break;
        }
    }

    let batch = app.batch(&id).await;
    assert_eq!(lines, files(&app, &batch).await);
    assert!(pages > 8, "the lines came in {pages} pages");
    let options = SqliteConnectOptions::new().filename(app.database());
    let mut database = SqliteConnection::connect_with(&options).await.expect("the database is there");
    let merged = "SELECT COUNT(*) FROM file_parts WHERE tier > 0";
    let merged: i64 = sqlx::query_scalar(merged).fetch_one(&mut database).await.expect("the table is there");
    assert!(merged > 0, "parts were merged meanwhile");
}

#[tokio::test]
async fn results_whose_file_was_deleted_are_gone_and_a_batch_that_never_ran_has_none() {
    let app = TestApp::start().await;
    two_fail_and_one_is_held(&app);
    app.upstream.release();
    let id = app.submit(rows(6)).await;
    let batch = app.wait_for(&id, "completed").await;
    let [_, errors] = files(&app, &batch).await;
    let output_id = batch["output_file_id"].as_str().expect("three rows succeeded").to_owned();
    app.delete(&format!("/v1/files/{output_id}")).await.ok();

    for query in ["", "kind=output", "order=input", "wait=10"] {
        let answer = results(&app, &id, query).await;
        assert_eq!(answer.status, 404, "{query}");
        assert!(answer.text().contains(&output_id) && answer.text().contains("was deleted"), "{}", answer.text());
    }
    assert_eq!(results(&app, &id, "kind=errors").await.text(), errors);

    let refused = app.submit(file([line("row-0").url("/v1/embeddings")])).await;
    app.wait_for(&refused, "failed").await;
    for query in ["", "order=input", "wait=10"] {
        let answer = results(&app, &refused, query).await;
        assert_eq!((answer.status, line_count(&answer), has_ended(&answer)), (200, 0, true), "{query}");
    }
}

#[tokio::test]
async fn the_order_of_the_input_has_every_row_once() {
    let app = TestApp::with(&["--max-concurrency", "3", "--concurrency", "fixed"]).await;
    app.upstream.reply(|call| {
        let row: u64 =
            call.text().split("row-").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok()).expect("it is");
        match row {
            30.. => Reply::ok().held(),
            row if row % 5 == 2 => Reply::error(400).after(Duration::from_millis(row % 7)),
            _ => Reply::ok().after(Duration::from_millis(row * 31 % 23)),
        }
    });
    // Two models, so that the rows do not run in their order.
    let input = (0..40).map(|no| line(&format!("row-{no}")).model(if no % 2 == 0 { "m" } else { "n" }));
    let id = app.submit(file(input)).await;

    let early = results(&app, &id, "order=input").await;
    app.wait_for_completed(&id, 20).await;
    app.cancel(&id).await.ok();
    let batch = app.wait_for(&id, "cancelled").await;
    let [output, errors] = files(&app, &batch).await;
    let ordered = results(&app, &id, "order=input").await;
    let of_errors = results(&app, &id, "order=input&kind=errors").await;

    assert_eq!(early.status, 400);
    assert!(early.text().contains("once it has ended"), "{}", early.text());
    let ids = |text: &str| -> Vec<String> {
        let id = |line: &str| {
            line.split(r#""custom_id":""#).nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned)
        };
        text.lines().filter_map(id).collect()
    };
    assert_eq!(ids(&ordered.text()), (0..40).map(|no| format!("row-{no}")).collect::<Vec<_>>());
    assert_ne!(ids(&ordered.text()), ids(&format!("{output}{errors}")), "they did not come in this order");
    assert_eq!(sorted(&ordered.text()), sorted(&format!("{output}{errors}")));
    assert_eq!(sorted(&of_errors.text()), sorted(&errors));
    assert!(has_ended(&ordered));
    assert_eq!(next_cursor(&ordered), format!("{}-{}", output.len(), errors.len()));
    assert!(errors.contains("batch_cancelled") && errors.contains(r#""status_code":400"#), "{errors}");
}

#[tokio::test]
async fn so_many_answers_are_in_the_order_of_the_input_at_once_and_a_client_that_leaves_makes_room() {
    let app = TestApp::within(ServerLimits { orders: 1, ..ServerLimits::default() }, &[]).await;
    app.upstream.reply(|_| Reply::chat(&"x".repeat(4 << 20)));
    let id = app.submit(rows(4)).await;
    app.wait_for(&id, "completed").await;

    let mut unread = open(app.address, get(&format!("/v1/batches/{id}/results?order=input"))).await;
    unread.read_exact(&mut [0; 100]).await.expect("the results begin");
    let refused = results(&app, &id, "order=input").await;
    drop(unread);
    eventually("room for another", async || (results(&app, &id, "order=input").await.status == 200).then_some(()))
        .await;

    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
}

#[tokio::test]
async fn the_client_of_the_library_reads_pages() {
    let app = TestApp::start().await;
    two_fail_and_one_is_held(&app);
    let client = Client::new(&format!("{}/v1", app.base_url)).expect("a base URL");
    let id = app.submit(rows(6)).await;
    once_recorded(&app, &id, 5).await;

    let start = ResultCursor::default();
    let page = client.results_page(&id, &start, ResultKind::Output, Duration::from_secs(5)).await.expect("a page");
    app.upstream.release();
    let last = client.results_page(&id, &page.next, ResultKind::All, Duration::from_secs(30)).await.expect("a page");
    let batch = app.wait_for(&id, "completed").await;
    let end = client.results_page(&id, &last.next, ResultKind::All, Duration::ZERO).await.expect("a page");

    let [output, errors] = files(&app, &batch).await;
    assert_eq!((page.next.errors, page.has_ended), (0, false));
    let rest = [last.lines.clone(), end.lines].concat();
    assert_eq!([page.lines, rest].concat().len(), output.len() + errors.len());
    assert!(end.has_ended);
    let damaged = ResultCursor { output: 1, errors: 0 };
    let error = client.results_page(&id, &damaged, ResultKind::All, Duration::ZERO).await.expect_err("it is damaged");
    assert!(error.to_string().contains("not at a line") && !error.may_pass(), "{error}");
}
