//! An S3 server over a directory: real HTTP, real signatures, one bucket.

use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

pub const BUCKET: &str = "batchwright";
pub const ACCESS_KEY: &str = "test-key";
pub const SECRET_KEY: &str = "test-secret";

/// Serves the bucket, which is a folder of `directory`, for as long as it is polled.
pub async fn serve(listener: TcpListener, directory: &Path) {
    std::fs::create_dir_all(directory.join(BUCKET)).expect("the directory can be written");
    let mut service = S3ServiceBuilder::new(FileSystem::new(directory).expect("the directory is there"));
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = service.build();
    loop {
        let (socket, _) = listener.accept().await.expect("connections are accepted");
        let service = service.clone();
        tokio::spawn(async move {
            // A client that goes away is no failure.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// What a client's environment has to say for this server at `address`.
pub fn environment(address: std::net::SocketAddr) -> [(&'static str, String); 4] {
    [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ]
}
