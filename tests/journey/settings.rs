//! Settings: where they come from, which one wins, and what is said of one that is wrong.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::common::builders::rows;
use crate::common::client::{new_batch, text};
use crate::common::eventually::eventually;
use crate::common::fake_upstream::FakeUpstream;
use crate::common::process::{Process, batchwright, refusal, run, said};

const UPSTREAM: [&str; 2] = ["--upstream", "http://127.0.0.1:9/v1"];

fn serve(directory: &Path, flags: &[&str]) -> Command {
    let data = directory.join("data").display().to_string();
    batchwright(&[&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data], flags].concat())
}

/// The completion windows a server offers: those that its refusal of another lists.
async fn windows(command: Command) -> String {
    let server = Process::start(command).await;
    let answer = server.client().post("/v1/batches", &new_batch("file-1", "never")).await;
    let message = answer.json()["error"]["message"].as_str().expect("a message").to_owned();
    message.trim_start_matches("Invalid value: 'never'. Supported values are: ").to_owned()
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_which_wins_over_the_file_which_wins_over_the_default() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("settings.toml");
    std::fs::write(&file, "upstream = \"http://127.0.0.1:9/v1\"\ncompletion_windows = [\"3h\", \"5h\"]\n")
        .expect("a file");
    let file = file.display().to_string();
    let command = |flags: &[&str]| serve(directory.path(), flags);
    let with_environment = |mut command: Command| {
        command.env("BATCHWRIGHT_COMPLETION_WINDOWS", "2h");
        command
    };

    let by_default = windows(command(&UPSTREAM)).await;
    let by_file = windows(command(&["--config", &file])).await;
    let by_environment = windows(with_environment(command(&["--config", &file]))).await;
    let by_flag = windows(with_environment(command(&["--config", &file, "--completion-windows", "1h"]))).await;

    assert_eq!([by_default, by_file, by_environment, by_flag], ["'24h' and '1h'.", "'3h' and '5h'.", "'2h'.", "'1h'."]);
}

#[tokio::test]
async fn prices_that_are_none_are_refused_with_their_place() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("settings.toml");
    // The table, and what the refusal says.
    let cases = [
        ("[prices.models.m]\ninput = -1\noutput = 1", "a price is a number from 0 on"),
        ("[prices.models.m]\ninput = inf\noutput = 1", "a price is a number from 0 on"),
        ("[prices.models.m]\ninput = 1", "output"),
        ("[prices.models.m]\ninput = 1\noutput = 1\nper = 1000", "per"),
    ];
    for (table, expected) in cases {
        std::fs::write(&file, table).expect("a file");

        let flags = ["--config", &file.display().to_string(), UPSTREAM[0], UPSTREAM[1]];
        let said = refusal(serve(directory.path(), &flags), 1).await;

        assert!(said.contains(expected), "{table}: {said}");
    }
}

#[tokio::test]
async fn the_settings_file_may_be_named_in_the_environment() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("settings.toml");
    std::fs::write(&file, "completion-windows = \"7h\"\nmax-concurrency = 7\nsingle-model = true\n").expect("a file");
    let mut command = serve(directory.path(), &UPSTREAM);
    command.env("BATCHWRIGHT_CONFIG", &file);

    assert_eq!(windows(command).await, "'7h'.");
}

#[tokio::test]
async fn an_unknown_key_in_the_settings_file_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("settings.toml");
    std::fs::write(&file, "max_concurency = 7\n").expect("a file");

    let said = refusal(serve(directory.path(), &["--config", &file.display().to_string()]), 2).await;

    assert!(said.contains("`max_concurency`") && said.contains("settings.toml"), "{said}");
    assert!(said.contains("did you mean `max_concurrency`?"), "{said}");
}

#[tokio::test]
async fn a_value_that_cannot_be_is_named_wherever_it_comes_from() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("settings.toml");
    std::fs::write(&file, "max-concurrency = 0\n").expect("a file");
    let by_file = serve(directory.path(), &["--config", &file.display().to_string()]);
    let by_flag = serve(directory.path(), &["--max-concurrency", "0"]);
    let mut by_environment = serve(directory.path(), &UPSTREAM);
    by_environment.env("BATCHWRIGHT_MAX_CONCURRENCY", "0");

    let cases = [
        (by_file, "The value is that of the settings file."),
        (by_flag, ""),
        (by_environment, "The value is that of the environment variable BATCHWRIGHT_MAX_CONCURRENCY."),
    ];
    for (command, source) in cases {
        let said = refusal(command, 2).await;
        assert!(said.contains(source) && (!source.is_empty() || !said.contains("The value is")), "{said}");

        assert!(said.contains("--max-concurrency"), "{said}");
    }
}

