//! Single rows: where their lines are, who has them, and reading them.

use batchwright::domain::endpoint::{Endpoint, Endpoints};
use batchwright::domain::file::FilePart;
use batchwright::domain::ids::{BatchId, DaemonId, RequestId};
use batchwright::domain::line::{NeverRan, never_ran};
use batchwright::domain::report::IntakeLimits;
use batchwright::domain::time::Timestamp;
use batchwright::intake::Indexer;
use batchwright::storage::blobs::Blobs;
use batchwright::storage::results::result_line;
use batchwright::storage::rows::RowReader;
use batchwright::storage::{
    BatchInput, BatchStore as _, Ending, FileStore as _, LeaseStore as _, Ledger as _, Result, RowPart, Upkeep as _,
};
use tempfile::TempDir;

use crate::given::{OWNER, START, TestStorage, after, ending, flush, merged};

on_both_databases!(
    the_line_of_a_row_is_in_the_part_it_was_recorded_with,
    the_line_of_a_row_is_found_after_its_part_was_merged,
    the_line_of_a_row_vanishes_with_its_file,
    the_line_of_a_row_that_never_ran_is_in_the_error_file,
    a_row_is_held_by_the_living_daemon_that_has_its_lease,
    a_result_line_is_read_out_of_its_part,
);

fn row(batch: BatchId, row: u32) -> RequestId {
    RequestId { batch, row }
}

async fn the_line_of_a_row_is_in_the_part_it_was_recorded_with(storage: TestStorage) -> Result<()> {
    let id = storage.running(&[10]).await?.id;
    let lease = storage.claimed(id, 10, DaemonId::new()).await?;
    let (first, second) = (flush(&[(&lease, 0..2, 2..3)]), flush(&[(&lease, 3..5, 5..6)]));
    for flush in [&first, &second] {
        let _ = storage.record(flush, after(1)).await?;
    }

    let first = &first.batches[&id];
    let second = &second.batches[&id];
    let cases =
        [(0, &first.output, true), (2, &first.error, false), (4, &second.output, true), (5, &second.error, false)];
    for (number, part, succeeded) in cases {
        let expected = RowPart { part: part.as_ref().expect("it has rows").part, succeeded };
        assert_eq!(storage.part_of_row(&OWNER, row(id, number), after(2)).await?, Some(expected), "row {number}");
    }
    assert_eq!(storage.part_of_row(&OWNER, row(id, 6), after(2)).await?, None);
    assert_eq!(storage.part_of_row(&OWNER, row(BatchId::new(), 0), after(2)).await?, None);
    Ok(())
}

async fn the_line_of_a_row_is_found_after_its_part_was_merged(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[4]).await?;
    let lease = storage.claimed(batch.id, 4, DaemonId::new()).await?;
    for rows in [0..1, 1..2] {
        let _ = storage.record(&flush(&[(&lease, rows, 0..0)]), after(1)).await?;
    }
    let parts = storage.tiered_parts(batch.output_file_id).await?;
    let merged = merged(&parts);
    assert!(storage.merge_parts(batch.output_file_id, &parts, merged, after(2)).await?);

    let found = storage.part_of_row(&OWNER, row(batch.id, 1), after(2)).await?;

    assert_eq!(found, Some(RowPart { part: merged, succeeded: true }));
    Ok(())
}

async fn the_line_of_a_row_vanishes_with_its_file(storage: TestStorage) -> Result<()> {
    let id = storage.running(&[2]).await?.id;
    let lease = storage.claimed(id, 2, DaemonId::new()).await?;
    let _ = storage.record(&flush(&[(&lease, 0..1, 1..2)]), after(1)).await?;
    storage.fence(id).await?.expect("no daemon lives");
    let ending = Ending { files_expire_at: Some(after(10)), ..ending(&storage.now(id).await?, []) };
    assert!(storage.finish(&ending, after(2)).await?);
    let is_found = async |number, seconds| -> Result<bool> {
        Ok(storage.part_of_row(&OWNER, row(id, number), after(seconds)).await?.is_some())
    };
    assert!(is_found(0, 9).await? && is_found(1, 9).await?);

    storage.delete_file(&OWNER, storage.now(id).await?.output_file_id, after(5)).await?;

    assert!(!is_found(0, 9).await?, "deleted");
    assert!(is_found(1, 9).await?);
    assert!(!is_found(1, 10).await?, "expired");
    Ok(())
}

async fn the_line_of_a_row_that_never_ran_is_in_the_error_file(storage: TestStorage) -> Result<()> {
    let id = storage.running(&[3]).await?.id;
    storage.cancel_batch(&OWNER, id, after(1)).await?;
    storage.fence(id).await?.expect("no daemon lives");
    let ending = ending(&storage.now(id).await?, 0..3);
    assert!(storage.finish(&ending, after(2)).await?);

    let found = storage.part_of_row(&OWNER, row(id, 2), after(3)).await?;

    let part = ending.never_ran.expect("no row has run").part;
    assert_eq!(found, Some(RowPart { part, succeeded: false }));
    Ok(())
}

async fn a_row_is_held_by_the_living_daemon_that_has_its_lease(storage: TestStorage) -> Result<()> {
    let id = storage.running(&[4]).await?.id;
    let daemon = storage.living_daemon().await?;
    storage.claimed(id, 1, DaemonId::new()).await?;
    let lease = storage.claimed(id, 2, daemon).await?;
    let held = async || -> Result<Vec<u32>> {
        let mut held = Vec::new();
        for position in 0..4 {
            if storage.is_held(&OWNER, id, position).await? {
                held.push(position);
            }
        }
        Ok(held)
    };

    assert_eq!(held().await?, [1, 2], "the first is a dead daemon's, the last is not claimed");
    assert!(!storage.is_held(&OWNER, BatchId::new(), 1).await?);
    storage.give_back(lease.hold()).await?;
    assert_eq!(held().await?, [0; 0]);
    Ok(())
}

