//! The admission over time. Time passes by moving its start into the past.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn admission() -> Arc<Admission> {
    Arc::new(Admission::new(Limiter::new(64), ConcurrencyController::fixed(64), Arc::default()))
}

fn answer(status: u16) -> HttpResponse {
    HttpResponse { status, ..HttpResponse::default() }
}

/// A call of a row that has no right to begin alone.
fn call(admission: &Admission) -> AdmittedCall<'_> {
    admission.begin(false).expect("it takes calls")
}

fn gone(call: AdmittedCall<'_>) {
    call.gone(None, "it is gone".to_owned(), &mut RefusalHistory::default());
}

fn answered(call: AdmittedCall<'_>) {
    call.answered(&answer(200), &mut RefusalHistory::default());
}

fn refused(call: AdmittedCall<'_>, retry_after: Option<Duration>, history: &mut RefusalHistory) {
    call.refused(&HttpResponse { retry_after, ..answer(429) }, "it is busy".to_owned(), history);
}

/// Calls under way together that all fail, as many as open the breaker.
fn fail(admission: &Admission, calls: usize) {
    let calls: Vec<_> = (0..calls).map(|_| call(admission)).collect();
    calls.into_iter().for_each(gone);
}

/// Lets time pass, as the task sees it that follows the clock. Nobody may have a right to begin alone.
fn pass(admission: &mut Arc<Admission>, time: Duration) {
    let only = Arc::get_mut(admission).expect("it is used nowhere else");
    only.started = only.started.checked_sub(time).expect("the machine has run for so long");
    admission.follow();
}

/// Begins the call of a row that is let through alone.
fn probe(admission: &Arc<Admission>) -> AdmittedCall<'_> {
    let entry = admission.enter().expect("one row may begin");
    assert!(!admission.may_begin(0) && admission.enter().is_none(), "and no other");
    let call = admission.begin(true).expect("it asks");
    entry.use_up();
    call
}

#[test]
fn an_outage_costs_one_call_at_a_time_and_half_of_the_calls_follow_its_end() {
    let mut admission = admission();
    fail(&admission, 64);
    assert!(!admission.may_begin(0));
    assert_eq!(admission.trouble().as_deref(), Some("it is gone"));
    assert!(matches!(admission.begin(false), Err(UpstreamError::HeldBack(_))));

    for pause in [1, 2, 4, 4, 4] {
        pass(&mut admission, SECOND / 2 * (2 * pause - 1));
        assert!(!admission.may_begin(0), "{pause} s are not over");
        pass(&mut admission, SECOND / 2);
        gone(probe(&admission));
        assert!(!admission.may_begin(0));
    }

    pass(&mut admission, SECOND * 4);
    answered(probe(&admission));
    assert!(admission.enter().is_none(), "rows begin as they like");
    assert_eq!((admission.may_begin(31), admission.may_begin(32), admission.trouble()), (true, false, None));
}

#[test]
fn a_row_that_is_let_through_and_makes_no_call_leaves_its_place_to_another() {
    let mut admission = admission();
    fail(&admission, 5);
    pass(&mut admission, SECOND);
    let entry = admission.enter();
    assert!(entry.is_some() && !admission.may_begin(0));

    drop(entry);

    assert!(admission.may_begin(0));
    drop(probe(&admission));
    assert!(admission.may_begin(0), "a call that was given up asks nothing");
}

#[test]
fn a_call_that_lasts_longer_than_failures_do_shows_that_the_server_is_back() {
    let mut admission = admission();
    fail(&admission, 5);
    pass(&mut admission, SECOND);
    std::mem::forget(probe(&admission));
    assert!(!admission.may_begin(0));

    pass(&mut admission, SECOND);

    assert!(admission.may_begin(0));
    assert_eq!(admission.trouble(), None);
}

#[test]
fn every_call_waits_as_long_as_the_server_asks() {
    let mut admission = admission();
    let [first, second] = [(); 2].map(|()| call(&admission));
    refused(first, Some(SECOND * 12), &mut RefusalHistory::default());

    assert!(!admission.may_begin(0));
    assert_eq!(admission.trouble().as_deref(), Some("it is busy; it asks to wait for 11 s more"));
    answered(second);
    pass(&mut admission, SECOND * 11);
    assert!(!admission.may_begin(0));
    assert_eq!(admission.trouble(), None, "that is soon over");
    pass(&mut admission, SECOND);
    assert!(admission.may_begin(0));
}

#[test]
fn what_is_known_of_a_row_is_what_happened_since_its_last_refusal() {
    let admission = admission();
    let mut history = RefusalHistory::default();
    let signs = |call: &AdmittedCall<'_>, history| {
        let RowSigns { has_taken_others, refusals } = call.signs(history);
        (has_taken_others, refusals)
    };
    // Refused among others, a call says nothing of a rate.
    let _others = [(); 2].map(|()| call(&admission));
    let [first, other] = [(); 2].map(|()| call(&admission));
    assert_eq!(signs(&first, history), (false, 0));
    answered(other);
    assert_eq!(signs(&first, history), (true, 0), "another was taken since its call was sent");
    refused(first, None, &mut history);

    let again = call(&admission);
    assert_eq!(signs(&again, history), (false, 1));
    drop(again);
    answered(call(&admission));
    let again = call(&admission);
    assert_eq!(signs(&again, history), (true, 1), "another was taken since it was refused");

    again.answered(&answer(200), &mut history);
    assert_eq!(signs(&call(&admission), history), (false, 0), "it starts anew");
}

#[tokio::test]
async fn whoever_waits_with_a_call_goes_on_when_the_server_takes_calls() {
    let mut admission = admission();
    fail(&admission, 5);
    assert!(futures::FutureExt::now_or_never(admission.until_open()).is_none());

    pass(&mut admission, SECOND);

    admission.until_open().await;
}

#[test]
fn the_output_tokens_of_an_answer_are_read_where_servers_state_them() {
    let far = format!(r#"{{"usage":{{"completion_tokens":5}},"choices":["{}"]}}"#, "a".repeat(USAGE_BYTES));
    let cases: [(&str, Option<u64>); 7] = [
        (r#"{"usage":{"prompt_tokens":3,"completion_tokens":12,"total_tokens":15}}"#, Some(12)),
        (r#"{"usage":{"output_tokens" : 7, "output_tokens_details":{"reasoning_tokens":2}}}"#, Some(7)),
        (r#"{"usage":{"completion_tokens_details":{"reasoning_tokens":2}}}"#, None),
        (r#"{"usage":{"completion_tokens":null}}"#, None),
        (r#"{"usage":{"completion_tokens":99999999999999999999999}}"#, None),
        ("", None),
        (&far, None),
    ];
    for (body, tokens) in cases {
        assert_eq!(output_tokens(body.as_bytes()), tokens, "{body}");
    }
}
