//! Which reason and which end follow from what is known.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::domain::activity::{BatchActivity, CallLimit, UpstreamActivity, UpstreamState};
use crate::domain::batch::{Counts, Milestones};
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::{DaemonId, FileId};
use crate::domain::owner::Owner;
use crate::domain::pause::{Pause, PauseCause};
use crate::domain::project_limits::{ExceededLimit, QueuedUnit};
use crate::domain::recent_course::RecentCourse;
use crate::domain::statistics::RecordedRows;
use crate::domain::usage::Usage;

const NOW: Timestamp = Timestamp(10_000_000);

fn at(seconds: i64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1000)
}

fn batch(total: u64, completed: u64) -> Batch {
    Batch {
        id: BatchId::parse("batch_0123456789abcdef0123456789abcdef").expect("a printed id"),
        owner: Owner::default(),
        input_file_id: "file-x".to_owned(),
        endpoint: Endpoint::ChatCompletions.into(),
        completion_window: "24h".to_owned(),
        status: BatchStatus::InProgress,
        created_at: at(-1000),
        expires_at: at(86_400),
        milestones: Milestones::default(),
        model: Some("m".to_owned()),
        counts: Counts { total, completed, failed: 0 },
        usage: Usage::default(),
        metadata: None,
        errors: Vec::new(),
        output_file_id: FileId::new(),
        error_file_id: FileId::new(),
        output_expires_after: None,
        pause: None,
        retry: None,
        webhook_url: None,
    }
}

/// Statistics of a batch of which so many rows were recorded in each of the last seconds.
fn recorded(rows: u64, seconds: i64) -> BatchStatistics {
    let mut statistics = BatchStatistics::default();
    for second in -seconds..=0 {
        let usage = BTreeMap::new();
        statistics.record(at(second), &RecordedRows { rows, usage, ..RecordedRows::default() });
    }
    statistics
}

fn upstream(running: u64, limit: u64, limited_by: CallLimit, state: UpstreamState) -> UpstreamActivity {
    UpstreamActivity { upstream: "gpu".to_owned(), running, limit, limited_by, state }
}

/// A daemon with rows of the batch, and those of others, at an upstream.
fn daemon(running: u64, retrying: u64, others: u64, upstream: UpstreamActivity) -> DaemonReport {
    let id = batch(0, 0).id;
    let retrying_for = (retrying > 0).then(|| "http_status".to_owned());
    let of_batch = BatchActivity { id, running, retrying, retrying_for, last_begun: Some(at(-400)) };
    let model = ModelActivity {
        model: "m".to_owned(),
        running: running + others,
        batches: 1 + u64::from(others > 0),
        seconds_per_row: Some(2.0),
        upstreams: vec![upstream],
        recent: RecentCourse::default(),
    };
    let activity = DaemonActivity { batches: vec![of_batch], models: vec![model], unserved: Vec::new() };
    DaemonReport { daemon: DaemonId::new(), age: Duration::from_millis(500), activity }
}

fn progress(batch: &Batch, statistics: &BatchStatistics, reports: &[DaemonReport]) -> Progress {
    Progress::of(&ProgressFacts { batch, statistics, models: &["m".to_owned()], reports, queue: None, now: NOW })
}

/// A reason, and when it begins and ends, in seconds from now.
type Expected = Option<(ReasonCode, Option<i64>, Option<i64>)>;

