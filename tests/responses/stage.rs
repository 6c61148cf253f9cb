//! A server with an upstream that follows scripts, and a tool server that remembers its calls.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::client::{Client, Results};
use crate::common::fake_upstream::{Call, FakeUpstream, Reply};
use crate::common::process::{Process, batchwright};

/// Everything but the server.
pub struct Stage {
    pub simulator: Process,
    /// Answers `/add` and `/mul` with what comes of `a` and `b`, and `/echo` with the arguments, until told otherwise.
    pub tools: FakeUpstream,
    directory: TempDir,
    flags: Vec<String>,
}

impl Stage {
    /// An upstream that has `/v1/responses`, and tools `add`, `mul` and `echo`.
    pub async fn new() -> Self {
        Self::with(&["--latency", "0ms"], "", &[]).await
    }

    /// As [`Stage::new`], with further flags for the server.
    pub async fn with_flags(flags: &[&str]) -> Self {
        Self::with(&["--latency", "0ms"], "", flags).await
    }

    /// With these flags for the simulator and the server, and `settings` below those of the three tools.
    pub async fn with(simulator_flags: &[&str], settings: &str, flags: &[&str]) -> Self {
        let simulator = Process::simulate(simulator_flags).await;
        let tools = FakeUpstream::start();
        tools.reply(answer);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let tool = |name: &str, parameters: &str| {
            let url = format!("http://{}/{name}", tools.address);
            format!(
                "[[tools]]\nname = '{name}'\ndescription = 'The tool {name}.'\nurl = '{url}'\n\
                 parameters = {parameters}\nretries = 0\n"
            )
        };
        let numbers = "{ type = 'object', properties = { a = { type = 'number' }, b = { type = 'number' } }, \
                       required = ['a', 'b'] }";
        let text = [tool("add", numbers), tool("mul", numbers), tool("echo", "{ type = 'object' }")].concat();
        let settings = settings.replace("TOOLS", &format!("http://{}", tools.address));
        std::fs::write(directory.path().join("settings.toml"), text + &settings).expect("a file");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let mut all = vec!["--config".to_owned(), path("settings.toml"), "--data-dir".to_owned(), path("data")];
        all.extend(["--upstream".to_owned(), format!("{}/v1", simulator.base_url)]);
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        Self { simulator, tools, directory, flags: all }
    }

    /// With another upstream than the simulator.
    pub async fn at(upstream: &FakeUpstream, flags: &[&str]) -> Self {
        let mut stage = Self::with_flags(flags).await;
        let url = stage.flags.iter().position(|flag| flag == "--upstream").expect("there is an upstream") + 1;
        stage.flags[url] = format!("http://{}/v1", upstream.address);
        stage
    }

    /// With the upstreams of the settings file: the simulator for `models`, and another server for those of `others`.
    pub async fn beside(other: &Process, others: &str, models: &str, settings: &str) -> Self {
        let mut stage = Self::with(&["--latency", "0ms"], settings, &[]).await;
        stage.leave_upstream_out();
        let table = |name: &str, server: &Process, models: &str| {
            format!("[[upstreams]]\nname = '{name}'\nurl = '{}/v1'\nmodels = '{models}'\n", server.base_url)
        };
        let path = stage.directory.path().join("settings.toml");
        let text = std::fs::read_to_string(&path).expect("a file");
        let tables = [table("simulator", &stage.simulator, models), table("other", other, others)].concat();
        std::fs::write(path, text + &tables).expect("a file");
        stage
    }

    /// Gives no `--upstream`, because the settings file has upstreams.
    pub fn leave_upstream_out(&mut self) {
        let url = self.flags.iter().position(|flag| flag == "--upstream").expect("there is an upstream");
        self.flags.drain(url..url + 2);
    }

    pub fn command(&self) -> Command {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        batchwright(&[&["serve", "--listen", "127.0.0.1:0"], &*flags].concat())
    }

    pub async fn serve(&self) -> Process {
        Process::start(self.command()).await
    }

