//! Answers as real servers, gateways and proxies give them, over a socket. `cases.jsonl` has a line for each.

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod property;
mod upstream;

use serde_json::{Value, json};

use cases::{Case, Sees, Sent, Target};
use common::builders::{file, line};
use common::client::Results;
use common::fake_upstream::FakeUpstream;
use common::test_app::{Stopped, TestApp};
use upstream::{CALLS_AT_ONCE, WildUpstream};

/// Rows in whose company the cases are called.
const COMPANY: usize = 50_000;

impl Target {
    fn url(self) -> &'static str {
        match self {
            Self::Chat | Self::Checked => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Images => "/v1/images/generations",
            Self::Moderations => "/v1/moderations",
            Self::Audio => "/v1/audio/transcriptions",
            Self::Messages => "/v1/messages",
            Self::Score => "/v1/score",
            Self::Rerank => "/v1/rerank",
            Self::Pooling => "/v1/pooling",
            Self::Classify => "/classify",
            Self::Extra => "/v1/anything",
            Self::Native | Self::Translated => "/v1/responses",
        }
    }

    fn body(self) -> Value {
        match self {
            Self::Chat | Self::Messages => {
                json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "Hi" }] })
            }
            Self::Audio => json!({ "model": "m", "file_url": "data:audio/wav;base64,UklGRg==" }),
            Self::Score => json!({ "model": "m", "text_1": "Hi", "text_2": ["Ho"] }),
            Self::Rerank => json!({ "model": "m", "query": "Hi", "documents": ["Ho"] }),
            Self::Checked => json!({
                "model": "m",
                "messages": [{ "role": "user", "content": "Hi" }],
                "response_format": { "type": "json_schema", "json_schema": { "name": "s", "schema": {
                    "type": "object", "properties": { "a": { "type": "integer" } }, "required": ["a"],
                } } },
            }),
            Self::Completions | Self::Images => json!({ "model": "m", "prompt": "Hi" }),
            Self::Embeddings
            | Self::Moderations
            | Self::Pooling
            | Self::Classify
            | Self::Extra
            | Self::Native
            | Self::Translated => json!({ "model": "m", "input": "Hi" }),
        }
    }

    fn flags(self) -> Vec<String> {
        let dialect = if self == Self::Translated { "chat" } else { "native" };
        let calls = format!("--max-retries 1 --concurrency fixed --max-concurrency {CALLS_AT_ONCE}");
        let flags =
            format!("{calls} --upstream-responses {dialect} --merged-embeddings 1 --extra-endpoints /v1/anything");
        flags.split(' ').map(str::to_owned).collect()
    }
}

/// A service in front of a server.
pub async fn app(upstream: &WildUpstream, target: Target) -> TestApp {
    let table = format!("[[upstreams]]\nname = 'wild'\nurl = 'http://{}/v1'\nmodels = ['*']\n", upstream.address);
    let flags = target.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Stopped::new(FakeUpstream::down()).start_with_upstreams(&table, &flags).await
}

/// What the rows of some batches came to.
#[derive(Default)]
pub struct Seen {
    /// The lines of both files.
    pub results: Results,
    /// Tokens of the prompts, of them from a cache, of the answers and in all.
    pub usage: [u64; 4],
}

/// Runs a row for each name among others that the server answers well. Few at a time, so that most calls are those of
/// others.
pub async fn run_among_others(app: &TestApp, target: Target, names: &[&str]) -> Seen {
    let company = file((0..COMPANY).map(|number| line(&format!("other-{number}"))));
    let company = app.submit(company).await;
    let body = target.body().to_string();
    let mut seen = Seen::default();
    for names in names.chunks(CALLS_AT_ONCE / 2) {
        let rows = file(names.iter().map(|name| line(name).url(target.url()).body(&body)));
        let input = app.upload(&*rows).await;
        let metadata = if target == Target::Checked { json!({ "ensure_schema": "true" }) } else { json!({}) };
        let wanted = json!({
            "input_file_id": input, "endpoint": target.url(), "completion_window": "24h", "metadata": metadata,
        });
        let created = app.post("/v1/batches", &wanted).await;
        let id = created.json()["id"].as_str().unwrap_or_else(|| panic!("{created:?}")).to_owned();
        let batch = app.wait_for(&id, "completed").await;
        let report = app.verify(&rows, &batch).await;
        assert!(report.holds(), "{report}");
        seen.add(app.results(&batch).await, &batch["usage"]);
    }
    assert_eq!(app.batch(&company).await["status"], "in_progress", "the cases were called among others");
    seen
}

