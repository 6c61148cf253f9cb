//! A data directory that is taken away while the program runs: nothing is acknowledged that would be lost.

use std::path::Path;

use crate::common::builders::rows;
use crate::common::client::{Client, new_batch, text};
use crate::common::eventually::eventually;
use crate::stage::{Stage, number};

async fn problems(client: &Client) -> String {
    eventually("the service not to be ready", async || {
        let answer = client.get("/readyz").await;
        (answer.status == 503).then(|| answer.text())
    })
    .await
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("it can be renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_lost_is_not_acknowledged_and_no_row_is_started() {
    const ROWS: u64 = 4_000;
    let mut started_all = Vec::new();
    for taken in ["data", "data/batchwright.db", "data/lock", "data/blobs"] {
        let stage = Stage::sqlite(&["--latency", "40ms"]).await;
        let server = stage.serve(&["--max-concurrency", "4", "--lease", "2s"]).await;
        let client = server.client();
        let input = rows(usize::try_from(ROWS).expect("few"));
        let file = client.upload(input.clone()).await;
        let id = client.create_batch(&file).await;
        client.wait_for_completed(&id, 10).await;
        let (path, away) = (stage.directory.path().join(taken), stage.directory.path().join("away"));

        rename(&path, &away);

        let problems = problems(&client).await;
        let is_blobs = taken == "data/blobs";
        let expected = if is_blobs { "lost the mark" } else { "is not the file that was opened" };
        assert!(problems.contains(expected), "{taken}: {problems}");
        let mut answers = vec![client.try_upload(rows(1)).await];
        if !is_blobs {
            answers.push(client.post("/v1/batches", &new_batch(&file, "24h")).await);
            answers.push(client.cancel(&id).await);
            answers.push(client.delete(&format!("/v1/files/{file}")).await);
            // The rows in flight end, and their lease runs out.
            let sent = number(&stage.upstream_at_rest().await["requests"]);
            started_all.extend((sent >= ROWS).then_some(taken));
        }
        for answer in answers {
            assert_eq!(answer.status, 503, "{taken}: {}", answer.text());
            let error = answer.json()["error"].clone();
            assert!(text(&error["message"]).contains("data directory is gone"), "{taken}: {error}");
        }

        if is_blobs {
            continue;
        }
        // The program may have made another directory in its place.
        if taken == "data" {
            let _ = std::fs::remove_dir_all(&path);
        }
        rename(&away, &path);
        eventually("the service to be ready", async || (client.get("/readyz").await.status == 200).then_some(())).await;
        client.cancel(&id).await.ok();
        let batch = client.wait_for(&id, "cancelled").await;
        let verdict = client.verify(&input, &batch).await;
        assert!(verdict.holds(), "{taken}: {verdict}");
    }
    assert!(started_all.is_empty(), "all rows were sent without {started_all:?}");
}