    /// The directory of the settings file, and of the data below `data`.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// The blob that has this text in it: where it is, and all of it.
    pub fn blob_with(&self, part: &str) -> (std::path::PathBuf, String) {
        let below = |path: std::path::PathBuf| {
            std::fs::read_dir(path).expect("a directory").map(|at| at.expect("it is there").path())
        };
        let blobs = below(self.directory().join("data/blobs")).flat_map(below);
        let mut texts = blobs.filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?)));
        texts.find(|(_, text)| text.contains(part)).expect("a blob has it")
    }

    /// All that is in the database, as text: in its file, and in the log of what is yet to be written there.
    pub fn database(&self) -> String {
        let files = std::fs::read_dir(self.directory().join("data")).expect("a directory");
        let paths = files.map(|file| file.expect("a file").path());
        let is_of_database = |path: &std::path::PathBuf| path.display().to_string().contains("batchwright.db");
        let read = |path| std::fs::read(path).expect("a file that can be read");
        paths.filter(is_of_database).map(|path| String::from_utf8_lossy(&read(path)).into_owned()).collect()
    }

    /// Runs one row and returns its response, which has to be a success.
    pub async fn response(&self, body: Value) -> Value {
        let results = self.results(&[("row", body)]).await;
        assert!(results.errors.is_empty(), "{:?}", results.errors);
        results.output[0]["response"]["body"].clone()
    }

    /// Runs one row and returns its error line.
    pub async fn error(&self, body: Value) -> Value {
        let results = self.results(&[("row", body)]).await;
        assert!(results.output.is_empty(), "{:?}", results.output);
        results.errors[0].clone()
    }

    /// Runs rows on a server of their own.
    pub async fn results(&self, rows: &[(&str, Value)]) -> Results {
        let server = self.serve().await;
        let client = server.client();
        let id = submit(&client, rows, json!({})).await;
        let batch = client.wait_for(&id, "completed").await;
        client.results(&batch).await
    }

    /// The calls of a tool so far, in the order in which they came.
    pub fn calls(&self, tool: &str) -> Vec<Call> {
        self.tools.row_calls().into_iter().filter(|call| call.path == format!("/{tool}")).collect()
    }

    /// The counters of the upstream.
    pub async fn upstream(&self) -> Value {
        self.simulator.client().get("/stats").await.ok()
    }
}

/// Uploads rows for `/v1/responses` and creates their batch.
pub async fn submit(client: &Client, rows: &[(&str, Value)], metadata: Value) -> String {
    submit_to(client, "/v1/responses", rows, metadata).await
}

/// Uploads rows for an endpoint and creates their batch.
pub async fn submit_to(client: &Client, endpoint: &str, rows: &[(&str, Value)], metadata: Value) -> String {
    let lines = rows.iter().map(|(custom_id, body)| {
        format!("{}\n", json!({ "custom_id": custom_id, "method": "POST", "url": endpoint, "body": body }))
    });
    let file = client.upload(lines.collect::<String>()).await;
    let batch = json!({
        "input_file_id": file, "endpoint": endpoint, "completion_window": "24h", "metadata": metadata,
    });
    client.post("/v1/batches", &batch).await.ok()["id"].as_str().expect("a batch has an id").to_owned()
}

/// A body whose model follows a script and may call these functions.
pub fn scripted(script: Value, functions: &[&str]) -> Value {
    let tools: Vec<Value> = functions.iter().map(|name| json!({ "type": "function", "name": name })).collect();
    json!({ "model": "m", "input": format!("simulate:{script}"), "tools": tools })
}

/// A call in a script.
pub fn call(name: &str, arguments: Value) -> Value {
    json!({ "name": name, "arguments": arguments })
}

/// The types of the items of a response's output.
pub fn types(response: &Value) -> Vec<&str> {
    items(response).iter().map(|item| item["type"].as_str().expect("items have types")).collect()
}

pub fn items(response: &Value) -> &Vec<Value> {
    response["output"].as_array().expect("a response has an output")
}

/// What the last item of a response says.
pub fn last_text(response: &Value) -> &str {
    let last = items(response).last().expect("there are items");
    last["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {last}"))
}

fn answer(call: &Call) -> Reply {
    let arguments: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let [a, b] = ["a", "b"].map(|name| arguments[name].as_f64().unwrap_or_default());
    match call.path.as_str() {
        "/add" => Reply::new(200, (a + b).to_string()),
        "/mul" => Reply::new(200, (a * b).to_string()),
        "/echo" => Reply::new(200, call.text().to_owned()),
        _ => Reply::error(404),
    }
}
