//! The cases of `cases.jsonl`: what a server sends, and what the client must see of it.
//!
//! | member | meaning |
//! |---|---|
//! | `kind`, `name` | the group of a case, and what it is about |
//! | `to` | the targets it is for, see [`Target`] |
//! | `sends` | the answers to the first call and to further ones; the last answers all that follow |
//! | `sees` | the line of the row: in which file, and what is in it |
//!
//! An answer is `"good"`, or an object. Its body is `body`, `latin1` (a byte for each character) or `base64`. `status`,
//! `head` (a list of header lines) and `framing` (`length`, `chunked`, `none`, or `short`, which announces more than
//! comes) are optional. Or it is `raw`, the bytes of all of it (a byte for each character), and `then`: `close` or
//! `reset`.

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

/// What kind of row a case is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Chat,
    /// Chat rows whose answers must match a schema.
    Checked,
    Completions,
    Embeddings,
    Images,
    Moderations,
    Audio,
    Messages,
    Score,
    Rerank,
    Pooling,
    Classify,
    /// Rows for an endpoint that only the settings name.
    Extra,
    /// Rows for the Responses API, which the server has.
    Native,
    /// Rows for the Responses API, which the server does not have.
    Translated,
}

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    sends: Vec<Sent>,
    pub sees: Sees,
}

/// The line that the client must find.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sees {
    /// `output` or `errors`.
    #[serde(rename = "in")]
    pub file: String,
    /// `response.status_code`.
    pub status: Option<u16>,
    /// `error.code`; null if the line has no error.
    pub code: Option<String>,
    /// `response.body`, all of it.
    pub body: Option<Value>,
    /// What the text of the line contains.
    pub has: Option<String>,
    /// What it does not contain.
    pub lacks: Option<String>,
    /// How often the server was called.
    pub calls: Option<usize>,
    /// Tokens of the prompt, of them from a cache, of the answer and in all, as the batch counts them.
    pub usage: Option<[u64; 4]>,
}

