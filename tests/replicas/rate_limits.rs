//! A limit in time that the upstream has for all workers together.

use crate::common::builders::rows;
use crate::stage::{Stage, number};

const ROWS: u64 = 200;

#[tokio::test]
async fn two_workers_keep_a_rate_limit_together_and_fail_no_row() {
    let scenario = tempfile::NamedTempFile::new().expect("a file");
    let text = "requests_per_second = 20.0\nretry_after = '1s'\ntoken_time = '1ms'\nslots = 256\n";
    std::fs::write(scenario.path(), text).expect("the file can be written");
    let stage = Stage::postgres(&["--scenario", &scenario.path().display().to_string()]).await;
    // With default settings but for the retries, which no refusal uses up.
    let servers = [stage.serve(&["--max-retries", "0"]).await, stage.serve(&["--max-retries", "0"]).await];
    let client = servers[0].client();
    let input = rows(usize::try_from(ROWS).expect("a small number"));

    let ids = [client.submit(input.clone()).await, client.submit(input).await];
    for id in &ids {
        let batch = client.wait_for(id, "completed").await;
        assert_eq!(number(&batch["request_counts"]["completed"]), ROWS);
    }

    let stats = stage.simulator.client().get("/stats").await.ok();
    let refused = number(&stats["failures"]);
    assert!(refused < ROWS * 2 / 5, "{refused} calls were refused");
}
