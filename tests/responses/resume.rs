//! A server that dies in the middle of a row: what was paid for is not paid for again.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::eventually::until;
use crate::common::fake_upstream::Reply;
use crate::common::process::Process;
use crate::databases::postgres_url;
use crate::stage::{Stage, call, items, last_text, scripted, submit, types};

/// Where a step stands when the server dies, and whether the call is then repeated.
const POINTS: [(&str, bool); 3] = [("step.begun", false), ("step.answered", true), ("step.kept", false)];

/// Model, tool, model, tool, model.
fn five_steps() -> Value {
    let turns = json!([[call("add", json!({ "a": 1, "b": 2 }))], [call("mul", json!({ "a": 3, "b": 4 }))]]);
    scripted(json!({ "turns": turns }), &["add", "mul"])
}

fn failing(mut command: Command, points: &str) -> Command {
    command.env("FAILPOINTS", points);
    command
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a count")
}

#[tokio::test]
async fn a_crash_at_any_boundary_of_any_step_repeats_that_step_alone_and_with_its_key() {
    let at_every_boundary = (0..5).flat_map(|step| POINTS.map(|(point, is_repeated)| (step, point, is_repeated)));
    for (step, point, is_repeated) in at_every_boundary {
        let stage = Stage::new().await;
        let crash = format!("{point}={step}*off->1*return(crash)");
        let mut server = Process::start(failing(stage.command(), &crash)).await;
        let client = server.client();
        let id = submit(&client, &[("row", five_steps())], json!({})).await;
        until("the server to die", || !server.is_running()).await;

        let server = stage.serve().await;
        let client = server.client();
        let batch = client.wait_for(&id, "completed").await;

        let results = client.results(&batch).await;
        let response = &results.output[0]["response"]["body"];
        let tool = ["function_call", "function_call_output"];
        assert_eq!(types(response), [&tool[..], &tool, &["message"]].concat());
        assert_eq!(last_text(response), "3 | 12");
        let upstream = stage.upstream().await;
        let keys: Vec<String> = stage.tools.calls().iter().map(|call| call.key().to_owned()).collect();
        let distinct: std::collections::BTreeSet<&String> = keys.iter().collect();
        let (models, repeats) = (number(&upstream["requests"]), number(&upstream["repeats"]));
        assert_eq!((models - repeats, distinct.len()), (3, 2), "{point} of step {step}: {upstream} {keys:?}");
        let repeated = repeats + (keys.len() - distinct.len()) as u64;
        assert_eq!(repeated, u64::from(is_repeated), "{point} of step {step}: {upstream} {keys:?}");
    }
}

#[tokio::test]
async fn what_was_kept_before_a_crash_stands_in_the_response_as_it_was() {
    for dialect in ["native", "chat"] {
        let stage = Stage::with_flags(&["--upstream-responses", dialect]).await;
        // Model, tool, model and tool have ended, and the last call of the model has not begun.
        let mut server = Process::start(failing(stage.command(), "step.kept=3*off->1*return(crash)")).await;
        let id = submit(&server.client(), &[("row", five_steps())], json!({})).await;
        until("the server to die", || !server.is_running()).await;
        let mut command = stage.command();
        command.args(["--role", "api"]);
        let mut looking = Process::start(command).await;
        let path = format!("/v1/batches/{id}/requests/row/steps");
        let kept = looking.client().get(&path).await.ok()["data"].clone();
        looking.terminate().await;

        let server = stage.serve().await;
        let client = server.client();
        let batch = client.wait_for(&id, "completed").await;

        let response = client.results(&batch).await.output[0]["response"]["body"].clone();
        let [first, add, second, mul] = &kept.as_array().expect("a list")[..] else { panic!("{kept}") };
        let [called, added, called_then, multiplied, _] = &items(&response)[..] else { panic!("{response}") };
        assert_eq!(
            [&json!([called]), &json!([called_then])],
            [&first["result"]["output"], &second["result"]["output"]]
        );
        for (item, step) in [(added, add), (multiplied, mul)] {
            assert_eq!([&item["call_id"], &item["output"]], [&step["call_id"], &step["result"]["output"]]);
        }
        assert_eq!(response["created_at"], first["result"]["created_at"]);
        assert_eq!(response["id"], format!("resp_{}00000000", id.replace("batch_", "").replace('-', "")));
        let after = client.get(&path).await.ok()["data"].clone();
        assert_eq!(after.as_array().expect("a list")[..4], kept.as_array().expect("a list")[..]);
        assert_eq!(
            client.get(&format!("/v1/responses/{}", response["id"].as_str().expect("an id"))).await.ok(),
            response
        );
    }
}