#[test]
fn the_reason_is_what_keeps_the_batch_from_going_faster() {
    use ReasonCode::{
        BehindOtherBatches, NoUpstream, NoWorker, RateLimited, Retrying, Tail, UpstreamDown, WaitingForCapacity,
    };
    let why = || "status 429".to_owned();
    let open = |running| upstream(running, 32, CallLimit::Throughput, UpstreamState::Open);
    let limited = UpstreamState::Limited { until: Some(at(40)), why: why() };
    let down = UpstreamState::Down { since: Some(at(-60)), why: why() };
    let unserved = DaemonActivity { unserved: vec!["m".to_owned()], ..DaemonActivity::default() };
    let silent = |report: DaemonReport| DaemonReport { age: Duration::from_secs(20), ..report };
    let closed = |state: &UpstreamState| upstream(0, 32, CallLimit::Searching, state.clone());
    // How many of 1,000 rows are recorded, what the daemons tell; the reason with its begin and end.
    let cases: Vec<(&str, u64, Vec<DaemonReport>, Expected)> = vec![
        ("no daemon", 100, vec![], Some((NoWorker, None, None))),
        ("a silent daemon", 100, vec![silent(daemon(1, 0, 0, open(1)))], Some((NoWorker, None, None))),
        ("room", 100, vec![daemon(4, 0, 0, open(4))], None),
        ("all calls are under way", 100, vec![daemon(32, 0, 0, open(32))], Some((WaitingForCapacity, None, None))),
        ("others", 100, vec![daemon(8, 0, 24, open(32))], Some((BehindOtherBatches, None, None))),
        ("no row is left to begin", 968, vec![daemon(32, 0, 0, open(32))], Some((Tail, Some(-400), None))),
        ("limited", 100, vec![daemon(0, 9, 0, closed(&limited))], Some((RateLimited, None, Some(40)))),
        ("down", 100, vec![daemon(0, 9, 0, closed(&down))], Some((UpstreamDown, Some(-60), None))),
        ("one of two is open", 100, vec![daemon(0, 0, 0, closed(&down)), daemon(4, 0, 0, open(4))], None),
        (
            "one is down, one limited",
            100,
            vec![daemon(0, 0, 0, closed(&down)), daemon(0, 0, 0, closed(&limited))],
            Some((RateLimited, None, Some(40))),
        ),
        ("failures", 100, vec![daemon(2, 30, 0, open(2))], Some((Retrying, None, None))),
        (
            "no upstream",
            100,
            vec![DaemonReport { daemon: DaemonId::new(), age: Duration::ZERO, activity: unserved.clone() }],
            Some((NoUpstream, None, None)),
        ),
        (
            "an upstream of another daemon",
            100,
            vec![
                DaemonReport { daemon: DaemonId::new(), age: Duration::ZERO, activity: unserved },
                daemon(4, 0, 0, open(4)),
            ],
            None,
        ),
    ];
    for (what, completed, reports, expected) in cases {
        let progress = progress(&batch(1000, completed), &recorded(1, 100), &reports);

        let found = progress.reason.map(|reason| (reason.code, reason.since, reason.until));
        assert_eq!(found, expected.map(|(code, since, until)| (code, since.map(at), until.map(at))), "{what}");
    }
}

#[test]
fn rows_add_up_to_the_total_whatever_daemons_told_a_moment_ago() {
    let open = || upstream(32, 32, CallLimit::Throughput, UpstreamState::Open);
    // Rows recorded of 100, running and retrying: rows that wait, run and are tried again.
    let cases = [
        (0, 0, 0, (100, 0, 0)),
        (50, 30, 10, (10, 30, 10)),
        (90, 30, 10, (0, 10, 0)),
        (95, 2, 10, (0, 2, 3)),
        (100, 30, 0, (0, 0, 0)),
    ];
    for (completed, running, retrying, expected) in cases {
        let rows = progress(&batch(100, completed), &recorded(1, 10), &[daemon(running, retrying, 0, open())]).rows;

        assert_eq!((rows.waiting, rows.running, rows.retrying), expected);
        assert_eq!(rows.waiting + rows.running + rows.retrying + rows.completed + rows.failed, rows.total);
    }
}

