//! HTTP tools: what they are sent, and what becomes of their failures.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::fake_upstream::{Call, Reply};
use crate::common::process::Process;
use crate::stage::{Stage, call, items, last_text, scripted, submit};

/// A row that calls one tool once.
fn one_call(tool: &str) -> Value {
    scripted(json!({ "turns": [[call(tool, json!({ "a": 1, "b": 2 }))]] }), &[tool])
}

/// A stage with a tool `special`, that has these further settings and answers as it is told.
async fn special(settings: &str, reply: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Stage {
    let settings = format!("[[tools]]\nname = 'special'\nurl = 'TOOLS/special'\n{settings}");
    let stage = Stage::with(&["--latency", "0ms"], &settings, &[]).await;
    stage.tools.reply(reply);
    stage
}

/// What the model was told by the tool.
async fn said(stage: &Stage) -> String {
    let response = stage.response(one_call("special")).await;
    assert_eq!(items(&response)[1]["output"], last_text(&response));
    last_text(&response).to_owned()
}

#[tokio::test]
async fn a_failing_tool_is_an_output_and_no_failed_row() {
    let stage = special("retries = 0", |_| Reply::new(404, "no such city")).await;

    assert_eq!(said(&stage).await, "The tool answered with status 404 Not Found: no such city");
}

#[tokio::test]
async fn failures_that_may_pass_are_tried_again_with_the_same_key() {
    let stage =
        special("retries = 2", |call| if call.attempt < 2 { Reply::error(503) } else { Reply::new(200, "at last") })
            .await;

    assert_eq!(said(&stage).await, "at last");
    let calls = stage.calls("special");
    assert!(calls.len() == 3 && calls.iter().all(|call| call.key() == calls[0].key()), "{calls:?}");
}

#[tokio::test]
async fn what_will_not_pass_is_not_tried_again() {
    let stage = special("retries = 5", |_| Reply::new(400, "no")).await;

    said(&stage).await;

    assert_eq!(stage.calls("special").len(), 1);
}

#[tokio::test]
async fn slow_and_talkative_tools_are_cut_off() {
    let slow = special("retries = 0\ntimeout = '50ms'", |_| Reply::new(200, "late").held()).await;
    assert_eq!(said(&slow).await, "The tool did not answer within 50ms.");

    let talkative = special("max_output_bytes = '1KiB'", |_| Reply::new(200, "x".repeat(1025))).await;
    assert_eq!(said(&talkative).await, "The output of the tool is larger than 1.0 KiB.");
    assert_eq!(talkative.calls("special").len(), 1, "more of the same does not help");

    let exact = special("max_output_bytes = '1KiB'", |_| Reply::new(200, "x".repeat(1024))).await;
    assert_eq!(said(&exact).await.len(), 1024);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let stage = special("retries = 0", |_| Reply::new(307, "").header("location", "/elsewhere")).await;

    assert!(said(&stage).await.starts_with("The tool answered with status 307"));
    assert!(stage.calls("elsewhere").is_empty());
}

#[tokio::test]
async fn equal_arguments_are_asked_once_of_a_tool_that_is_cached() {
    let stage = special("cache = true", |call| Reply::new(200, format!("for {}", call.text()))).await;
    let turn = [call("special", json!({ "a": 1 })), call("special", json!({ "a": 1 }))];
    let body = || scripted(json!({ "turns": [turn, [call("special", json!({ "a": 2 }))]] }), &["special"]);

    let results = stage.results(&[("one", body()), ("two", body())]).await;

    assert_eq!(results.output.len(), 2);
    assert_eq!(stage.calls("special").len(), 2, "{:?}", stage.calls("special"));
}

#[tokio::test]
async fn what_a_cached_tool_said_is_remembered_up_to_a_bound() {
    const ROWS: usize = 10;
    const CALLS: usize = 10;
    // 25 MiB in all, of which 16 are kept.
    let stage = special("cache = true", |_| Reply::new(200, "x".repeat(256 << 10))).await;
    let row = |row: usize| {
        let turn: Vec<Value> = (0..CALLS).map(|n| call("special", json!({ "n": row * CALLS + n }))).collect();
        scripted(json!({ "turns": [turn] }), &["special"])
    };
    let names: Vec<String> = (0..ROWS).map(|no| format!("row-{no}")).collect();
    let rows: Vec<(&str, Value)> = names.iter().enumerate().map(|(no, name)| (name.as_str(), row(no))).collect();

    for _ in 0..2 {
        assert_eq!(stage.results(&rows).await.output.len(), ROWS);
    }

    let asked = stage.calls("special").len();
    assert!(asked > ROWS * CALLS * 5 / 4, "{asked}: more was kept than the bound");
    assert!(asked <= 2 * ROWS * CALLS, "{asked}");
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_a_tool_bears() {
    let stage = special("max_concurrency = 2", |_| Reply::new(200, "ok").after(Duration::from_millis(20))).await;
    let turn: Vec<Value> = (0..6).map(|n| call("special", json!({ "n": n }))).collect();

    stage.response(scripted(json!({ "turns": [turn] }), &["special"])).await;

    assert_eq!((stage.calls("special").len(), stage.tools.peak()), (6, 2));
}

#[tokio::test]
async fn secrets_reach_the_tool_and_nobody_else() {
    let settings = "headers = { Authorization = 'Bearer ${TOOL_KEY}', x-plain = 'sesame-2' }\nretries = 0";
    let stage = special(settings, |_| Reply::error(500)).await;
    let mut command = stage.command();
    command.env("TOOL_KEY", "sesame-1").args(["--log", "trace"]);
    let mut server = Process::start(command).await;
    let client = server.client();
    let mut body = one_call("special");
    let secret = json!({
        "type": "mcp", "server_label": "x", "server_url": "https://mcp.example.com", "authorization": "sesame-3",
        "headers": { "x-key": "sesame-4" },
    });
    body["tools"].as_array_mut().expect("a list").push(secret);

    let id = submit(&client, &[("row", body)], json!({})).await;
    let batch = client.wait_for(&id, "completed").await;
    let output = client.results(&batch).await.output[0].to_string();
    server.terminate().await;

    let calls = stage.calls("special");
    assert_eq!((calls[0].header("authorization"), calls[0].header("x-plain")), ("Bearer sesame-1", "sesame-2"));
    assert!(output.contains("mcp.example.com") && !output.contains("sesame"), "{output}");
    assert!(!server.log().contains("sesame"), "{}", server.log());
    let database = stage.database();
    assert!(database.contains("special") && !database.contains("sesame"));
}

#[tokio::test]
async fn what_is_wrong_with_the_settings_is_said_at_the_start() {
    let cases = [
        ("[[tools]]\nname = 'no good'\nurl = 'TOOLS'", "the function name 'no good'"),
        ("[[tools]]\nname = 'add'\nurl = 'TOOLS'", "'add' is given twice"),
        (
            "[[tools]]\nname = 'x'\nurl = 'ftp://x'",
            "[[tools]] 'x': a URL must begin with http:// or https://, but this one begins with ftp:",
        ),
        ("[[tools]]\nname = 'x'\nurl = 'TOOLS'\nparameters = { type = 'strang' }", "[[tools]] 'x': parameters:"),
        (
            "[[tools]]\nname = 'x'\nurl = 'TOOLS'\nheaders = { A = '${NO_SUCH}' }",
            "the environment variable NO_SUCH is not set, or empty",
        ),
        ("[[tools]]\nname = 'x'\nurl = 'TOOLS'\ncolour = 'red'", "unknown field `colour`"),
        ("[[tools]]\nurl = 'TOOLS'", "missing field `name`"),
        ("[[tools]]\nname = 'x'\nurl = 'TOOLS'\nheaders = 'Authorization: sesame'", "a text, expected a map"),
        ("[[agents]]\nname = 'x'\nmodel = 'm'\ninstructions = ''\ntools = ['nobody']", "names 'nobody', which is not"),
        (
            "[[mcp_servers]]\nlabel = 'x'\nurl = 'TOOLS'\n[[mcp_servers]]\nlabel = 'x'\nurl = 'TOOLS'",
            "the label 'x' twice",
        ),
    ];
    for (settings, expected) in cases {
        let stage = Stage::with(&[], settings, &[]).await;
        let log = Process::try_start(stage.command()).await.err().expect("it does not start");
        assert!(log.contains(expected) && !log.contains("sesame"), "{settings}\n{log}");
    }
    let stage = Stage::with_flags(&["--mcp-allowed-hosts", "https://example.com"]).await;
    let log = Process::try_start(stage.command()).await.err().expect("it does not start");
    assert!(log.contains("--mcp-allowed-hosts 'https://example.com'"), "{log}");
}

#[tokio::test]
async fn the_settings_of_the_readme_are_settings() {
    let readme = include_str!("../../README.md");
    let samples = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().expect("it ends"));
    for sample in samples {
        let mut stage = Stage::with(&[], sample, &[]).await;
        if sample.contains("[[upstreams]]") {
            stage.leave_upstream_out();
        }
        let mut command = stage.command();
        command
            .env("WEATHER_KEY", "x")
            .env("DOCS_KEY", "y")
            .env("OPENAI_API_KEY", "z")
            .env("BATCHWRIGHT_WEBHOOK_SECRET", "w");

        Process::start(command).await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_row_is_said_in_the_words_of_json() {
    let server = |more: Value| {
        let mut tool = json!({ "type": "mcp", "server_label": "x\r\ny", "server_url": "https://mcp.example.com" });
        tool.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({ "tools": [tool] })
    };
    let cases = [
        (json!({ "tools": [1] }), "'tools[0]' is not a tool: expected an object, but got the integer 1."),
        (json!({ "tools": [{ "name": ["x"] }] }), "'tools[0]' is not a tool: expected a string, but got an array."),
        (json!({ "tools": {} }), "'tools' is not a list: expected an array, but got an object."),
        (
            json!({ "previous_response_id": {} }),
            "'previous_response_id' is not a string: expected a string, but got an object.",
        ),
        (json!({ "text": [7] }), "'text' is not an object: expected an object, but got an array."),
        (
            server(json!({ "allowed_tools": 7 })),
            "The tool with the 'server_label' 'x\\r\\ny' cannot be read: it has none of the forms that it may have.",
        ),
        (
            server(json!({ "headers": { "a\r\nb": "c" } })),
            "The headers of MCP server 'x\\r\\ny' cannot be sent: 'a\\r\\nb' is no name of an HTTP header.",
        ),
    ];
    let stage = Stage::with_flags(&["--mcp-allowed-hosts", "mcp.example.com"]).await;
    let row = |(number, (body, _)): (usize, &(Value, &str))| {
        let mut whole = json!({ "model": "m", "input": "?" });
        whole.as_object_mut().expect("an object").extend(body.as_object().expect("an object").clone());
        (number.to_string(), whole)
    };
    let rows: Vec<(String, Value)> = cases.iter().enumerate().map(row).collect();
    let rows: Vec<(&str, Value)> = rows.iter().map(|(name, body)| (name.as_str(), body.clone())).collect();

    let results = stage.results(&rows).await;

    assert!(results.output.is_empty(), "{:?}", results.output);
    for (number, (body, message)) in cases.iter().enumerate() {
        let name = number.to_string();
        let line = results.errors.iter().find(|line| line["custom_id"] == name).expect("it has a line");
        assert_eq!(line["error"]["message"], *message, "{body}");
    }
}