/// The bytes of an answer.
#[derive(Debug, Clone)]
pub struct Sent {
    pub bytes: Vec<u8>,
    pub ending: Ending,
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    GoesOn,
    Closes,
    Resets,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    kind: String,
    name: String,
    to: Vec<Target>,
    sends: Vec<WrittenAnswer>,
    sees: Sees,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenAnswer {
    Good(String),
    Other(Box<OtherAnswer>),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OtherAnswer {
    status: Option<u16>,
    head: Vec<String>,
    body: Option<String>,
    latin1: Option<String>,
    base64: Option<String>,
    framing: Option<String>,
    raw: Option<String>,
    then: Option<String>,
}

impl Case {
    /// The cases for a target.
    pub fn all(target: Target) -> Vec<Self> {
        let lines = include_str!("cases.jsonl").lines().filter(|line| !line.is_empty());
        let cases = lines.map(|line| -> WrittenCase {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        let of_target = cases.filter(|case| case.to.contains(&target));
        let case = |case: WrittenCase| Self {
            name: format!("{}: {}", case.kind, case.name),
            sends: case.sends.into_iter().map(|answer| Sent::written(answer, target)).collect(),
            sees: case.sees,
        };
        of_target.map(case).collect()
    }

    /// A case of which nothing is known: each call is answered with this body.
    pub fn with_body(name: &str, body: Vec<u8>) -> Self {
        Self { name: name.to_owned(), sends: vec![Sent::of(body)], sees: Sees::default() }
    }

    /// The answer after so many calls before.
    pub fn sent(&self, calls: usize) -> &Sent {
        &self.sends[calls.min(self.sends.len() - 1)]
    }
}

impl Target {
    /// The answer of a server in order.
    pub fn good(self) -> &'static str {
        match self {
            Self::Chat => concat!(
                r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","#,
                r#""message":{"role":"assistant","content":"fine"}}],"#,
                r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#
            ),
            Self::Checked | Self::Translated => concat!(
                r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","#,
                r#""message":{"role":"assistant","content":"{\"a\":1}"}}],"#,
                r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#
            ),
            Self::Completions => concat!(
                r#"{"object":"text_completion","choices":[{"index":0,"text":"fine","finish_reason":"stop"}],"#,
                r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#
            ),
            Self::Embeddings => concat!(
                r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"#,
                r#""usage":{"prompt_tokens":3,"total_tokens":3}}"#
            ),
            Self::Images => r#"{"created":1,"data":[{"url":"https://example.com/fine.png"}]}"#,
            Self::Moderations => r#"{"id":"modr-1","model":"m","results":[{"flagged":false}]}"#,
            Self::Audio => r#"{"text":"fine","usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}}"#,
            Self::Messages => concat!(
                r#"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"fine"}],"#,
                r#""stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":2}}"#
            ),
            Self::Score => concat!(
                r#"{"object":"list","data":[{"index":0,"object":"score","score":0.5}],"#,
                r#""usage":{"prompt_tokens":3,"total_tokens":3}}"#
            ),
            Self::Rerank => r#"{"results":[{"index":0,"relevance_score":0.5}],"usage":{"total_tokens":3}}"#,
            Self::Pooling => concat!(
                r#"{"object":"list","data":[{"index":0,"object":"pooling","data":[[0.5]]}],"#,
                r#""usage":{"prompt_tokens":3,"total_tokens":3}}"#
            ),
            Self::Classify => concat!(
                r#"{"object":"list","data":[{"index":0,"label":"a","probs":[1.0],"num_classes":1}],"#,
                r#""usage":{"prompt_tokens":3,"total_tokens":3}}"#
            ),
            Self::Extra => r#"{"anything":true}"#,
            Self::Native => concat!(
                r#"{"id":"resp_1","object":"response","status":"completed","output":[{"type":"message","id":"msg_1","#,
                r#""role":"assistant","status":"completed","#,
                r#""content":[{"type":"output_text","text":"fine","annotations":[]}]}],"#,
                r#""usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}}"#
            ),
        }
    }
}

impl Sent {
    /// An answer with status 200 and this body.
    pub fn ok(body: &str) -> Self {
        OtherAnswer { body: Some(body.to_owned()), ..OtherAnswer::default() }.sent()
    }

    /// The same with any bytes.
    fn of(body: Vec<u8>) -> Self {
        OtherAnswer { latin1: Some(body.into_iter().map(char::from).collect()), ..OtherAnswer::default() }.sent()
    }

    fn written(answer: WrittenAnswer, target: Target) -> Self {
        match answer {
            WrittenAnswer::Good(word) => {
                assert_eq!(word, "good");
                Self::ok(target.good())
            }
            WrittenAnswer::Other(other) => other.sent(),
        }
    }
}

impl OtherAnswer {
    fn sent(self) -> Sent {
        let of_characters = |text: String| -> Vec<u8> {
            text.chars().map(|c| u8::try_from(c).expect("a byte for each character")).collect()
        };
        let ending = match self.then.as_deref() {
            None => Ending::GoesOn,
            Some("close") => Ending::Closes,
            Some("reset") => Ending::Resets,
            Some(other) => panic!("unknown end {other}"),
        };
        if let Some(raw) = self.raw {
            return Sent { bytes: of_characters(raw), ending };
        }
        let base64 = |text: String| base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
        let body = self.body.map(String::into_bytes).or(self.latin1.map(of_characters)).or(self.base64.map(base64));
        let body = body.unwrap_or_default();
        let mut head = format!("HTTP/1.1 {} Status\r\n", self.status.unwrap_or(200));
        if !self.head.iter().any(|line| line.to_ascii_lowercase().starts_with("content-type:")) {
            head += "Content-Type: application/json\r\n";
        }
        for line in &self.head {
            head += line;
            head += "\r\n";
        }
        let (length, ending, body) = match self.framing.as_deref() {
            None | Some("length") => (format!("Content-Length: {}\r\n", body.len()), ending, body),
            Some("short") => (format!("Content-Length: {}\r\n", body.len() + 10), Ending::Closes, body),
            Some("none") => ("Connection: close\r\n".to_owned(), Ending::Closes, body),
            Some("chunked") => {
                let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
                let chunks: Vec<u8> = body.chunks(7).flat_map(chunk).collect();
                ("Transfer-Encoding: chunked\r\n".to_owned(), ending, [&chunks[..], b"0\r\n\r\n"].concat())
            }
            Some(other) => panic!("unknown framing {other}"),
        };
        Sent { bytes: [head.as_bytes(), length.as_bytes(), b"\r\n", &body].concat(), ending }
    }
}