#[test]
fn the_end_follows_from_the_rate_and_the_last_rows() {
    let open = |running| upstream(running, 32, CallLimit::Throughput, UpstreamState::Open);
    let limited = UpstreamState::Limited { until: Some(at(600)), why: String::new() };
    let limited = upstream(0, 32, CallLimit::Searching, limited);
    // What was recorded, what runs: in how many seconds the end comes at the earliest and the latest.
    let cases = [
        ("16 a second", recorded(16, 100), vec![daemon(32, 0, 0, open(32))], Some((55, 65))),
        ("none yet, 32 rows of 2 s", recorded(0, 1), vec![daemon(32, 0, 0, open(32))], Some((55, 65))),
        ("nothing is known", BatchStatistics::default(), vec![daemon(0, 0, 0, open(0))], None),
        ("no worker", recorded(16, 100), vec![], None),
        ("limited for ten minutes", recorded(16, 100), vec![daemon(0, 0, 0, limited)], Some((655, 665))),
    ];
    for (what, statistics, reports, expected) in cases {
        let estimate = progress(&batch(1000, 100), &statistics, &reports).estimate;

        let found = estimate.map(|estimate| (estimate.ends_at.0 - NOW.0) / 1000);
        let fits = match (found, expected) {
            (Some(found), Some((earliest, latest))) => (earliest..=latest).contains(&found),
            (found, expected) => found.is_none() && expected.is_none(),
        };
        assert!(fits, "{what}: {found:?}");
        assert!(estimate.is_none_or(|estimate| estimate.ends_at_p90 > estimate.ends_at), "{what}");
    }
}

#[test]
fn a_batch_meets_its_window_surely_perhaps_or_not() {
    let open = || upstream(32, 32, CallLimit::Throughput, UpstreamState::Open);
    for (closes_in, expected) in [(300, Some(true)), (66, None), (30, Some(false))] {
        let batch = Batch { expires_at: at(closes_in), ..batch(1000, 100) };

        let progress = progress(&batch, &recorded(16, 100), &[daemon(32, 0, 0, open())]);

        assert_eq!(progress.will_meet_window, expected, "{closes_in} s: {:?}", progress.estimate);
    }
}

#[test]
fn a_paused_batch_says_so_and_when_it_would_end_if_it_was_resumed_now() {
    let cause = PauseCause::Canary { rows: 100, failed: 3 };
    let paused = Batch { pause: Some(Pause { since: at(-500), cause }), ..batch(1000, 100) };
    let mut statistics = BatchStatistics::default();
    for second in -509..=-500 {
        statistics.record(at(second), &RecordedRows { rows: 10, ..RecordedRows::default() });
    }

    for reports in [vec![], vec![daemon(0, 0, 0, upstream(0, 32, CallLimit::Searching, UpstreamState::Open))]] {
        let progress = progress(&paused, &statistics, &reports);

        assert_eq!(progress.phase, Phase::Paused);
        let reason = progress.reason.expect("it is paused");
        assert_eq!((reason.code, reason.since, reason.until), (ReasonCode::Paused, Some(at(-500)), None));
        assert_eq!(
            reason.message,
            "The 100 rows that run first have run; 3 of them failed. Resume it, and it goes on."
        );
        let left = progress.estimate.expect("its rows have a rate").ends_at.since(NOW).as_secs();
        assert!((80..=110).contains(&left), "900 rows at ten a second: {left} s");
    }
}

#[test]
fn a_batch_for_which_its_project_has_no_room_says_so() {
    let waiting = Batch { status: BatchStatus::Validating, ..batch(0, 0) };
    let ids = ["batch_00", "batch_01", "batch_02"].map(|begin| {
        BatchId::parse(&format!("{begin}{}", &waiting.id.to_string()[begin.len()..])).expect("a printed id")
    });
    assert_eq!(waiting.id, ids[1]);
    let exceeded = ExceededLimit { unit: QueuedUnit::Rows, limit: 10, used: 6, needed: 5 };
    let open = || upstream(0, 32, CallLimit::Throughput, UpstreamState::Open);
    // The batch that is next; the code, and a part of the message.
    let cases = [
        (None, ReasonCode::Validating, "is being checked"),
        (Some(ids[0]), ReasonCode::ProjectLimit, "An earlier batch of its project waits: the project may have 10 rows"),
        (
            Some(ids[1]),
            ReasonCode::ProjectLimit,
            "10 rows in line (queued_rows), of which 6 are used; this batch has 5",
        ),
        (Some(ids[2]), ReasonCode::Validating, "is being checked"),
    ];
    for (first, code, message) in cases {
        let queue = first.map(|first| WaitingQueue { first, exceeded });
        let (statistics, reports) = (BatchStatistics::default(), [daemon(0, 0, 0, open())]);
        let facts = ProgressFacts {
            batch: &waiting,
            statistics: &statistics,
            models: &[],
            reports: &reports,
            queue: queue.as_ref(),
            now: NOW,
        };

        let reason = Progress::of(&facts).reason.expect("it has one");

        assert_eq!(reason.code, code, "{first:?}");
        assert!(reason.message.contains(message), "{first:?}: {}", reason.message);
    }
}

