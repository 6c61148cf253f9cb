//! The S3 server of the tests as a program, for what speaks S3 and has no store at hand.
//!
//! `cargo run --example s3_server -- ADDRESS DIRECTORY` keeps one bucket in a folder of the directory, and prints, as
//! lines for a shell, the environment with which batchwright uses it.

#[path = "../tests/common/s3.rs"]
mod s3;

use std::path::Path;

use tokio::net::TcpListener;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, directory] = &arguments[..] else { return Err("usage: s3_server ADDRESS DIRECTORY".into()) };
    let listener = TcpListener::bind(address).await?;
    println!("BATCHWRIGHT_BLOB_URL=s3://{}", s3::BUCKET);
    for (name, value) in s3::environment(listener.local_addr()?) {
        println!("{name}={value}");
    }
    s3::serve(listener, Path::new(directory)).await;
    Ok(())
}