#[tokio::test]
async fn a_key_of_metadata_that_cannot_be_part_of_a_header_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");

    for (keys, expected) in [("team,cost center", "'cost center'"), ("größe", "'größe'"), ("a:b", "'a:b'"), ("", "''")]
    {
        let said = refusal(serve(directory.path(), &["--metadata-headers", keys]), 2).await;

        assert!(said.contains("--metadata-headers") && said.contains(&format!("{expected} cannot be")), "{said}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_unknown_cannot_be_one_of_the_only_ones() {
    let directory = tempfile::tempdir().expect("a temporary directory");

    let said = refusal(serve(directory.path(), &["--only-endpoints", "/v1/chat/completion"]), 2).await;

    assert!(said.contains("/v1/chat/completions, ") && said.contains("--extra-endpoints"), "{said}");
}

#[tokio::test]
async fn times_in_which_no_call_can_end_or_that_no_clock_has_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("settings.toml");
    std::fs::write(&file, "[[tools]]\nname = 'x'\nurl = 'http://h'\ntimeout = '0s'\n").expect("a file");
    let config = file.display().to_string();
    let (none, longest) = ("no call can end in no time", "more than 100 years");
    let cases = [
        (["--request-timeout", "0s"], none),
        (["--stall-timeout", "0s"], none),
        (["--max-response-time", "0ms"], none),
        (["--config", &config], none),
        (["--request-timeout", "101y"], longest),
        (["--stall-timeout", "500000000000y"], longest),
        (["--grace", "500000000000y"], longest),
        (["--steps-retention", "500000000000y"], longest),
        (["--completion-windows", "24h,500000000000y"], longest),
    ];
    for (flags, expected) in cases {
        let output = run(serve(directory.path(), &[&UPSTREAM[..], &flags].concat())).await;

        assert!(output.status.code().is_some_and(|code| code != 0), "{flags:?}: {output:?}");
        assert!(said(&output).contains(expected), "{flags:?}: {}", said(&output));
    }
}

#[tokio::test]
async fn an_empty_variable_is_not_set_and_a_key_has_no_blanks_around_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let upstream = FakeUpstream::start();
    let url = format!("http://{}/v1", upstream.address);
    let names =
        ["UPSTREAM_KEY", "DATABASE_URL", "BLOB_URL", "MAX_CONCURRENCY", "CONFIG", "GRACE", "MAX_RESPONSE_TOKENS"];
    for (key, expected) in [("", ""), ("sk-1\r\n", "Bearer sk-1")] {
        let mut command = serve(directory.path(), &["--upstream", &url]);
        command.envs(names.map(|name| (format!("BATCHWRIGHT_{name}"), "")));
        command.env("BATCHWRIGHT_UPSTREAM_KEY", key);
        let server = Process::start(command).await;

        server.client().get("/v1/models").await;
        assert_eq!(upstream.lists().last().expect("a call").header("authorization"), expected);
    }
}

#[tokio::test]
async fn the_proxy_of_the_environment_is_named_or_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("settings.toml");
    std::fs::write(&file, "[[mcp_servers]]\nlabel = 'x'\nurl = 'https://there/'\n").expect("a file");
    let config = file.display().to_string();
    let refused = [
        (serve(directory.path(), &["--upstream", "https://there/v1"]), "--upstream cannot be used"),
        (serve(directory.path(), &["--upstream", "http://here/v1", "--config", &config]), "[[mcp_servers]] 'x'"),
    ];
    for (mut command, setting) in refused {
        command.env("HTTPS_PROXY", "socks5://user:hunter2@127.0.0.1:9");
        let output = run(command).await;

        assert!(output.status.code().is_some_and(|code| code != 0), "{output:?}");
        let said = said(&output);
        let is_clear = said.contains(setting) && said.contains("the proxy socks5://127.0.0.1:9");
        assert!(is_clear && said.contains("NO_PROXY") && !said.contains("hunter2"), "{said}");
    }

    let mut command = serve(directory.path(), &["--upstream", "http://there/v1"]);
    command.env("HTTP_PROXY", "http://user:hunter2@127.0.0.1:9");
    let server = Process::start(command).await;

    let answer = server.client().get("/v1/models").await.json().to_string();
    let shown = "through the proxy http://127.0.0.1:9";
    assert!(answer.contains(shown) && !server.log().contains("hunter2"), "{answer} {}", server.log());
}

