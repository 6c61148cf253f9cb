//! The controller with servers of a few lines. Real servers and loads are in the scenarios.

use std::collections::VecDeque;

use super::*;

const MILLI: Duration = Duration::from_millis(1);

/// A server that answers each call after the same time, and a client that sends calls when `refill` allows it.
struct ConstantServer {
    now: Duration,
    takes: Duration,
    /// When each call under way was sent, and the calls under way then.
    calls: VecDeque<(Duration, usize)>,
    /// Rows that are ready at once.
    rows: usize,
    /// The client sends only if at most this share of the limit is under way.
    refill: f64,
}

impl ConstantServer {
    fn new(takes: Duration) -> Self {
        Self { now: Duration::from_secs(77), takes, calls: VecDeque::new(), rows: usize::MAX, refill: 1.0 }
    }

    /// Has so many calls answered.
    fn answer(&mut self, controller: &mut ConcurrencyController, answers: usize) {
        for _ in 0..answers {
            let limit = controller.limit().min(self.rows);
            if count(self.calls.len()) <= count(limit) * self.refill {
                let under_way = self.calls.len();
                self.calls.extend((under_way..limit).map(|others| (self.now, others + 1)));
            }
            let Some((sent, in_flight_at_send)) = self.calls.pop_front() else { return };
            self.now = self.now.max(sent + self.takes);
            let in_flight = self.calls.len();
            controller.answered(self.now, &AnsweredCall { sent, in_flight_at_send, in_flight, output_tokens: None });
        }
    }
}

#[test]
fn the_limit_reaches_the_ceiling_within_five_call_times_if_nothing_bounds_it() {
    for takes in [MILLI, MILLI * 500, MILLI * 600_000] {
        let (mut controller, mut server) = (ConcurrencyController::new(256), ConstantServer::new(takes));
        assert_eq!((controller.limit(), controller.reason()), (16, LimitReason::Starting));

        let began = server.now;
        while controller.limit() < 256 {
            server.answer(&mut controller, 1);
        }

        assert!(server.now <= began + takes * 5, "{:?} after {began:?}", server.now);
        assert_eq!(controller.reason(), LimitReason::Ceiling);
    }
}

#[test]
fn a_client_that_refills_in_bursts_gets_the_whole_ceiling() {
    let (mut controller, mut server) = (ConcurrencyController::new(256), ConstantServer::new(MILLI));
    server.refill = 0.5;
    server.answer(&mut controller, 20_000);
    assert_eq!(controller.limit(), 256);
}

#[test]
fn a_load_with_few_rows_proves_nothing() {
    let (mut controller, mut server) = (ConcurrencyController::new(256), ConstantServer::new(MILLI));
    server.rows = 5;
    server.answer(&mut controller, 10_000);
    assert_eq!((controller.limit(), controller.reason()), (16, LimitReason::Starting));

    server.rows = 1000;
    server.answer(&mut controller, 2000);
    assert_eq!(controller.limit(), 256);

    server.rows = 5;
    server.answer(&mut controller, 10_000);
    assert_eq!(controller.limit(), 256);
}

#[test]
fn refusals_of_one_burst_are_one_cut_and_those_after_it_cut_deeper() {
    let (mut controller, mut server) = (ConcurrencyController::new(256), ConstantServer::new(MILLI * 100));
    server.answer(&mut controller, 2000);
    assert_eq!(controller.limit(), 256);
    let now = server.now + MILLI;
    for others in (64..256).rev() {
        controller.refused(now, server.now, others, None);
    }
    assert_eq!((controller.limit(), controller.reason()), (64, LimitReason::Refused));

    let mut limits = Vec::new();
    for round in 1..=8 {
        let now = now + MILLI * 10 * round;
        controller.refused(now, now, controller.limit(), None);
        limits.push(controller.limit());
    }

    assert_eq!(limits, [61, 53, 38, 19, 9, 4, 2, 1]);
}

#[test]
fn a_refused_level_is_exceeded_by_one_percent_after_200_answers() {
    let (mut controller, mut server) = (ConcurrencyController::new(256), ConstantServer::new(MILLI * 100));
    server.answer(&mut controller, 2000);
    controller.refused(server.now, server.now, 100, None);
    server.calls.clear();

    server.answer(&mut controller, 199);
    assert_eq!((controller.limit(), controller.reason()), (100, LimitReason::Refused));

    while controller.limit() <= 100 {
        server.answer(&mut controller, 1);
    }
    assert_eq!((controller.limit(), controller.reason()), (101, LimitReason::Rising));
}

