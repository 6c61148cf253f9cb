//! The steps of rows: kept by whoever holds the lease, in their order, until they are forgotten.

use batchwright::domain::batch::BatchStatus;
use batchwright::domain::ids::{BatchId, DaemonId, RequestId};
use batchwright::domain::lease::Lease;
use batchwright::domain::response::{Step, StepBody, StepPath, StepState, ToolCall, ToolOutput, Turn, TurnEnd};
use batchwright::storage::{
    BatchStore as _, LeaseStore as _, Ledger as _, Recorded, Result, StepStore as _, StepWrite,
};

use crate::given::{OWNER, TestStorage, after, ending, flush};

on_both_databases!(
    steps_come_back_as_they_were_kept_and_in_their_order,
    a_step_that_is_begun_again_is_one_step,
    a_step_that_is_begun_and_ended_at_once_is_one_step,
    more_steps_than_one_statement_writes_are_kept,
    what_has_ended_stays_as_it_is,
    steps_of_rows_are_apart,
    nothing_is_kept_in_the_name_of_a_lease_that_is_lost,
    one_lost_lease_does_not_harm_the_others,
    texts_of_any_kind_are_kept,
    steps_are_forgotten_when_their_batch_has_ended_long_ago_and_no_others,
    steps_are_forgotten_row_by_row,
);

fn step(seq: u32, path: &str, body: StepBody, state: StepState) -> Step {
    Step {
        seq,
        path: StepPath::parse(path).expect("a path"),
        body,
        state,
        attempts: 1,
        error: None,
        started_at: after(1),
        ended_at: (state != StepState::InProgress).then(|| after(2)),
    }
}

pub fn turn(seq: u32, path: &str) -> Step {
    let output =
        vec![serde_json::value::to_raw_value(&serde_json::json!({ "type": "message", "n": 1.5 })).expect("JSON")];
    let turn = Turn { model: "m".to_owned(), created_at: 7, end: TurnEnd::Completed, output, usage: None };
    step(seq, path, StepBody::ModelCall(Some(turn)), StepState::Completed)
}

fn tool(seq: u32, path: &str, output: Option<&str>) -> Step {
    let call = ToolCall { call_id: "call_1".to_owned(), name: "add".to_owned(), arguments: "{}".to_owned() };
    let state = if output.is_some() { StepState::Completed } else { StepState::InProgress };
    let output = output.map(|output| ToolOutput { output: output.to_owned(), is_error: false });
    step(seq, path, StepBody::ToolCall(call, output), state)
}

pub fn write(lease: &Lease, row: u32, step: Step) -> StepWrite {
    StepWrite { row: RequestId { batch: lease.batch_id, row }, lease: lease.hold(), step }
}

/// A lease on three rows of a batch in progress, of a daemon that is not known to live: the steps do not ask.
async fn lease(storage: &TestStorage) -> Result<Lease> {
    storage.claimed(storage.running(&[3]).await?.id, 3, DaemonId::new()).await
}

async fn keep(storage: &TestStorage, writes: &[StepWrite]) -> Result<()> {
    assert!(storage.record_steps(writes).await?.is_empty());
    Ok(())
}

/// The steps of a row, with all that is known of them.
async fn kept(storage: &TestStorage, batch: BatchId, row: u32) -> Result<Vec<String>> {
    let steps = storage.steps(&OWNER, RequestId { batch, row }).await?;
    Ok(steps.iter().map(|step| format!("{step:?}")).collect())
}

fn shown(steps: &[Step]) -> Vec<String> {
    steps.iter().map(|step| format!("{step:?}")).collect()
}

async fn steps_come_back_as_they_were_kept_and_in_their_order(storage: TestStorage) -> Result<()> {
    let lease = lease(&storage).await?;
    let mut failed = step(2, "1", StepBody::ModelCall(None), StepState::Failed);
    failed.error = Some("http_status".to_owned());
    let steps = [turn(0, "0"), tool(1, "0.0", Some("3")), failed, tool(3, "0.1", None)];

    keep(&storage, &[write(&lease, 0, steps[1].clone()), write(&lease, 0, steps[0].clone())]).await?;
    keep(&storage, &[write(&lease, 0, steps[3].clone()), write(&lease, 0, steps[2].clone())]).await?;

    assert_eq!(kept(&storage, lease.batch_id, 0).await?, shown(&steps));
    Ok(())
}