async fn a_result_line_is_read_out_of_its_part(storage: TestStorage) -> Result<()> {
    let directory = TempDir::new().expect("a directory can be made");
    let blobs = Blobs::local(directory.path()).expect("a store");
    let id = storage.running(&[3]).await?.id;
    let lease = storage.claimed(id, 3, DaemonId::new()).await?;
    // The line that is looked for lies across two reads.
    let lines = [1, 0].map(|number| never_ran(row(id, number), &"x".repeat(3 << 20), NeverRan::Expired, None));
    let bytes = lines.concat();
    let part = FilePart { bytes: bytes.len() as u64, blob: blobs.put(bytes).await.expect("it can be kept") };
    let mut recorded = flush(&[(&lease, 0..0, 0..2)]);
    let error = recorded.batches.get_mut(&id).and_then(|batch| batch.error.as_mut());
    error.expect("two rows failed").part = part;
    let _ = storage.record(&recorded, after(1)).await?;

    for (number, line) in [(1, &lines[0]), (0, &lines[1])] {
        let found = result_line(&*storage, &blobs, &OWNER, row(id, number), START).await.expect("it can be read");

        let found = found.expect("it is recorded");
        assert!(line.strip_suffix(b"\n") == Some(&found.text), "row {number}");
        assert!(!found.succeeded);
    }
    let missing = result_line(&*storage, &blobs, &OWNER, row(id, 2), START).await.expect("it can be read");
    assert_eq!(missing, None);
    Ok(())
}

/// A reader of this file, as intake takes it in. The blobs are gone with the directory.
async fn reader_of(file: &str) -> (RowReader, TempDir) {
    let directory = TempDir::new().expect("a directory can be made");
    let blobs = Blobs::local(directory.path()).expect("a store");
    let limits = IntakeLimits {
        max_file_bytes: u64::MAX,
        max_line_bytes: 1 << 20,
        max_rows: 1000,
        orders_by_prompt: false,
        endpoints: Endpoints::KNOWN,
    };
    let mut indexer = Indexer::new(&limits);
    indexer.push(file.as_bytes());
    let index = indexer.finish().expect("a batch input file").index.concat();
    let part = FilePart { blob: blobs.put(file.to_owned()).await.expect("it can be kept"), bytes: file.len() as u64 };
    let index = blobs.put(index).await.expect("it can be kept");
    let input = BatchInput {
        owner: OWNER.clone(),
        endpoint: Endpoint::ChatCompletions.into(),
        index,
        parts: vec![part],
        metadata: std::sync::Arc::default(),
        created_at: Timestamp(0),
        expires_at: Timestamp(0),
        has_completed: false,
    };
    (RowReader::new(blobs, input), directory)
}

fn line(custom_id: &str, model: &str) -> String {
    let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
    format!(r#"{{"custom_id":"{custom_id}","method":"POST","url":"/v1/chat/completions","body":{body}}}"#)
}

#[tokio::test]
async fn rows_are_found_by_name_and_by_number_however_the_file_is_written() {
    let lines = [("a", "m"), (r"b\/\u00e9", "n"), ("c", "m"), ("d", "n")].map(|(id, model)| line(id, model));
    let [a, b, c, d] = &lines;
    let (reader, _directory) = reader_of(&format!("\u{feff}{a}\r\n\n  \n{b}\n{c}\r\n\r\n{d}")).await;

    for (number, name) in (0..).zip(["a", "b/é", "c", "d"]) {
        assert_eq!(reader.row_named(name).await.expect("it can be read"), Some(number), "{name}");
        let text = reader.line(number).await.expect("it can be read").expect("there is such a row");
        assert_eq!(text, lines[number as usize].as_bytes());
    }
    let positions = [0, 2, 1, 3].map(Some);
    for (row, position) in (0..).zip(positions) {
        assert_eq!(reader.position(row).await.expect("it can be read"), position, "rows of one model lie together");
    }
    for name in ["", "A", r"b\/\u00e9"] {
        assert_eq!(reader.row_named(name).await.expect("it can be read"), None, "{name}");
    }
    assert_eq!(reader.line(4).await.expect("it can be read"), None);
}

#[tokio::test]
async fn a_line_that_is_no_row_is_counted_as_intake_counted_it() {
    let long = line(&"x".repeat(2 << 20), "m");
    let lines = [line("a", "m"), long, "[]".to_owned(), line("b", "m")];
    let (reader, _directory) = reader_of(&lines.join("\n")).await;

    assert_eq!(reader.row_named("b").await.expect("it can be read"), Some(3));
    assert_eq!(reader.row_named(&"x".repeat(2 << 20)).await.expect("it can be read"), None);
    assert_eq!(reader.position(3).await.expect("it can be read"), Some(1));
}

#[tokio::test]
async fn a_blank_line_that_is_longer_than_any_row_does_not_shift_the_numbers_after_it() {
    let (reader, _directory) = reader_of(&[line("a", "m"), " ".repeat(1000), line("b", "m")].join("\n")).await;

    assert_eq!(reader.row_named("b").await.expect("it can be read"), Some(1));
}