#[tokio::test]
async fn a_settings_file_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");

    let said = refusal(serve(directory.path(), &["--config", "/nowhere/settings.toml"]), 2).await;

    assert!(said.contains("/nowhere/settings.toml"), "{said}");
}

#[tokio::test]
async fn a_file_that_is_too_long_for_settings_is_not_read_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");

    let said = refusal(serve(directory.path(), &["--config", "/dev/zero"]), 2).await;

    assert!(said.contains("it is longer than 4 MiB"), "{said}");
}

#[tokio::test]
async fn serve_without_an_upstream_says_how_to_name_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");

    let output = run(serve(directory.path(), &[])).await;

    assert!(output.status.code().is_some_and(|code| code != 0), "{output:?}");
    assert!(said(&output).contains("--upstream URL"), "{}", said(&output));
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused_to_a_second_process() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let first = Process::start(serve(directory.path(), &UPSTREAM)).await;

    let output = run(serve(directory.path(), &UPSTREAM)).await;

    assert!(output.status.code().is_some_and(|code| code != 0), "{output:?}");
    let said = said(&output);
    assert!(said.contains("is in use by another batchwright") && said.contains("--data-dir"), "{said}");
    assert_eq!(first.client().get("/readyz").await.ok(), json!({ "status": "ready" }));
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();

    let data = directory.path().display().to_string();
    let flags = ["serve", "--data-dir", &data, "--listen", &address];
    let output = run(batchwright(&[&flags[..], &UPSTREAM].concat())).await;

    assert!(output.status.code().is_some_and(|code| code != 0), "{output:?}");
    assert!(said(&output).contains(&address) && said(&output).contains("--listen"), "{}", said(&output));
}

#[tokio::test]
async fn keys_and_passwords_are_not_shown() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = serve(directory.path(), &UPSTREAM);
    command.env("BATCHWRIGHT_UPSTREAM_KEY", "hunter2");
    let server = Process::start(command).await;
    let mut help = batchwright(&["serve", "--help"]);
    help.env("BATCHWRIGHT_UPSTREAM_KEY", "hunter2").env("BATCHWRIGHT_DATABASE_URL", "postgres://u:hunter2@h/d");

    let help = said(&run(help).await);

    assert!(help.contains("--upstream-key") && !help.contains("hunter2"), "{help}");
    assert!(!server.log().contains("hunter2"), "{}", server.log());
}