#[test]
fn a_batch_that_has_ended_has_no_reason_and_no_estimate() {
    use BatchStatus::{Cancelled, Cancelling, Completed, Expired, Failed, Finalizing, Validating};
    // The status; the phase, whether there is a reason, and whether the window was met.
    let cases = [
        (Validating, Phase::Validating, true, None),
        (Finalizing, Phase::Finalizing, true, None),
        (Cancelling, Phase::Finalizing, true, None),
        (Completed, Phase::Ended, false, Some(true)),
        (Expired, Phase::Ended, false, Some(false)),
        (Cancelled, Phase::Ended, false, None),
        (Failed, Phase::Ended, false, None),
    ];
    let open = || upstream(0, 32, CallLimit::Throughput, UpstreamState::Open);
    for (status, phase, has_reason, meets) in cases {
        let batch = Batch { status, ..batch(100, 60) };

        let progress = progress(&batch, &recorded(1, 60), &[daemon(0, 0, 0, open())]);

        assert_eq!((progress.phase, progress.reason.is_some()), (phase, has_reason), "{status}");
        assert_eq!((progress.estimate, progress.will_meet_window), (None, meets), "{status}");
        assert_eq!((progress.rows.waiting, progress.rows.running), (40, 0), "{status}: rows that never ran");
    }
}

/// When half of the rows are recorded, the estimate of the end is near the end that comes, at an upstream whose times
/// are spread as lognormal ones: 32 calls at once, each of a second in the median.
#[test]
fn the_estimate_at_half_way_is_near_the_true_end() {
    for (seed, sigma) in (0..20).flat_map(|seed| [(seed, 0.5), (seed, 1.0)]) {
        let (estimated, end) = estimated_and_true_end(seed, sigma, 2000);

        let ratio = estimated / end;
        assert!((0.75..1.25).contains(&ratio), "seed {seed}, sigma {sigma}: {ratio:.2} of {end:.0} s");
    }
}

/// In how many seconds a batch of so many rows is estimated to end at half way, and in how many it ends.
fn estimated_and_true_end(seed: u64, sigma: f64, total: u32) -> (f64, f64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut took = || {
        // The sum of twelve even draws is nearly normal.
        let normal: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
        (normal * sigma).exp()
    };
    let mut ends: Vec<f64> = (0..32).map(|_| took()).collect();
    let mut left = total - 32;
    let (mut statistics, mut estimated, mut end, mut busy) = (BatchStatistics::default(), 0.0, 0.0, 0.0);
    for done in 1..=total {
        ends.sort_by(f64::total_cmp);
        end = ends.remove(0);
        let now = Timestamp(0).plus(Duration::from_secs_f64(1000.0 + end));
        statistics.record(now, &RecordedRows { rows: 1, ..RecordedRows::default() });
        if left > 0 {
            left -= 1;
            let next = took();
            busy += next;
            ends.push(end + next);
        }
        if done == total / 2 {
            let ends_at = estimate(&statistics, (total, done), busy / f64::from(done), now).ends_at;
            estimated = ends_at.since(Timestamp(1_000_000)).as_secs_f64();
        }
    }
    (estimated, end)
}

fn estimate(statistics: &BatchStatistics, rows: (u32, u32), seconds_per_row: f64, now: Timestamp) -> Estimate {
    let mut daemon = daemon(32, 0, 0, upstream(32, 32, CallLimit::Throughput, UpstreamState::Open));
    daemon.activity.models[0].seconds_per_row = Some(seconds_per_row);
    let (batch, models) = (batch(rows.0.into(), rows.1.into()), ["m".to_owned()]);
    let facts = ProgressFacts { batch: &batch, statistics, models: &models, reports: &[daemon], queue: None, now };
    Progress::of(&facts).estimate.expect("it is known")
}
