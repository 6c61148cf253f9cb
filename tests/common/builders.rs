//! Batch input files, a line at a time.

use std::fmt::{self, Write as _};

/// One line of a batch input file: a chat request that asks nothing in particular, until told otherwise.
pub struct Line {
    custom_id: String,
    url: String,
    body: String,
}

/// A chat request with this `custom_id`, which is put between quotes as it is.
pub fn line(custom_id: &str) -> Line {
    Line { custom_id: custom_id.to_owned(), url: "/v1/chat/completions".to_owned(), body: String::new() }.model("m")
}

impl Line {
    /// Asks this model.
    pub fn model(self, model: &str) -> Self {
        let content = format!("Hello from {}", self.custom_id);
        let body =
            serde_json::json!({ "model": model, "messages": [{ "role": "user", "content": content }] }).to_string();
        Self { body, ..self }
    }

    /// Sends this body, byte for byte.
    pub fn body(self, json: &str) -> Self {
        Self { body: json.to_owned(), ..self }
    }

    /// Is for this endpoint.
    pub fn url(self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { custom_id, url, body } = self;
        write!(f, r#"{{"custom_id":"{custom_id}","method":"POST","url":"{url}","body":{body}}}"#)
    }
}

/// A file of these lines.
pub fn file<T: fmt::Display>(lines: impl IntoIterator<Item = T>) -> String {
    let mut file = String::new();
    for line in lines {
        writeln!(file, "{line}").expect("a String takes all");
    }
    file
}

/// A file of `count` requests, `row-0` and so on.
pub fn rows(count: usize) -> String {
    file((0..count).map(|number| line(&format!("row-{number}"))))
}