#[tokio::test]
async fn user_name_and_password_of_a_url_are_sent_and_not_logged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let upstream = FakeUpstream::start();
    let file = directory.path().join("settings.toml");
    let tools = "[[tools]]\nname = 'x'\nurl = 'http://user:hunter2@127.0.0.1:9/?key=hunter2'\n\
                 [[mcp_servers]]\nlabel = 'y'\nurl = 'http://user:hunter2@127.0.0.1:9/'\n";
    std::fs::write(&file, format!("upstream = 'http://user:hunter2@{}/v1?key=hunter2'\n{tools}", upstream.address))
        .expect("a file");
    let config = file.display().to_string();
    let server =
        Process::start(serve(directory.path(), &["--log", "trace", "--max-retries", "0", "--config", &config])).await;
    let client = server.client();
    let batch = client.submit(rows(2)).await;
    client.wait_for(&batch, "completed").await;
    let with_tools = json!({ "model": "m", "input": "?", "tools": [
        { "type": "function", "name": "x" },
        { "type": "mcp", "server_label": "y", "require_approval": "never" },
    ]});
    let row = json!({ "custom_id": "r", "method": "POST", "url": "/v1/responses", "body": with_tools });
    let file = client.upload(row.to_string()).await;
    let new = json!({ "input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h" });
    let batch = client.post("/v1/batches", &new).await.ok();
    let batch = client.wait_for(text(&batch["id"]), "completed").await;
    assert_eq!(client.results(&batch).await.error_codes(), ["tool_server_unreachable"]);
    let mut help = serve(directory.path(), &["--config", &config, "--help"]);
    help.env("BATCHWRIGHT_BLOB_URL", "s3://hunter2@bucket").env("BATCHWRIGHT_UPSTREAM", "http://u:hunter2@h");

    let [help, log] = [said(&run(help).await), server.log()];

    assert!(log.contains("TRACE") && help.contains("--upstream"), "{log}");
    for said in [help, log] {
        let shown: Vec<&str> = said.lines().filter(|line| line.contains("hunter2")).collect();
        assert!(shown.is_empty(), "{shown:#?}");
    }
    // user:hunter2
    assert!(upstream.calls().iter().all(|call| call.header("authorization") == "Basic dXNlcjpodW50ZXIy"));
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_not_shown() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = [
        ("[[tools]]\nname = 'x'\nurl = 'ftp://user:hunter2@h'\n", "[[tools]] 'x'"),
        ("[[tools]]\nname = 'x'\nurl = 'http://user:hunter2@['\n", ", line 3, cannot be used"),
        (
            "[[tools]]\nname = 'x'\nurl = 'http://user:hunter2@h'\nheaders = { authorization = 'hunter2' }",
            "Authorization",
        ),
        ("[[mcp_servers]]\nlabel = 'x'\nurl = 'ftp://user:hunter2@h'\n", "[[mcp_servers]] 'x'"),
        ("\nupstream = 'http://user:hunter2@h\n", ", line 2, cannot be used"),
    ];
    let mut cases = Vec::new();
    for (number, (text, expected)) in files.into_iter().enumerate() {
        let file = directory.path().join(format!("{number}.toml"));
        std::fs::write(&file, text).expect("a file");
        let mut command = serve(directory.path(), &["--config", &file.display().to_string()]);
        if !text.contains("upstream") {
            command.args(UPSTREAM);
        }
        cases.push((command, expected));
    }
    let flags: [(&[&str], &str); 9] = [
        (&["--upstream", "http://h", "--upstream-key", " \n"], "--upstream-key is empty"),
        (&["--upstream", "ftp://user:hunter2@h/v1"], "--upstream"),
        (&["--upstream", "http://user:hunter2@["], "--upstream"),
        (&["--upstream", "http://user:hunter2@h", "--upstream-key", "hunter2"], "--upstream-key"),
        (&["--upstream", "http://h", "--upstream-key", "hunter2\nhunter2"], "--upstream-key"),
        (&["--upstream", "http://h", "--blob-url", "s3://user:hunter2@bucket"], "--blob-url"),
        (&["--upstream", "http://h", "--blob-url", "ftp://user:hunter2@bucket"], "--blob-url"),
        (
            &["--upstream", "http://h", "--database-url", "mysql://user:hunter2@h/d", "--blob-url", "file:///x"],
            "--database-url",
        ),
        (
            &["--upstream", "http://h", "--database-url", "postgres://user:hunter2@[", "--blob-url", "file:///x"],
            "--database-url",
        ),
    ];
    cases.extend(flags.map(|(flags, expected)| (serve(directory.path(), flags), expected)));

    for (command, expected) in cases {
        let shown = format!("{command:?}");
        let output = run(command).await;

        assert!(output.status.code().is_some_and(|code| code != 0), "{shown}: {output:?}");
        let said = said(&output);
        assert!(said.contains(expected) && !said.contains("hunter2"), "{shown}: {said}");
    }
}

#[tokio::test]
async fn a_hangup_has_the_upstreams_read_again() {
    let (first, second) = (Process::simulate(&[]).await, Process::simulate(&[]).await);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (file, data) = (directory.path().join("settings.toml"), directory.path().join("data"));
    let write = |server: &Process| {
        let table = format!("[[upstreams]]\nname = 'it'\nurl = '{}/v1'\nmodels = '*'\n", server.base_url);
        std::fs::write(&file, table).expect("a file");
    };
    write(&first);
    let flags = ["--config", &file.display().to_string(), "--data-dir", &data.display().to_string()];
    let server = Process::serve_at("127.0.0.1:0", &flags).await;
    let id = server.client().submit(rows(3)).await;
    server.client().wait_for_completed(&id, 3).await;

    write(&second);
    server.signal("HUP");
    eventually("a call of the other server", async || {
        let id = server.client().submit(rows(3)).await;
        server.client().wait_for_completed(&id, 3).await;
        let stats = second.client().get("/stats").await.ok();
        (stats["requests"].as_u64() >= Some(1)).then_some(())
    })
    .await;
}
