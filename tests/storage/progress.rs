//! What those who wait for a batch ask: its statistics, the models that are left, and what daemons tell.

use std::collections::BTreeMap;
use std::time::Duration;

use batchwright::domain::activity::{BatchActivity, DaemonActivity};
use batchwright::domain::failures::{FailureKind, FailureSample, RowFailure};
use batchwright::domain::ids::{BatchId, DaemonId};
use batchwright::domain::statistics::{BatchStatistics, RecordedRows};
use batchwright::domain::usage::Usage;
use batchwright::storage::{BatchStore as _, LeaseStore as _, Ledger as _, ProgressStore as _, Recorded, Result};

use crate::given::{OWNER, START, TestStorage, after, flush, lanes};

on_both_databases!(
    the_statistics_of_a_batch_are_those_of_all_its_flushes,
    what_is_not_recorded_is_not_in_the_statistics,
    models_are_owed_until_their_last_row_is_recorded,
    what_a_daemon_tells_is_known_as_long_as_it_lives,
);

fn failed(custom_id: &str) -> RowFailure {
    RowFailure {
        kind: FailureKind { code: "http_status".to_owned(), status: Some(400) },
        sample: FailureSample { custom_id: custom_id.to_owned(), message: "no".to_owned() },
    }
}

fn recorded(rows: u64, failures: &[&str]) -> RecordedRows {
    let usage = Usage { total_tokens: 10 * rows, ..Usage::default() };
    let mut recorded = RecordedRows { rows, usage: BTreeMap::from([("m".to_owned(), usage)]), ..Default::default() };
    for custom_id in failures {
        recorded.failures.add(failed(custom_id));
    }
    recorded
}

async fn the_statistics_of_a_batch_are_those_of_all_its_flushes(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[6]).await?;
    assert_eq!(storage.batch_statistics(&OWNER, batch.id).await?, BatchStatistics::default());
    let lease = storage.claimed(batch.id, 6, storage.living_daemon().await?).await?;

    for (second, ran, failures) in [(1, 0..2, &["row-1"][..]), (9, 2..6, &["row-4", "row-5"])] {
        let rows = u64::from(ran.end - ran.start);
        let mut flush = flush(&[(&lease, ran, 0..0)]);
        flush.batches.get_mut(&batch.id).expect("it is of the batch").statistics = recorded(rows, failures);
        assert_eq!(storage.record(&flush, after(second)).await?, Recorded::Applied);
        // The same again, as after a commit whose answer was lost.
        assert_eq!(storage.record(&flush, after(second)).await?, Recorded::Applied);
    }

    let statistics = storage.batch_statistics(&OWNER, batch.id).await?;
    assert_eq!(statistics.rate(after(9)).rows, 6);
    assert_eq!(statistics.usage()["m"].total_tokens, 60);
    let tallies = statistics.failures().tallies();
    assert_eq!((tallies.len(), tallies[0].rows, tallies[0].sample.custom_id.as_str()), (1, 3, "row-1"));
    Ok(())
}

async fn what_is_not_recorded_is_not_in_the_statistics(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[6]).await?;
    let daemon = storage.living_daemon().await?;
    let lease = storage.claimed(batch.id, 6, daemon).await?;
    storage.let_die(daemon).await?;
    storage.take_over(lease.hold(), DaemonId::new()).await?.expect("its daemon is dead");

    let mut flush = flush(&[(&lease, 0..2, 0..0)]);
    flush.batches.get_mut(&batch.id).expect("it is of the batch").statistics = recorded(2, &["row-1"]);
    assert_eq!(storage.record(&flush, after(1)).await?, Recorded::LostLeases(vec![lease.hold()]));

    assert_eq!(storage.batch_statistics(&OWNER, batch.id).await?, BatchStatistics::default());
    Ok(())
}

async fn models_are_owed_until_their_last_row_is_recorded(storage: TestStorage) -> Result<()> {
    let batch = storage.validating().await?;
    assert!(storage.admit_batch(batch.id, &lanes(&[2, 3]), START).await?);
    let owed = async || storage.models_owed(&OWNER, batch.id, 10).await;
    let names: Vec<String> = lanes(&[2, 3]).iter().map(|lane| lane.model.clone()).collect();
    assert_eq!(owed().await?, [names[1].clone(), names[0].clone()], "the most rows first");
    assert_eq!(storage.models_owed(&OWNER, batch.id, 1).await?, [names[1].clone()]);

    let lane = storage.open_lanes(10, 10).await?.into_iter().find(|lane| *lane.model == names[1]).expect("it is open");
    let lease = storage.claim(&lane, 3, storage.living_daemon().await?).await?.expect("it is open");
    assert_eq!(owed().await?, [names[1].clone(), names[0].clone()], "they have no result");
    assert_eq!(storage.record(&flush(&[(&lease, 2..5, 0..0)]), after(1)).await?, Recorded::Applied);
    assert_eq!(owed().await?, [names[0].clone()]);
    Ok(())
}

async fn what_a_daemon_tells_is_known_as_long_as_it_lives(storage: TestStorage) -> Result<()> {
    let (daemon, silent) = (DaemonId::new(), DaemonId::new());
    let (batch, other) = (storage.running(&[1]).await?, storage.running(&[1]).await?);
    let of = |batches: &[BatchId]| DaemonActivity {
        batches: batches.iter().map(|id| BatchActivity { running: 3, ..BatchActivity::none(*id) }).collect(),
        unserved: vec!["m".to_owned()],
        ..DaemonActivity::default()
    };
    storage.tell_activity(daemon, &of(&[batch.id, other.id])).await?;
    assert_eq!(storage.daemon_reports(&OWNER, &[&batch]).await?, [], "it has not beaten");

    for daemon in [daemon, silent] {
        storage.beat(daemon, Duration::from_hours(1)).await?;
    }
    storage.tell_activity(daemon, &of(&[batch.id, other.id])).await?;

    let mut reports = storage.daemon_reports(&OWNER, &[&batch]).await?;
    reports.sort_by_key(|report| report.activity.batches.len());
    assert!(reports.iter().all(|report| report.age < Duration::from_secs(30)), "{reports:?}");
    let told: Vec<_> = reports.into_iter().map(|report| report.activity).collect();
    assert_eq!(told, [DaemonActivity::default(), of(&[batch.id])]);
    let all = storage.upstream_reports(&OWNER).await?;
    let told: Vec<_> = all.iter().flat_map(|report| &report.activity.batches).map(|batch| batch.id).collect();
    assert_eq!(told, [batch.id, other.id]);
    assert_eq!(all.iter().filter(|report| report.activity.unserved == ["m"]).count(), 1);
    storage.leave(daemon).await?;
    assert_eq!(storage.daemon_reports(&OWNER, &[&batch]).await?.len(), 1);
    Ok(())
}