#[test]
fn a_refused_level_stays_for_twenty_times_the_retry_after() {
    let (mut controller, mut server) = (ConcurrencyController::new(256), ConstantServer::new(MILLI * 100));
    server.answer(&mut controller, 2000);
    let refused = server.now;
    controller.refused(refused, refused, 100, Some(MILLI * 1000));
    server.calls.clear();

    while controller.limit() <= 100 {
        server.answer(&mut controller, 1);
    }

    let stayed = server.now.saturating_sub(refused);
    assert!(stayed >= MILLI * 20_000 && stayed < MILLI * 21_000, "{stayed:?}");
}

#[test]
fn an_outage_leaves_half_of_the_limit_and_soon_all_of_it() {
    let (mut controller, mut server) = (ConcurrencyController::new(200), ConstantServer::new(MILLI * 100));
    server.answer(&mut controller, 2000);
    for others in [150, 50, 3, 0] {
        controller.refused(server.now, server.now, others, None);
    }
    assert_eq!(controller.limit(), 1);

    controller.went_down(server.now);
    controller.came_back(server.now);
    assert_eq!((controller.limit(), controller.reason()), (100, LimitReason::Recovering));
    controller.went_down(server.now);
    controller.came_back(server.now);
    assert_eq!(controller.limit(), 100, "a second outage forgets nothing");

    server.calls.clear();
    server.answer(&mut controller, 300);
    assert_eq!((controller.limit(), controller.reason()), (200, LimitReason::Ceiling));
}

#[test]
fn a_ceiling_of_none_is_no_call_and_any_other_at_least_one() {
    let mut controller = ConcurrencyController::new(0);
    assert_eq!(controller.limit(), 0);
    controller.refused(MILLI, Duration::ZERO, 0, None);
    controller.set_ceiling(5);
    assert_eq!(controller.limit(), 1);

    let (mut controller, mut server) = (ConcurrencyController::new(256), ConstantServer::new(MILLI * 100));
    server.answer(&mut controller, 2000);
    controller.set_ceiling(0);
    server.answer(&mut controller, 50);
    controller.set_ceiling(300);
    assert!(controller.limit() >= 256, "what is known of the server remains: {}", controller.limit());
    controller.set_ceiling(4);
    assert_eq!((controller.limit(), controller.reason()), (4, LimitReason::Ceiling));
}

#[test]
fn a_clock_without_progress_divides_nothing_by_zero() {
    let (mut controller, mut server) = (ConcurrencyController::new(256), ConstantServer::new(Duration::ZERO));
    server.answer(&mut controller, 10_000);
    assert!((1..=256).contains(&controller.limit()));
}

#[test]
fn the_limit_doubles_each_minute_in_which_calls_are_under_way_and_none_is_answered() {
    let mut controller = ConcurrencyController::new(256);
    let minutes = |minutes: u64| Duration::from_mins(minutes);
    controller.tick(minutes(0), false);
    controller.tick(minutes(60), false);
    assert_eq!(controller.limit(), 16, "nothing was under way");

    for (minute, limit) in [(60, 16), (61, 32), (62, 64)] {
        controller.tick(minutes(minute), true);
        assert_eq!(controller.limit(), limit);
    }
    controller.tick(minutes(63), false);
    controller.tick(minutes(70), true);
    assert_eq!(controller.limit(), 64, "the wait is counted anew");
}

#[test]
fn the_limit_falls_by_the_calls_that_wait_in_two_reports_of_the_server_in_a_row() {
    // Waiting calls and calls under way in each report, and the limit that follows from 16.
    let cases: [(&[(usize, usize)], usize); 6] = [
        (&[(12, 16)], 16),
        (&[(12, 16), (12, 16)], 4),
        (&[(10, 16), (12, 16), (12, 4)], 1),
        (&[(12, 16), (0, 16), (12, 16)], 16),
        (&[(1, 16), (1, 16)], 16),
        (&[(100, 16), (100, 16)], 4),
    ];
    for (reports, limit) in cases {
        let mut controller = ConcurrencyController::new(256);
        let mut fixed = ConcurrencyController::fixed(64);
        for (second, (waiting, in_flight)) in (1..).zip(reports) {
            controller.note_waiting(Duration::from_secs(second), *waiting, *in_flight);
            fixed.note_waiting(Duration::from_secs(second), *waiting, *in_flight);
        }
        assert_eq!((controller.limit(), fixed.limit()), (limit, 64), "{reports:?}");
    }
}

#[test]
fn the_limit_does_not_rise_while_the_server_reports_that_calls_wait() {
    let (mut controller, mut server) = (ConcurrencyController::new(256), ConstantServer::new(MILLI * 100));
    controller.note_waiting(server.now, 12, 16);
    server.answer(&mut controller, 2000);
    assert!(controller.limit() <= 16, "{}", controller.limit());

    controller.note_waiting(server.now, 0, 16);
    server.answer(&mut controller, 20_000);
    assert_eq!(controller.limit(), 256);
}
