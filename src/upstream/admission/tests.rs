//! The admission over time. Time passes by moving its start into the past.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn admission(calls: usize) -> Admission {
    let admission = Admission::new(Limiter::new(0));
    admission.set_ceiling(calls);
    admission
}

fn answer(status: u16) -> HttpResponse {
    HttpResponse { status, ..HttpResponse::default() }
}

/// Calls that fail, as many as open the breaker.
fn fail(admission: &Admission) {
    for _ in 0..breaker::TRIP_AFTER {
        admission.begin(false).expect("it takes calls").gone(None, "it is gone".to_owned());
    }
}

/// Lets time pass, as the task sees it that follows the clock.
fn pass(admission: &mut Admission, time: Duration) {
    admission.started = admission.started.checked_sub(time).expect("the machine has run for so long");
    admission.settle(&mut admission.state());
}

#[test]
fn an_outage_costs_one_call_at_a_time_and_half_of_the_calls_follow_its_end() {
    let mut admission = admission(64);
    fail(&admission);
    assert!(!admission.may_begin());
    assert_eq!(admission.trouble().as_deref(), Some("it is gone"));
    assert!(matches!(admission.begin(false), Err(UpstreamError::HeldBack(_))));

    for pause in [1, 2, 4, 4, 4] {
        pass(&mut admission, SECOND / 2 * (2 * pause - 1));
        assert!(!admission.may_begin(), "{pause} s are not over");
        pass(&mut admission, SECOND / 2);
        assert!(admission.enter(), "one row may begin");
        assert!(!admission.may_begin() && !admission.enter(), "and no other");
        admission.begin(true).expect("it asks").gone(None, "it is gone".to_owned());
        assert!(!admission.may_begin());
    }

    pass(&mut admission, SECOND * 4);
    assert!(admission.enter());
    admission.begin(true).expect("it asks").answered(&answer(200));
    assert!(admission.may_begin() && !admission.enter(), "rows begin as they like");
    assert_eq!((admission.trouble(), admission.limiter.limit()), (None, 32));
}

#[test]
fn a_row_that_is_let_through_and_makes_no_call_leaves_its_place_to_another() {
    let mut admission = admission(64);
    fail(&admission);
    pass(&mut admission, SECOND);
    assert!(admission.enter() && !admission.may_begin());

    admission.leave();

    assert!(admission.may_begin() && admission.enter());
    drop(admission.begin(true).expect("it asks"));
    assert!(admission.may_begin(), "a call that was given up asks nothing");
}

#[test]
fn a_call_that_lasts_longer_than_failures_do_shows_that_the_server_is_back() {
    let mut admission = admission(64);
    fail(&admission);
    pass(&mut admission, SECOND);
    assert!(admission.enter());
    std::mem::forget(admission.begin(true).expect("it asks"));
    assert!(!admission.may_begin());

    pass(&mut admission, SECOND);

    assert!(admission.may_begin());
    assert_eq!(admission.trouble(), None);
}

#[test]
fn every_call_waits_as_long_as_the_server_asks() {
    let mut admission = admission(64);
    let [first, second] = [(); 2].map(|()| admission.begin(false).expect("it takes calls"));
    first.refused(&HttpResponse { retry_after: Some(SECOND * 3), ..answer(429) });

    assert!(!admission.may_begin());
    assert_eq!(admission.trouble(), None, "that is no outage");
    second.answered(&answer(200));
    pass(&mut admission, SECOND * 2);
    assert!(!admission.may_begin());
    pass(&mut admission, SECOND);
    assert!(admission.may_begin());
}

#[tokio::test]
async fn whoever_follows_is_told_when_rows_may_begin() {
    let admission = std::sync::Arc::new(admission(64));
    fail(&admission);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let followed = admission.clone();
    let following =
        tokio::spawn(async move { followed.follow(|| tell.send(followed.may_begin()).expect("it is heard")).await });

    assert_eq!(told.recv().await, Some(false));
    while !told.recv().await.expect("it follows") {}
    assert!(admission.enter());
    following.abort();
}
