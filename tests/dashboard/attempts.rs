//! What the page of a row says of its attempts.

use serde_json::json;

use crate::common::builders::rows;
use crate::common::eventually::{eventually, until};
use crate::common::fake_upstream::Reply;
use crate::common::test_app::TestApp;

async fn row(app: &TestApp, batch: &str) -> String {
    app.get(&format!("/dashboard/batches/{batch}/rows?custom_id=row-0")).await.text()
}

/// What the page says of the number of attempts.
fn said(page: &str) -> &str {
    let (_, rest) = page.split_once("<dt>Attempts</dt><dd class=\"text\">").expect("it is among the facts");
    rest.split_once("</dd>").expect("it ends").0
}

/// The cells of the table of attempts, without tags and with single blanks.
fn lines(page: &str) -> Vec<Vec<String>> {
    let Some((_, section)) = page.split_once("<h2 id=\"attempts\">") else { return Vec::new() };
    let (_, body) = section.split_once("<tbody>").expect("it has a table");
    let (body, _) = body.split_once("</tbody>").expect("the table ends");
    let plain = |cell: &str| {
        let text: String = cell.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let cells = |line: &str| line.split("</td>").flat_map(|part| part.split("</th>")).map(plain).collect::<Vec<_>>();
    body.split("</tr>").map(cells).filter(|cells| cells.len() > 1).collect()
}

/// Number, upstream and end of each attempt: what does not depend on the time.
fn ends(page: &str) -> Vec<[String; 3]> {
    lines(page).into_iter().map(|cells| [cells[0].clone(), cells[3].clone(), cells[4].clone()]).collect()
}

#[tokio::test]
async fn a_row_that_failed_twice_and_completed_shows_three_attempts() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| {
        let error = |code: &str| json!({ "error": { "message": format!("<b>{code}</b>"), "code": code } }).to_string();
        match call.attempt {
            0 => Reply::new(500, error("overloaded")),
            1 => Reply::new(408, error("slow")),
            _ => Reply::ok(),
        }
    });
    let id = app.submit(rows(1)).await;
    app.wait_for(&id, "completed").await;

    let page = row(&app, &id).await;

    assert_eq!(said(&page), "3 attempts");
    let expected = [
        ["1", "default", "failed 500 overloaded &#60;b&#62;overloaded&#60;/b&#62;"],
        ["2", "default", "failed 408 slow &#60;b&#62;slow&#60;/b&#62;"],
        ["3", "default", "completed"],
    ];
    assert_eq!(ends(&page), expected.map(|line| line.map(str::to_owned)));
    for cells in lines(&page) {
        assert!(cells[1].ends_with(" UTC") && cells[2].ends_with(" ms"), "{cells:?}");
    }
}

#[tokio::test]
async fn a_row_that_fails_at_last_shows_the_attempt_that_ended_it() {
    let app = TestApp::with(&["--max-retries", "1"]).await;
    app.upstream.reply(|_| Reply::error(500));
    let id = app.submit(rows(1)).await;
    app.wait_for(&id, "completed").await;

    let page = row(&app, &id).await;

    assert_eq!(said(&page), "2 attempts");
    let ends = ends(&page).into_iter().map(|[_, _, ended]| ended).collect::<Vec<_>>();
    assert_eq!(ends, ["failed 500 http_status No."; 2]);
}

#[tokio::test]
async fn a_wait_for_an_upstream_that_takes_no_calls_is_none_of_the_attempts() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| if call.attempt < 3 { Reply::error(503) } else { Reply::ok() });
    let id = app.submit(rows(1)).await;
    app.wait_for(&id, "completed").await;

    let page = row(&app, &id).await;

    assert_eq!(said(&page), "1 attempt");
    let [waited, completed] = &ends(&page)[..] else { panic!("{page}") };
    assert!(waited[0] == "–" && waited[2].starts_with("waited upstream_unavailable, the last of "), "{waited:?}");
    assert_eq!(completed, &["1", "default", "completed"].map(str::to_owned));
}

#[tokio::test]
async fn a_row_that_completes_at_once_has_one_attempt_once_it_has_its_result() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::ok().held());
    let id = app.submit(rows(1)).await;
    until("the call", || app.upstream.calls().len() == 1).await;
    assert_eq!(said(&row(&app, &id).await), "known once the row has its result");
    app.upstream.release();
    app.wait_for(&id, "completed").await;

    let page = row(&app, &id).await;

    assert_eq!((said(&page), lines(&page).len()), ("1 attempt", 0));
}

#[tokio::test]
async fn attempts_that_may_be_forgotten_are_not_claimed_to_be_one() {
    let app = TestApp::with(&["--steps-retention", "1ms"]).await;
    let id = app.submit(rows(1)).await;
    app.wait_for(&id, "completed").await;

    let said_at_last = eventually("the retention to be over", async || {
        let page = row(&app, &id).await;
        (said(&page) != "1 attempt").then(|| said(&page).to_owned())
    });

    assert_eq!(said_at_last.await, "not kept any more");
}
