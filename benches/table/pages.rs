//! Measures what people look at while 10,000 batches with ten million rows wait: every page of the dashboard, and the
//! progress of a batch.

use std::path::Path;
use std::time::{Duration, Instant};

use axum::Router;
use batchwright::client::{BatchRequest, Client};
use batchwright::domain::batch::BatchStatus;
use batchwright::net::ClientSettings;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::databases::postgres_url;
use crate::process::Process;
use crate::{CHAT, Result, client::upload, input, median, millis, p99, row};

const BATCHES: usize = 10_000;
const ROWS_OF_A_BATCH: u32 = 1_000;
const READS: usize = 400;

pub async fn pages(directory: &Path) -> Result<()> {
    let upstream = upstream_that_never_answers().await?;
    let postgres = postgres_url().await;
    let blobs = directory.join("blobs");
    std::fs::create_dir_all(&blobs)?;
    let blobs = format!("file://{}", blobs.display());
    let replicas = vec!["--database-url", &postgres, "--blob-url", &blobs];
    for (database, more) in [("SQLite", vec![]), ("PostgreSQL", replicas)] {
        let server = Process::serve(&directory.join(database), &upstream, &more)?;
        let batch = fill(&Client::new(&server.address)?).await?;
        let root = server.address.trim_end_matches("/v1");
        let pages = [
            ("overview", "/dashboard".to_owned()),
            ("list of batches", "/dashboard/batches".to_owned()),
            ("batch", format!("/dashboard/batches/{batch}")),
            ("row", format!("/dashboard/batches/{batch}/rows/request-7")),
            ("upstreams", "/dashboard/upstreams".to_owned()),
            ("progress", format!("/v1/batches/{batch}/progress")),
        ];
        for (page, path) in pages {
            let mut times = read(&format!("{root}{path}")).await?;
            row(
                &format!("{page}, p99 ({database})"),
                millis(p99(&mut times)),
                format!("median {}", millis(median(times))),
            );
        }
    }
    Ok(())
}

/// Creates the batches over one file. Returns the last one, once all are in progress.
async fn fill(client: &Client) -> Result<String> {
    let file = upload(client, input(ROWS_OF_A_BATCH)).await?;
    let request = BatchRequest::new(&file, CHAT);
    let created = stream::iter(0..BATCHES).map(|_| client.create_batch(&request)).buffer_unordered(16);
    let ids: Vec<String> = created.map_ok(|batch| batch.id).try_collect().await?;
    for id in &ids {
        while client.batch(id).await?.status != BatchStatus::InProgress {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    ids.into_iter().next_back().ok_or("there is no batch".into())
}

/// The times of reads one after the other, in their order by length.
async fn read(url: &str) -> Result<Vec<Duration>> {
    let client = ClientSettings::default().build()?;
    let mut times = Vec::new();
    for _ in 0..READS {
        let started = Instant::now();
        client.get(url).send().await?.error_for_status()?.bytes().await?;
        times.push(started.elapsed());
    }
    Ok(times)
}

async fn upstream_that_never_answers() -> Result<String> {
    let app = Router::new().fallback(std::future::pending::<()>);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/v1", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(address)
}
