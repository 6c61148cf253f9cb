//! The admission over time. Time passes by moving its start into the past.

use super::*;
use crate::domain::outcome::HttpResponse;

const SECOND: Duration = Duration::from_secs(1);

fn admission() -> Arc<Admission> {
    let of = AdmittedModel { upstream: "default".into(), server_no: 1, model: "m".into() };
    Arc::new(Admission::new(
        of,
        Arc::new(AtomicUsize::new(64)),
        ConcurrencyController::fixed(64),
        GivenRates::default(),
        Arc::default(),
    ))
}

fn answer(status: u16) -> HttpResponse {
    HttpResponse { status, ..HttpResponse::default() }
}

/// A call of a row that has no right to begin alone.
fn call(admission: &Admission) -> AdmittedCall<'_> {
    admission.begin(false).expect("it takes calls")
}

fn gone(call: AdmittedCall<'_>) {
    call.gone(None, "it is gone".to_owned(), &mut CallHistory::default());
}

fn answered(call: AdmittedCall<'_>) {
    call.answered(&answer(200), &mut CallHistory::default());
}

fn refused(call: AdmittedCall<'_>, retry_after: Option<Duration>, history: &mut CallHistory) {
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
    assert!(!admission.may_begin() && admission.enter().is_none(), "and no other");
    let call = admission.begin(true).expect("it asks");
    entry.use_up();
    call
}

#[test]
fn an_outage_costs_one_call_at_a_time_and_half_of_the_calls_follow_its_end() {
    let mut admission = admission();
    fail(&admission, 64);
    assert!(!admission.may_begin());
    assert_eq!(admission.trouble().as_deref(), Some("it is gone"));
    assert!(matches!(admission.begin(false), Err(UpstreamError::HeldBack(_))));

    for pause in [1, 2, 2, 2, 2] {
        pass(&mut admission, SECOND / 2 * (2 * pause - 1));
        assert!(!admission.may_begin(), "{pause} s are not over");
        pass(&mut admission, SECOND / 2);
        gone(probe(&admission));
        assert!(!admission.may_begin());
    }

    pass(&mut admission, SECOND * 4);
    answered(probe(&admission));
    assert!(admission.enter().is_none(), "rows begin as they like");
    let may_begin_beside = |rows| {
        admission.rows.store(rows, Relaxed);
        admission.may_begin()
    };
    assert_eq!((may_begin_beside(31), may_begin_beside(32), admission.trouble()), (true, false, None));
}

#[test]
fn a_row_that_is_let_through_and_makes_no_call_leaves_its_place_to_another() {
    let mut admission = admission();
    fail(&admission, 5);
    pass(&mut admission, SECOND);
    let entry = admission.enter();
    assert!(entry.is_some() && !admission.may_begin());

    drop(entry);

    assert!(admission.may_begin());
    drop(probe(&admission));
    assert!(admission.may_begin(), "a call that was given up asks nothing");
}

#[test]
fn a_call_that_lasts_longer_than_failures_do_shows_that_the_server_is_back() {
    let mut admission = admission();
    fail(&admission, 5);
    pass(&mut admission, SECOND);
    std::mem::forget(probe(&admission));
    assert!(!admission.may_begin());

    pass(&mut admission, SECOND);

    assert!(admission.may_begin());
    assert_eq!(admission.trouble(), None);
}

#[test]
fn every_call_waits_as_long_as_the_server_asks() {
    let mut admission = admission();
    let [first, second] = [(); 2].map(|()| call(&admission));
    refused(first, Some(SECOND * 12), &mut CallHistory::default());

    assert!(!admission.may_begin());
    assert_eq!(admission.trouble().as_deref(), Some("it is busy; it asks to wait for 11 s more"));
    answered(second);
    pass(&mut admission, SECOND * 11);
    assert!(!admission.may_begin());
    assert_eq!(admission.trouble(), None, "that is soon over");
    pass(&mut admission, SECOND);
    assert!(admission.may_begin());
}

#[test]
fn an_answer_shuts_nothing_for_threads_that_took_the_time_a_moment_before() {
    let admission = admission();
    let before = admission.now();

    answered(call(&admission));

    let mut state = admission.state();
    assert!(matches!(state.look(before), (Gate::Open, false)));
    assert!(matches!(state.standing(before), CallStanding::Open));
}

#[test]
fn one_call_a_minute_asks_whether_a_long_wait_still_holds() {
    let mut admission = admission();
    let [first, second] = [(); 2].map(|()| call(&admission));
    refused(first, Some(SECOND * 3600), &mut CallHistory::default());

    answered(second);
    pass(&mut admission, SECOND * 59);
    assert!(!admission.may_begin(), "a call that was sent before says nothing");
    for _ in 0..2 {
        pass(&mut admission, SECOND);
        refused(probe(&admission), Some(SECOND * 3600), &mut CallHistory::default());
        assert!(!admission.may_begin());
        assert_eq!(admission.trouble().as_deref(), Some("it is busy; it asks to wait for 3599 s more"));
        pass(&mut admission, SECOND * 59);
    }

    pass(&mut admission, SECOND);
    refused(probe(&admission), Some(SECOND * 20), &mut CallHistory::default());
    assert_eq!(admission.trouble().as_deref(), Some("it is busy; it asks to wait for 19 s more"), "the newest word");
    pass(&mut admission, SECOND * 20);
    refused(call(&admission), Some(SECOND * 3600), &mut CallHistory::default());
    pass(&mut admission, SECOND * 60);
    answered(probe(&admission));
    assert!(admission.may_begin() && admission.enter().is_none(), "rows begin as they like");
    assert_eq!(admission.trouble(), None);
}

#[test]
fn what_is_known_of_a_row_is_what_happened_since_its_last_refusal() {
    let admission = admission();
    let mut history = CallHistory::default();
    let signs = |call: &AdmittedCall<'_>, history| {
        let RowSigns { has_taken_others, refusals, .. } = call.signs(history);
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

#[test]
fn a_server_that_fails_with_ten_rows_fails_with_all_until_it_takes_one() {
    let mut admission = admission();
    answered(call(&admission));
    let all_fail = |admission: &Admission| call(admission).signs(CallHistory::default()).all_fail;
    let (mut one, mut others) = (CallHistory::default(), [CallHistory::default(); 9]);
    let fail = |admission: &Admission, row: &mut CallHistory| call(admission).answered(&answer(500), row);

    for _ in 0..20 {
        fail(&admission, &mut one);
    }
    for row in &mut others[1..] {
        fail(&admission, row);
    }
    assert!(!all_fail(&admission), "one row fails as often as it likes");
    fail(&admission, &mut others[0]);
    assert!(all_fail(&admission));

    answered(call(&admission));
    assert!(!all_fail(&admission));
    fail(&admission, &mut one);
    for row in &mut others {
        fail(&admission, row);
    }
    assert!(all_fail(&admission), "the same rows count anew");
    pass(&mut admission, SECOND * 60 * 30);
    assert!(!all_fail(&admission), "it may be the rows");
}

#[tokio::test]
async fn whoever_waits_with_a_call_goes_on_when_the_server_takes_calls() {
    let mut admission = admission();
    fail(&admission, 5);
    assert!(futures::FutureExt::now_or_never(admission.until_open()).is_none());

    pass(&mut admission, SECOND);

    admission.until_open().await;
}