async fn a_step_that_is_begun_again_is_one_step(storage: TestStorage) -> Result<()> {
    let lease = lease(&storage).await?;
    let mut again = tool(0, "0.0", None);
    (again.attempts, again.error, again.started_at) = (2, Some("gone".to_owned()), after(5));

    keep(&storage, &[write(&lease, 0, tool(0, "0.0", None))]).await?;
    keep(&storage, &[write(&lease, 0, again.clone())]).await?;
    assert_eq!(kept(&storage, lease.batch_id, 0).await?, shown(&[again]));

    keep(&storage, &[write(&lease, 0, tool(0, "0.0", Some("3")))]).await?;
    assert_eq!(kept(&storage, lease.batch_id, 0).await?, shown(&[tool(0, "0.0", Some("3"))]));
    Ok(())
}

async fn a_step_that_is_begun_and_ended_at_once_is_one_step(storage: TestStorage) -> Result<()> {
    let lease = lease(&storage).await?;
    let writes = [(0, None), (1, None), (0, Some("3")), (0, None), (0, Some("4"))]
        .map(|(row, output)| write(&lease, row, tool(0, "0.0", output)));

    keep(&storage, &writes).await?;

    assert_eq!(kept(&storage, lease.batch_id, 0).await?, shown(&[tool(0, "0.0", Some("3"))]));
    assert_eq!(kept(&storage, lease.batch_id, 1).await?, shown(&[tool(0, "0.0", None)]));
    Ok(())
}

async fn more_steps_than_one_statement_writes_are_kept(storage: TestStorage) -> Result<()> {
    let lease = storage.claimed(storage.running(&[200]).await?.id, 200, DaemonId::new()).await?;
    let writes: Vec<_> = (0..200).map(|row| write(&lease, row, turn(0, "0"))).collect();

    keep(&storage, &writes).await?;

    assert_eq!(kept(&storage, lease.batch_id, 199).await?, shown(&[turn(0, "0")]));
    Ok(())
}

async fn what_has_ended_stays_as_it_is(storage: TestStorage) -> Result<()> {
    let lease = lease(&storage).await?;
    keep(&storage, &[write(&lease, 0, tool(0, "0.0", Some("3")))]).await?;

    keep(&storage, &[write(&lease, 0, tool(0, "0.0", Some("4"))), write(&lease, 0, tool(0, "0.0", None))]).await?;

    assert_eq!(kept(&storage, lease.batch_id, 0).await?, shown(&[tool(0, "0.0", Some("3"))]));
    Ok(())
}

async fn steps_of_rows_are_apart(storage: TestStorage) -> Result<()> {
    let lease = lease(&storage).await?;
    keep(&storage, &[write(&lease, 0, turn(0, "0")), write(&lease, 2, tool(0, "0.0", Some("3")))]).await?;

    assert_eq!(kept(&storage, lease.batch_id, 0).await?, shown(&[turn(0, "0")]));
    assert_eq!(kept(&storage, lease.batch_id, 1).await?, shown(&[]));
    assert_eq!(kept(&storage, lease.batch_id, 2).await?, shown(&[tool(0, "0.0", Some("3"))]));
    Ok(())
}

async fn nothing_is_kept_in_the_name_of_a_lease_that_is_lost(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;
    let daemon = storage.living_daemon().await?;
    let lost = storage.claimed(batch.id, 3, daemon).await?;
    storage.let_die(daemon).await?;
    let lapsed = storage.lapsed(10).await?[0];
    let taken = storage.take_over(lapsed, DaemonId::new()).await?.expect("nobody else takes it");

    assert!(storage.record_steps(&[write(&lost, 0, turn(0, "0"))]).await?.contains(&lost.hold()));
    assert_eq!(kept(&storage, batch.id, 0).await?, shown(&[]));
    let both = [write(&lost, 1, turn(0, "0")), write(&taken, 0, turn(0, "0"))];
    assert_eq!(storage.record_steps(&both).await?.into_iter().collect::<Vec<_>>(), [lost.hold()]);
    assert_eq!(kept(&storage, batch.id, 0).await?, shown(&[turn(0, "0")]));
    assert_eq!(kept(&storage, batch.id, 1).await?, shown(&[]));
    Ok(())
}

