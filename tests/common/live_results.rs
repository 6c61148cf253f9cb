//! Reading the results of a batch while it runs, as pages and as events.

use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use serde_json::Value;

use super::client::{Answer, Client, send};

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
    /// Empty if it has none.
    pub id: String,
}

impl Event {
    /// Reads an event; a comment is one without a name.
    fn read(text: &str) -> Self {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.unwrap_or_default().to_owned()
        };
        Self { name: field("event"), data: field("data"), id: field("id") }
    }
}

/// A stream of events that is being read.
pub struct EventStream {
    response: Response,
    text: Vec<u8>,
}

impl EventStream {
    /// Asks for events from behind `last` on. Of an answer that is no stream there is no event.
    pub async fn open(client: &Client, path: &str, last: &str) -> Self {
        let request = client.request(Method::GET, path).header(ACCEPT, "text/event-stream");
        let request = if last.is_empty() { request } else { request.header("last-event-id", last) };
        Self { response: request.send().await.expect("the server answers"), text: Vec::new() }
    }

    /// The next event, without comments. None if the stream has ended or was cut.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.arrived() {
                Some(event) if !event.name.is_empty() => return Some(event),
                Some(_comment) => {}
                None => self.text.extend_from_slice(&self.response.chunk().await.ok()??),
            }
        }
    }

    /// The next event or comment that has arrived whole.
    fn arrived(&mut self) -> Option<Event> {
        let end = self.text.windows(2).position(|pair| pair == b"\n\n")?;
        let text: Vec<u8> = self.text.drain(..end + 2).collect();
        Some(Event::read(&String::from_utf8(text).expect("events are UTF-8")))
    }

    /// All events to the end of the stream.
    pub async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// Asks for a page of results. `query` follows the `?`.
pub async fn results(client: &Client, batch: &str, query: &str) -> Answer {
    send(client.request(Method::GET, &format!("/v1/batches/{batch}/results?{query}"))).await
}

/// The cursor behind a page.
pub fn next_cursor(page: &Answer) -> &str {
    assert_eq!(page.status, 200, "{}", page.text());
    page.header("batchwright-next-cursor")
}

pub fn has_ended(page: &Answer) -> bool {
    page.header("batchwright-has-ended").parse().expect("it is true or false")
}

/// Reads pages to the end of a batch, and returns all lines. `query` follows the cursor.
pub async fn all_pages(client: &Client, batch: &str, query: &str) -> String {
    let (mut cursor, mut lines) = (String::new(), String::new());
    loop {
        let page = results(client, batch, &format!("after={cursor}&wait=10&{query}")).await;
        next_cursor(&page).clone_into(&mut cursor);
        lines.push_str(&page.text());
        if has_ended(&page) {
            return lines;
        }
    }
}

/// The bytes of the output and of the error file of a batch that has ended.
pub async fn files(client: &Client, batch: &Value) -> [String; 2] {
    let mut files = [String::new(), String::new()];
    for (file, member) in files.iter_mut().zip(["output_file_id", "error_file_id"]) {
        if let Some(id) = batch[member].as_str() {
            *file = client.content(id).await.text();
        }
    }
    files
}

/// The lines of a text in the order of their bytes.
pub fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.split_inclusive('\n').collect();
    lines.sort_unstable();
    lines
}