impl Seen {
    fn add(&mut self, results: Results, usage: &Value) {
        self.results.output.extend(results.output);
        self.results.errors.extend(results.errors);
        let cached = &usage["input_tokens_details"]["cached_tokens"];
        let counts = [&usage["input_tokens"], cached, &usage["output_tokens"], &usage["total_tokens"]];
        for (sum, count) in self.usage.iter_mut().zip(counts) {
            *sum += count.as_u64().expect("a number");
        }
    }
}

async fn all_cases_are_seen_as_they_should_be(target: Target) {
    let cases = Case::all(target);
    assert!(!cases.is_empty());
    // The company is chat whatever the cases are.
    let upstream = WildUpstream::start(cases.clone(), Sent::ok(Target::Chat.good())).await;
    let app = app(&upstream, target).await;

    let names: Vec<&str> = cases.iter().map(|case| &*case.name).collect();
    let Seen { results, usage: counted } = run_among_others(&app, target, &names).await;

    let mut wrong: Vec<String> = Vec::new();
    let mut usage = [0; 4];
    for case in &cases {
        let find = |lines: &[Value]| lines.iter().find(|line| line["custom_id"] == *case.name).cloned();
        let found = [("output", find(&results.output)), ("errors", find(&results.errors))];
        let seen: Vec<_> = found.into_iter().filter_map(|(file, line)| Some((file, line?))).collect();
        let differences = case.sees.differences(&seen, upstream.calls(&case.name), target);
        wrong.extend(differences.into_iter().map(|difference| format!("{}: {difference}\n  {seen:?}", case.name)));
        let of_case = case.sees.counted(target);
        usage = std::array::from_fn(|count| usage[count] + of_case[count]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(counted, usage, "the usage of all rows");
}

impl Sees {
    /// What of it is not so.
    fn differences(&self, seen: &[(&str, Value)], calls: usize, target: Target) -> Vec<String> {
        let [(file, line)] = seen else { return vec![format!("{} lines", seen.len())] };
        let is_good = self.file == "output" && self.body.is_none() && self.has.is_none();
        let good = serde_json::from_str(target.good()).expect("JSON");
        let body = match target {
            // Its answer is put together.
            Target::Translated => &self.body,
            _ if is_good => &Some(good),
            _ => &self.body,
        };
        let text = line.to_string();
        let checks = [
            (*file == self.file, format!("it is in {file}")),
            (body.as_ref().is_none_or(|body| line["response"]["body"] == *body), "its body differs".to_owned()),
            (self.has.as_ref().is_none_or(|has| text.contains(has)), format!("it lacks {:?}", self.has)),
            (self.lacks.as_ref().is_none_or(|lacks| !text.contains(lacks)), format!("it has {:?}", self.lacks)),
            (self.calls.is_none_or(|expected| expected == calls), format!("{calls} calls")),
            (
                line["error"]["code"].as_str() == self.code.as_deref(),
                format!("its code is {}, not {:?}", line["error"]["code"], self.code),
            ),
            (
                self.status.is_none_or(|status| line["response"]["status_code"] == status),
                format!("its status is {}", line["response"]["status_code"]),
            ),
        ];
        checks.into_iter().filter(|(is_so, _)| !is_so).map(|(_, what)| what).collect()
    }

    /// The tokens that the batch counts for it.
    fn counted(&self, target: Target) -> [u64; 4] {
        self.usage.unwrap_or(match target {
            _ if self.file == "errors" => [0; 4],
            Target::Images | Target::Moderations | Target::Extra => [0; 4],
            Target::Embeddings | Target::Score | Target::Rerank | Target::Pooling | Target::Classify => [3, 0, 0, 3],
            _ => [3, 0, 2, 5],
        })
    }
}

macro_rules! targets {
    ($($test:ident => $target:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $test() {
            all_cases_are_seen_as_they_should_be(Target::$target).await;
        }
    )+};
}

targets! {
    chat => Chat,
    checked_answers => Checked,
    completions => Completions,
    embeddings => Embeddings,
    images => Images,
    moderations => Moderations,
    audio => Audio,
    messages => Messages,
    scores => Score,
    ranks => Rerank,
    pooled_states => Pooling,
    classes => Classify,
    extra_endpoints => Extra,
    native_responses => Native,
    translated_responses => Translated,
}
