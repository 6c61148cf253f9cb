//! The database restarted, and cut off in silence; the object store slow, and cut off.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use url::Url;

use crate::common::builders::rows;
use crate::common::client::{Client, send};
use crate::common::eventually::eventually;
use crate::common::process::Process;
use crate::common::proxy::Proxy;
use crate::databases::{OwnPostgres, postgres_url};
use crate::stage::{Database, Stage, number, setting};

const WORKER: [&str; 6] = ["--role", "worker", "--lease", "2s", "--max-concurrency", "32"];

/// An API and two workers, which run a batch.
struct Running {
    /// Kept, so that the client has somebody to talk to.
    _api: Process,
    workers: Vec<Process>,
    client: Client,
    input: String,
    id: String,
}

impl Running {
    async fn start(stage: &Stage, row_count: u64) -> Self {
        let api = stage.serve(&["--role", "api"]).await;
        let workers = vec![stage.serve(&WORKER).await, stage.serve(&WORKER).await];
        let client = api.client();
        let input = rows(usize::try_from(row_count).expect("few"));
        let id = client.submit(input.clone()).await;
        Self { _api: api, workers, client, input, id }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_restarted_and_work_goes_on_by_itself() {
    let mut postgres = OwnPostgres::start();
    let database = Database::Postgres(postgres.database().await);
    let stage = Stage::new(&["--latency", "40ms"], database).await;
    let restarts = setting("CHAOS_RESTARTS", 2);
    let row_count = 4_000 * restarts;
    let Running { _api, workers, client, input, id } = Running::start(&stage, row_count).await;

    for restart in 1..=restarts {
        client.wait_for_completed(&id, restart * 1_000).await;
        postgres.stop();
        // Some of them for longer than a lease.
        tokio::time::sleep(Duration::from_secs(restart % 2 * 3)).await;
        postgres.bring_back();
        eventually("the API to answer again", async || {
            let answer = client.get(&format!("/v1/batches/{id}")).await;
            (answer.status == 200).then_some(())
        })
        .await;
    }
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(stage.sent().await.0, row_count);
    let batch_counts = &batch["request_counts"];
    assert_eq!(number(&batch_counts["completed"]), row_count, "no row fails because the database does");
    stage.prove(&client, &input, &batch, workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_cut_off_in_silence_stops_the_workers_until_it_is_back() {
    let seconds = setting("CHAOS_CUT_SECONDS", 6);
    let direct = postgres_url().await;
    let proxy = Proxy::start(address(&direct)).await;
    let mut stage = Stage::new(&["--latency", "40ms"], Database::Postgres(direct.clone())).await;
    let mut through_proxy: Url = direct.parse().expect("a URL");
    through_proxy.set_port(Some(proxy.address.port())).expect("it has a port");
    stage.replace_flag("--database-url", through_proxy.into());
    let Running { _api, workers, client, input, id } = Running::start(&stage, 6_000).await;
    client.wait_for_completed(&id, 1_000).await;

    proxy.cut();
    let asked = tokio::spawn(send(client.request(reqwest::Method::GET, &format!("/v1/batches/{id}"))));
    // The lease, and the longest that a beat waits for its answer.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stopped = stage.upstream_at_rest().await;
    tokio::time::sleep(Duration::from_secs(seconds - 3)).await;
    let still = stage.upstream().await;
    let recorded = stage.recorded().await;
    proxy.mend();
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(stopped["requests"], still["requests"], "no row is started by who may have lost its leases");
    let (sent, repeats) = stage.sent().await;
    assert_eq!(sent, 6_000);
    let unrecorded = number(&still["requests"]) - recorded;
    println!("{seconds} s: {unrecorded} rows were unrecorded, {repeats} were sent again");
    assert!(repeats <= unrecorded);
    let asked = tokio::time::timeout(Duration::from_secs(35), asked).await.expect("no call hangs").expect("it is sent");
    assert!(matches!(asked.status, 200 | 503), "{asked:?}");
    stage.prove(&client, &input, &batch, workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_object_store_that_is_cut_off_for_a_while_loses_nothing() {
    let mut stage = Stage::postgres_and_s3(&["--latency", "20ms"]).await;
    let store = stage.variable("AWS_ENDPOINT_URL").trim_start_matches("http://").parse().expect("an address");
    let proxy = Proxy::start(store).await;
    stage.set("AWS_ENDPOINT_URL", format!("http://{}", proxy.address));
    let Running { _api, workers, client, input, id } = Running::start(&stage, 3_000).await;
    client.wait_for_completed(&id, 200).await;

    proxy.slow_down(Duration::from_millis(100));
    client.wait_for_completed(&id, 1_000).await;
    proxy.cut();
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.mend();
    proxy.slow_down(Duration::ZERO);
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(stage.sent().await, (3_000, 0), "answers wait until they can be written");
    stage.prove(&client, &input, &batch, workers).await;
}

fn address(url: &str) -> SocketAddr {
    let url: Url = url.parse().expect("a URL");
    let host = (url.host_str().expect("it has a host"), url.port().expect("it has a port"));
    host.to_socket_addrs().expect("it resolves").next().expect("it has an address")
}