async fn one_lost_lease_does_not_harm_the_others(storage: TestStorage) -> Result<()> {
    let held = lease(&storage).await?;
    let mut lost = lease(&storage).await?;
    lost.token += 1;

    let named = storage.record_steps(&[write(&lost, 0, turn(0, "0")), write(&held, 0, turn(0, "0"))]).await?;

    assert_eq!(named.into_iter().collect::<Vec<_>>(), [lost.hold()]);
    assert_eq!(kept(&storage, held.batch_id, 0).await?, shown(&[turn(0, "0")]));
    assert_eq!(kept(&storage, lost.batch_id, 0).await?, shown(&[]));
    Ok(())
}

async fn texts_of_any_kind_are_kept(storage: TestStorage) -> Result<()> {
    let lease = lease(&storage).await?;
    let odd = "a\0b \u{1F600} \"\\ \u{feff}\n";
    let mut step = tool(0, "0.0", Some(odd));
    step.error = Some(odd.to_owned());
    if let StepBody::ToolCall(call, _) = &mut step.body {
        (call.call_id, call.arguments) = (odd.to_owned(), odd.to_owned());
    }

    keep(&storage, &[write(&lease, 0, step)]).await?;

    let steps = storage.steps(&OWNER, RequestId { batch: lease.batch_id, row: 0 }).await?;
    let StepBody::ToolCall(call, Some(output)) = &steps[0].body else { panic!("{steps:?}") };
    assert_eq!((output.output.as_str(), call.arguments.as_str()), (odd, odd));
    // A database's own text cannot have everything; these two are for people to read.
    let readable = odd.replace('\0', "\u{fffd}");
    assert_eq!((&call.call_id, steps[0].error.as_ref()), (&readable, Some(&readable)));
    Ok(())
}

async fn steps_are_forgotten_when_their_batch_has_ended_long_ago_and_no_others(storage: TestStorage) -> Result<()> {
    let mut batches = Vec::new();
    for status in [BatchStatus::Completed, BatchStatus::InProgress, BatchStatus::Cancelled] {
        let held = lease(&storage).await?;
        keep(&storage, &[write(&held, 0, turn(0, "0"))]).await?;
        if status != BatchStatus::InProgress {
            end(&storage, &held, status).await?;
        }
        batches.push(held.batch_id);
    }

    assert_eq!(storage.forget_steps(after(3), 10).await?, 0, "not yet");
    let mut forgotten = 0;
    loop {
        match storage.forget_steps(after(4), 10).await? {
            0 => break,
            steps => forgotten += steps,
        }
    }

    assert_eq!(forgotten, 2);
    let mut left = Vec::new();
    for batch in &batches {
        left.push(kept(&storage, *batch, 0).await?.len());
    }
    assert_eq!(left, [0, 1, 0]);
    Ok(())
}

async fn steps_are_forgotten_row_by_row(storage: TestStorage) -> Result<()> {
    let held = lease(&storage).await?;
    for row in 0..3 {
        keep(&storage, &[write(&held, row, turn(0, "0")), write(&held, row, tool(1, "0.0", Some("3")))]).await?;
    }
    end(&storage, &held, BatchStatus::Completed).await?;

    let mut forgotten = Vec::new();
    for _ in 0..3 {
        forgotten.push(storage.forget_steps(after(9), 2).await?);
    }

    assert_eq!(forgotten, [4, 2, 0]);
    Ok(())
}

/// Ends the batch of a lease, four seconds after the tests begin.
pub async fn end(storage: &TestStorage, lease: &Lease, status: BatchStatus) -> Result<()> {
    let id = lease.batch_id;
    let never_ran = if status == BatchStatus::Completed {
        assert_eq!(storage.record(&flush(&[(lease, 0..3, 0..0)]), after(3)).await?, Recorded::Applied);
        0..0
    } else {
        storage.cancel_batch(&OWNER, id, after(3)).await?;
        0..3
    };
    storage.fence(id).await?.expect("no daemon lives");
    assert!(storage.finish(&ending(&storage.now(id).await?, never_ran), after(4)).await?);
    Ok(())
}
