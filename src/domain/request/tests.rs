//! Every move a request can make, and where it leads.

use bytes::Bytes;

use super::*;
use crate::domain::ids::{BatchId, DaemonId, LeaseId};
use crate::domain::lease::LeaseHold;
use crate::domain::outcome::{FailureReason, HttpResponse};
use crate::domain::time::Timestamp;

pub(in crate::domain) fn pending() -> Request<Pending> {
    Request::new(RequestData {
        id: RequestId { batch: BatchId::new(), row: 7 },
        owner: Owner::default(),
        custom_id: "r-7".to_owned(),
        endpoint: Endpoint::ChatCompletions,
        model: "m".into(),
        body: Bytes::from_static(b"{}"),
        metadata: Arc::default(),
        expires_at: Timestamp(86_400_000),
    })
}

pub(in crate::domain) fn claimed() -> Claimed {
    Claimed { daemon_id: DaemonId::new(), lease: LeaseHold { id: LeaseId::new(), token: 1 } }
}

fn processing() -> Request<Processing> {
    pending().claim(claimed()).process(Timestamp(5))
}

fn response(status: u16, body: &'static str) -> HttpResponse {
    HttpResponse { status, body: Bytes::from_static(body.as_bytes()), ..HttpResponse::default() }
}

#[test]
fn an_answer_leads_where_its_status_and_body_say() {
    let should_retry = |response: &HttpResponse| response.status == 429 || response.status >= 500;
    let cases: [(HttpResponse, &str); 7] = [
        (response(200, "{}"), "completed"),
        (response(204, ""), "invalid_upstream_answer"),
        (response(200, "<html>"), "invalid_upstream_answer"),
        (response(302, ""), "final"),
        (response(400, "{}"), "final"),
        (response(429, "{}"), "retriable"),
        (response(503, "oops"), "retriable"),
    ];
    for (response, expected) in cases {
        let status = response.status;

        let led_to = match processing().complete(response, &should_retry) {
            RequestCompletionResult::Completed(_) => "completed",
            RequestCompletionResult::Canceled(_) => "canceled",
            RequestCompletionResult::Failed(request) => match request.state.reason {
                FailureReason::RetriableHttpStatus(_) => "retriable",
                FailureReason::NonRetriableHttpStatus(_) => "final",
                other => other.code(),
            },
        };

        assert_eq!(led_to, expected, "status {status}");
    }
}

#[test]
fn every_move_keeps_what_is_sent() {
    let data = pending().data;
    let start = || Request::new(data.clone());
    let daemon = claimed;

    assert_eq!(start().claim(daemon()).data, data);
    assert_eq!(start().claim(daemon()).unclaim(), start());
    assert_eq!(start().claim(daemon()).process(Timestamp(1)).data, data);
    assert_eq!(start().claim(daemon()).process(Timestamp(1)).cancel(CancellationReason::User).data, data);
    assert_eq!(
        start().claim(daemon()).process(Timestamp(1)).fail(FailureReason::UpstreamUnreachable(String::new())).data,
        data
    );
}

#[test]
fn only_a_retry_counts_an_attempt() {
    let failed = processing().fail(FailureReason::UpstreamTimeout(String::new()));
    assert_eq!(failed.attempt, 0);

    let again = failed.retry(Timestamp(99));

    assert_eq!(again.attempt, 1);
    assert_eq!(again.state.not_before, Some(Timestamp(99)));
    assert_eq!(again.claim(claimed()).unclaim().attempt, 1);
}

#[test]
fn a_request_that_is_parked_keeps_its_attempts_and_is_not_fresh_any_more() {
    let away = || FailureReason::StorageUnavailable(String::new());
    assert!(pending().claim(claimed()).is_fresh());

    let parked = processing().fail(away()).park(Timestamp(9));

    assert_eq!((parked.attempt, parked.parks, parked.state.not_before), (0, 1, Some(Timestamp(9))));
    let again = parked.claim(claimed());
    assert!(!again.is_fresh(), "it may have steps");
    assert_eq!(again.process(Timestamp(10)).fail(away()).park(Timestamp(11)).parks, 2);
}

#[test]
fn an_attempt_or_a_step_that_ends_well_ends_the_series_of_parks() {
    let parked = || processing().fail(FailureReason::StorageUnavailable(String::new())).park(Timestamp(9));
    let running = || parked().claim(claimed()).process(Timestamp(10));

    let tried = running().fail(FailureReason::UpstreamTimeout(String::new())).retry(Timestamp(11));
    let progressed = running().progress();

    assert_eq!((tried.attempt, tried.parks), (1, 0));
    assert_eq!((progressed.attempt, progressed.parks), (0, 0));
}
