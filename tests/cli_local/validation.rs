//! What is wrong with an input file: `check` and `run` say the same as the server.

use serde_json::{Value, json};

use crate::common::builders::{file, line, rows};
use crate::common::process::{run, said};
use crate::common::test_app::TestApp;
use crate::stage::{INPUT, OUTPUT, Stage, run_with_input};

/// Files that a batch cannot run.
fn bad_files() -> Vec<(&'static str, Vec<u8>)> {
    let good = |id: &str| line(id).to_string();
    let lines = [
        good("a"),
        String::new(),
        "{\"custom_id\"".to_owned(),
        r#"{"method":"POST","url":"/v1/chat/completions","body":{}}"#.to_owned(),
        good("a"),
        good("b").replace("POST", "GET"),
        good("c").replace("chat/completions", "audio/speech"),
        good("d").replace("chat/completions", "embeddings"),
        line("e").body(r#"{"messages":[]}"#).to_string(),
        line("f").body(r#"{"model":"m"}"#).to_string(),
        line("g").body(r#"{"model":"m","messages":[],"stream":true}"#).to_string(),
        line("h").body("[1]").to_string(),
    ];
    vec![
        ("each kind of bad line", lines.join("\r\n").into_bytes()),
        ("no good line", b"{}\n[]\n".to_vec()),
        ("two urls", file([line("a"), line("b").url("/v1/responses")]).into_bytes()),
        ("more errors than are listed", file((0..1100).map(|_| "{}")).into_bytes()),
        ("blank", b"\n \n".to_vec()),
        ("empty", Vec::new()),
        ("not JSON", b"custom_id,model\n".to_vec()),
        ("not UTF-8", [good("a").as_bytes(), b"\n\"\xe9\"\n"].concat()),
    ]
}

/// What the server says of a file: the code, the message and the line of each error.
async fn errors_of_server(server: &TestApp, bytes: &[u8]) -> Vec<Value> {
    let upload = server.try_upload(bytes).await;
    if upload.status != 200 {
        return vec![json!(["invalid_file", upload.json()["error"]["message"], null])];
    }
    let id = server.create_batch(upload.json()["id"].as_str().expect("an id")).await;
    let batch = server.wait_for(&id, "failed").await;
    triples(&batch["errors"]["data"])
}

fn triples(errors: &Value) -> Vec<Value> {
    let errors = errors.as_array().expect("a list").iter();
    errors.map(|error| json!([error["code"], error["message"], error["line"]])).collect()
}

#[tokio::test]
async fn check_and_run_find_what_the_server_finds() {
    let server = TestApp::start().await;
    for (what, bytes) in bad_files() {
        let expected = errors_of_server(&server, &bytes).await;
        let stage = Stage::new(&bytes);

        let checked = run(stage.command(&["check", "--json", INPUT])).await;
        assert_eq!(checked.status.code(), Some(4), "{what}: {}", said(&checked));
        let found: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
        assert_eq!(triples(&found["errors"]), expected, "{what}");
        // The rows of a run may be for several endpoints.
        let is_of_run = |error: &&Value| error[0] != "invalid_url";
        if !expected.iter().any(|error| is_of_run(&error)) {
            continue;
        }
        let ran = run(stage.run_command(&[INPUT, "-o", OUTPUT])).await;
        assert_eq!(ran.status.code(), Some(4), "{what}: {}", said(&ran));
        let text = String::from_utf8(ran.stderr).expect("UTF-8");
        let mut lines: Vec<_> = expected
            .iter()
            .filter(is_of_run)
            .map(|error| {
                let place = error[2].as_u64().map_or_else(String::new, |line| format!(":{line}"));
                let [code, message] = [0, 1].map(|member| error[member].as_str().expect("a text"));
                format!("{INPUT}{place}: {code}: {message}")
            })
            .collect();
        let fault = &found["first_fault"];
        if fault.is_object() {
            let message = fault["message"].as_str().expect("a text");
            lines.push(format!("{INPUT}:{}:{}: {message}", fault["line"], fault["column"]));
        }
        assert_eq!(text.lines().collect::<Vec<_>>(), lines, "{what}");
        assert_eq!(stage.names(), [INPUT], "{what}");
        assert!(stage.upstream.calls().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn check_and_run_say_where_a_file_stops_being_json_and_why() {
    let good = line("a").to_string();
    let cases = [
        (format!("{good},\n{good},\n"), format!(":1:{}: a comma behind the object", good.len() + 1)),
        (format!("{good}\n\n{}\n", good.replacen('"', "\u{201c}", 1)), ":3:2: a typographic quote".to_owned()),
        (format!("[\n{good}\n]\n"), ":1:1: the file is one JSON array".to_owned()),
    ];
    for (input, expected) in cases {
        let stage = Stage::new(&input);
        for command in [stage.command(&["check", INPUT]), stage.run_command(&[INPUT, "-o", OUTPUT])] {
            let output = run(command).await;

            let said = format!("{}{}", said(&output), String::from_utf8_lossy(&output.stdout));
            assert!(said.contains(&format!("{INPUT}{expected}")), "{said}");
        }
    }
}

#[tokio::test]
async fn check_has_the_limits_of_a_server_and_those_that_it_is_given() {
    let stage = Stage::new(file([line("a"), line("b").model("n")]));
    let cases: [(&[&str], i32, &str); 5] = [
        (&[], 0, "OK: 2 rows, "),
        (&["--single-model"], 4, "in.jsonl:2: mismatched_model: "),
        (&["--max-batch-rows", "1"], 4, "more than the 1 one batch may have"),
        (&["--max-batch-bytes", "100B", "--max-file-bytes", "1MiB"], 4, "larger than the 100 maximum"),
        (&["--max-batch-bytes", "10B", "--max-file-bytes", "100B"], 4, "invalid_file: File is too large."),
    ];
    for (flags, status, expected) in cases {
        let output = run(stage.command(&[&["check", INPUT], flags].concat())).await;

        assert_eq!(output.status.code(), Some(status), "{flags:?}: {}", said(&output));
        assert!(said(&output).contains(expected), "{flags:?}: {}", said(&output));
    }
    let many = run_with_input(stage.command(&["check", "-"]), rows(50_001).into_bytes()).await;
    assert_eq!(many.status.code(), Some(4));
    assert!(said(&many).contains("more than the 50000 one batch may have"), "{}", said(&many));
}

#[tokio::test]
async fn check_says_of_several_files_what_is_in_each() {
    let stage = Stage::new(file([line("a"), line("b").model("n"), line("c")]));
    stage.write("bad.jsonl", "{}\n");

    let text = run(stage.command(&["check", INPUT, "bad.jsonl"])).await;
    let json = run(stage.command(&["check", "--json", INPUT, INPUT])).await;
    let missing = run(stage.command(&["check", "nowhere.jsonl"])).await;

    assert_eq!(text.status.code(), Some(4));
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    assert!(text.starts_with("in.jsonl: OK: 3 rows, ") && text.contains("models: m (2), n (1)"), "{text}");
    assert!(text.contains("\nbad.jsonl:1: missing_required_parameter: "), "{text}");
    assert_eq!(json.status.code(), Some(0));
    let json = String::from_utf8(json.stdout).expect("UTF-8");
    let [first, second]: [Value; 2] = serde_json::from_str(&format!("[{}]", json.trim().replace('\n', ","))).unwrap();
    assert_eq!((&first["rows"], &first["valid"], &first), (&json!(3), &json!(true), &second));
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("nowhere.jsonl cannot be read"), "{}", said(&missing));
}
