//! A reader of the results of a running batch that is cut again and again, and goes on at the other replica.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;

use crate::common::builders::rows;
use crate::common::client::Client;
use crate::common::live_results::{Event, EventStream, files, results, sorted};
use crate::common::process::Process;
use crate::stage::{Stage, number, setting};

/// What a reader has: the lines of both files, and the cursor behind them.
#[derive(Default)]
struct Read {
    cursor: String,
    output: String,
    errors: String,
    has_ended: bool,
}

impl Read {
    /// Reads a page, of which nothing counts if its connection is cut within the body. True if it was.
    async fn page(&mut self, client: &Client, id: &str, random: &mut StdRng) -> bool {
        let path = format!("/v1/batches/{id}/results?wait=5&after={}", self.cursor);
        let mut response = client.request(Method::GET, &path).send().await.expect("the server answers");
        assert_eq!(response.status(), 200);
        let header = |name: &str| {
            let value = response.headers()[name].to_str().expect("headers are ASCII");
            value.to_owned()
        };
        let (next, has_ended) = (header("batchwright-next-cursor"), header("batchwright-has-ended") == "true");
        let cut_after = random.random_range(0..400_000);
        let mut lines = Vec::new();
        while let Some(piece) = response.chunk().await.expect("the body arrives") {
            if lines.len() > cut_after {
                return true;
            }
            lines.extend_from_slice(&piece);
        }
        let lines = String::from_utf8(lines).expect("lines are UTF-8");
        for line in lines.split_inclusive('\n') {
            assert!(line.ends_with('\n'), "a page has whole lines");
            let file = if line.contains(r#""status_code":200"#) { &mut self.output } else { &mut self.errors };
            file.push_str(line);
        }
        (self.cursor, self.has_ended) = (next, has_ended);
        false
    }

    /// Reads some events, and leaves in the middle of those behind them. True if the batch had not ended before.
    async fn events(&mut self, client: &Client, id: &str, random: &mut StdRng) -> bool {
        let mut stream = EventStream::open(client, &format!("/v1/batches/{id}/results"), &self.cursor).await;
        for _ in 0..random.random_range(1..500) {
            let Some(Event { name, data, id }) = stream.next().await else { break };
            match name.as_str() {
                "output" => self.output.push_str(&(data + "\n")),
                "error" => self.errors.push_str(&(data + "\n")),
                _ => {
                    assert_eq!(name, "end");
                    self.has_ended = true;
                    return false;
                }
            }
            self.cursor = id;
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_cut_fifty_times_on_two_replicas_has_every_line_once() {
    let row_count = setting("CHAOS_ROWS", 20_000);
    let seed = setting("CHAOS_SEED", 1);
    let mut random = StdRng::seed_from_u64(seed);
    let stage = Stage::postgres(&["--latency", "lognormal:30ms:0.5", "--fail-rate", "0.03"]).await;
    let flags = ["--max-concurrency", "32", "--concurrency", "fixed", "--max-retries", "0"];
    let replicas = [stage.serve(&flags).await, stage.serve(&flags).await];
    let clients = replicas.each_ref().map(Process::client);
    let input = rows(usize::try_from(row_count).expect("few"));
    let id = clients[0].submit(input.clone()).await;

    let (mut read, mut cuts, mut cuts_while_it_ran) = (Read::default(), 0, 0);
    while !read.has_ended {
        let client = &clients[cuts % 2];
        let was_cut = if random.random_bool(0.5) {
            read.page(client, &id, &mut random).await
        } else {
            read.events(client, &id, &mut random).await
        };
        cuts += usize::from(was_cut);
        let is_running = was_cut && clients[0].batch(&id).await["status"] == "in_progress";
        cuts_while_it_ran += usize::from(is_running);
    }

    let batch = clients[1].wait_for(&id, "completed").await;
    println!("seed {seed}: {cuts} cuts, {cuts_while_it_ran} of them while the batch ran");
    assert!(cuts_while_it_ran >= 50, "{cuts_while_it_ran} of {cuts} cuts while the batch ran");
    assert!(number(&batch["request_counts"]["failed"]) > 0, "{batch}");
    let [output, errors] = files(&clients[0], &batch).await;
    assert!(read.output == output, "{} bytes instead of {}", read.output.len(), output.len());
    assert!(read.errors == errors, "{} bytes instead of {}", read.errors.len(), errors.len());
    let ordered = results(&clients[1], &id, "order=input").await.text();
    let rows_of = ordered.lines().map(|line| line.split('"').nth(7).expect("a custom_id"));
    assert!(rows_of.eq((0..row_count).map(|row| format!("row-{row}"))), "one line for each row, in their order");
    assert_eq!(sorted(&ordered), sorted(&(output + &errors)));
    stage.prove(&clients[0], &input, &batch, replicas.into()).await;
}