#[tokio::test]
async fn of_tools_side_by_side_only_those_that_had_not_ended_are_called_again() {
    let stage = Stage::new().await;
    let turn = [call("add", json!({ "a": 1, "b": 2 })), call("mul", json!({ "a": 3, "b": 4 }))];
    stage.tools.reply(|call| {
        let reply = Reply::new(200, "12");
        if call.path == "/mul" { reply.held() } else { reply }
    });
    // The model's step, then that of the tool that answers.
    let mut server = Process::start(failing(stage.command(), "step.kept=1*off->1*return(crash)")).await;
    let body = scripted(json!({ "turns": [turn] }), &["add", "mul"]);
    let id = submit(&server.client(), &[("row", body)], json!({})).await;
    until("the server to die", || !server.is_running()).await;
    stage.tools.release();

    let server = stage.serve().await;
    let client = server.client();
    client.wait_for(&id, "completed").await;

    let keys = |tool: &str| -> Vec<String> { stage.calls(tool).iter().map(|call| call.key().to_owned()).collect() };
    assert_eq!(keys("add").len(), 1);
    let mut keys = keys("mul");
    // Twice, unless the server was dead before the first call was on its way.
    assert!((1..=2).contains(&keys.len()), "{keys:?}");
    keys.dedup();
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[tokio::test]
async fn another_replica_goes_on_where_one_died() {
    let stage = Stage::new().await;
    let blobs = format!("file://{}", stage.directory().join("blobs").display());
    let database = postgres_url().await;
    let replica = |failpoints: &str| {
        let mut command = failing(stage.command(), failpoints);
        command.args(["--database-url", &database, "--blob-url", &blobs, "--lease", "2s"]);
        Process::start(command)
    };
    // The third step is begun: model and tool have ended.
    let mut first = replica("step.begun=2*off->1*return(crash)").await;
    let id = submit(&first.client(), &[("row", five_steps())], json!({})).await;
    until("the first replica to die", || !first.is_running()).await;

    let second = replica("").await;
    let client = second.client();
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(last_text(&client.results(&batch).await.output[0]["response"]["body"]), "3 | 12");
    let upstream = stage.upstream().await;
    assert_eq!((number(&upstream["requests"]), number(&upstream["repeats"])), (3, 0), "{upstream}");
    assert_eq!(stage.tools.calls().len(), 2);
}

#[tokio::test]
async fn each_step_has_attempts_of_its_own() {
    // Three calls of the model fail twice each: more than the two retries a call has, were they counted together.
    let stage = Stage::with_flags(&["--max-retries", "2"]).await;
    let mut body = five_steps();
    body["model"] = json!("m");
    let server = stage.serve().await;
    let client = server.client();
    let fails = json!({
        "turns": [[call("add", json!({ "a": 1, "b": 2 }))], [call("mul", json!({ "a": 3, "b": 4 }))]],
        "fail_once": { "0": 500, "1": 503, "2": 500 },
    });

    let id = submit(&client, &[("row", scripted(fails, &["add", "mul"]))], json!({})).await;
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(last_text(&client.results(&batch).await.output[0]["response"]["body"]), "3 | 12");
    let upstream = stage.upstream().await;
    assert_eq!((number(&upstream["requests"]), number(&upstream["repeats"])), (6, 3), "{upstream}");
    assert_eq!(stage.tools.calls().len(), 2, "tools that had answered are not called again");
    let page = client.get(&format!("/dashboard/batches/{id}/rows?custom_id=row")).await.text();
    assert!(page.contains("<dd class=\"text\">3 attempts, "), "{page}");
}

#[tokio::test]
async fn a_model_that_fails_for_good_fails_the_row_after_its_retries_and_not_the_steps_before() {
    let stage = Stage::with_flags(&["--max-retries", "1"]).await;
    let fails = json!({ "turns": [[call("add", json!({ "a": 1, "b": 2 }))]], "fail": { "1": 500 } });

    let line = stage.error(scripted(fails, &["add"])).await;

    assert_eq!(line["response"]["status_code"], 500);
    let upstream = stage.upstream().await;
    assert_eq!((number(&upstream["requests"]), number(&upstream["repeats"])), (3, 1), "{upstream}");
    assert_eq!(stage.calls("add").len(), 1);
}

#[tokio::test]
async fn a_row_goes_on_from_its_steps_when_the_settings_have_changed_meanwhile() {
    /// The writes of steps before the crash; whether the tools are still there after it, and with which flags; the
    /// items of the response, and the limit that it names.
    type Case = (u32, bool, &'static [&'static str], &'static [&'static str], Value);
    const ALL: [&str; 5] =
        ["function_call", "function_call_output", "function_call", "function_call_output", "message"];
    let cases: [Case; 5] = [
        (3, false, &[], &ALL, Value::Null),
        (3, true, &["--upstream-responses", "chat"], &ALL, Value::Null),
        (3, true, &["--max-iterations", "2"], &ALL[..4], json!("max_iterations")),
        (3, true, &["--max-tool-calls", "1"], &ALL, Value::Null),
        // The client's to answer, as nobody does here any more.
        (0, false, &[], &ALL[..1], Value::Null),
    ];
    for (kept, has_tools, flags, expected, limit) in cases {
        let stage = Stage::new().await;
        let crash = format!("step.kept={kept}*off->1*return(crash)");
        let mut server = Process::start(failing(stage.command(), &crash)).await;
        let id = submit(&server.client(), &[("row", five_steps())], json!({})).await;
        until("the server to die", || !server.is_running()).await;
        if !has_tools {
            std::fs::write(stage.directory().join("settings.toml"), "").expect("it can be written");
        }
        let mut command = stage.command();
        command.args(flags);

        let server = Process::start(command).await;
        let client = server.client();
        let batch = client.wait_for(&id, "completed").await;

        let response = client.results(&batch).await.output[0]["response"]["body"].clone();
        assert_eq!(types(&response), expected, "{kept} {flags:?}: {response}");
        assert_eq!(response["incomplete_details"]["limit"], limit, "{kept} {flags:?}: {response}");
        let upstream = stage.upstream().await;
        assert_eq!(number(&upstream["repeats"]), 0, "{kept} {flags:?}: {upstream}");
    }
}
