//! What the log says at the start of an upstream whose settings are wrong.

use crate::common::eventually::until;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::process::{Process, batchwright};

/// Starts `serve` with these flags, and waits until its log says this. The line.
async fn log_line(flags: &[&str], expected: &str) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().display().to_string();
    let given = ["serve", "--listen", "127.0.0.1:0", "--log", "debug,h2=off", "--data-dir", &data];
    let server = Process::start(batchwright(&[&given[..], flags].concat())).await;
    let line = || server.log().lines().find(|line| line.contains(expected)).map(str::to_owned);
    until(expected, || line().is_some()).await;
    line().expect("it is there")
}

#[tokio::test]
async fn a_wrong_base_url_is_named_with_the_right_one() {
    let simulator = Process::simulate(&[]).await;
    for path in ["", "/v1/chat/completions", "/v1/models/", "/api"] {
        let url = format!("{}{path}?key=hunter2", simulator.base_url);

        let line = log_line(&["--upstream", &url], "base URL of an upstream is wrong").await;

        let instead = format!("instead={}/v1", simulator.base_url);
        assert!(line.contains("WARN") && line.ends_with(&instead) && !line.contains("hunter2"), "{line}");
    }
}

#[tokio::test]
async fn what_an_upstream_refuses_is_a_warning_and_one_that_loads_is_none() {
    let cases = [
        (Reply::error(401), "", "WARN", "asks for a key"),
        (Reply::error(403), "hunter2", "WARN", "refuses its key"),
        (Reply::error(308), "", "WARN", "redirects calls"),
        (Reply::error(503), "", "INFO", "is not ready yet"),
        (Reply::error(404), "", "INFO", "has no list of models"),
        (Reply::new(200, "<html>"), "", "INFO", "has no list of models"),
        (Reply::new(200, "{\"data\":[]}"), "", "DEBUG", "has listed its models"),
    ];
    for (reply, key, level, expected) in cases {
        let upstream = FakeUpstream::start();
        upstream.reply(move |_| reply.clone());
        let url = format!("http://{}/v1", upstream.address);
        let with_key = ["--upstream", &url, "--upstream-key", key];

        let line = log_line(if key.is_empty() { &with_key[..2] } else { &with_key }, expected).await;

        assert!(line.contains(level) && !line.contains("hunter2"), "{line}");
    }
    let down = FakeUpstream::down();
    let line = log_line(&["--upstream", &format!("http://{}/v1", down.address)], "does not answer").await;
    assert!(line.contains("WARN") && line.contains("could not be reached"), "{line}");
}
