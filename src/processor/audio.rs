//! Rows for transcriptions and translations of audio, whose calls are forms with a file.
//!
//! A row names its file as `file_url`, as those of vLLM's `run-batch` do: a data URL, or a URL at one of the hosts that
//! the operator lists.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::{Client, Response, Url};
use tokio::sync::Semaphore;

use super::{CancellationFuture, ShouldRetry};
use crate::domain::outcome::{FailureReason, HttpResponse};
use crate::domain::request::{Processing, Request, RequestCompletionResult};
use crate::domain::response::Fields;
use crate::domain::retry::may_pass;
use crate::net::{self, AllowedHosts, AnswerProgress, BoundedBody, ClientSettings, Reach};
use crate::upstream::{Call, CallFile, HttpClient};

/// The largest file that is fetched, which is also the largest that OpenAI and vLLM take.
const MAX_BYTES: usize = 25 << 20;
/// Files that are fetched, or held until they were sent, at once.
const AT_ONCE: usize = 32;
/// How long fetching a file may take.
const TIME: Duration = Duration::from_mins(5);
/// The formats of an answer that are JSON.
const JSON_FORMATS: [&str; 3] = ["json", "verbose_json", "diarized_json"];

/// The files of rows.
pub struct AudioFiles {
    hosts: AllowedHosts,
    client: Client,
    places: Semaphore,
}

impl AudioFiles {
    /// Files in the rows themselves, and at these hosts.
    ///
    /// # Errors
    /// Which host is none, or why there is no client.
    pub fn new(hosts: &[String]) -> Result<Self, String> {
        let host = |text: &String| text.parse().map_err(|error| format!("--file-url-hosts '{text}': {error}"));
        let hosts = hosts.iter().map(host).collect::<Result<AllowedHosts, String>>()?;
        let settings = ClientSettings { reach: Reach::PublicOnly, ..ClientSettings::default() };
        let client = settings.build().map_err(|error| net::innermost(&error))?;
        Ok(Self { hosts, client, places: Semaphore::new(AT_ONCE) })
    }

    /// Takes a row to its end. Nothing else is waited for with the row's permit.
    pub(super) async fn run(
        &self,
        request: Request<Processing>,
        http: impl HttpClient,
        should_retry: ShouldRetry,
        cancellation: CancellationFuture,
    ) -> RequestCompletionResult {
        let answer = tokio::select! {
            answer = self.answer(&request, &http) => answer,
            reason = cancellation => return RequestCompletionResult::Canceled(request.cancel(reason)),
        };
        match answer {
            Ok(response) => request.complete(response, &*should_retry),
            Err(reason) => RequestCompletionResult::Failed(request.fail(reason)),
        }
    }

    async fn answer(
        &self,
        request: &Request<Processing>,
        http: &impl HttpClient,
    ) -> Result<HttpResponse, FailureReason> {
        let unreadable = |error: serde_json::Error| FailureReason::InvalidRow(format!("Its body is wrong: {error}."));
        let mut body = Fields::read(&request.data.body).map_err(unreadable)?;
        let url: String = body.get("file_url").map_err(unreadable)?.ok_or_else(|| {
            FailureReason::InvalidRow("Its body has no 'file_url', which names the audio file.".to_owned())
        })?;
        let format: Option<String> = body.get("response_format").map_err(unreadable)?;
        if let Some(format) = format.filter(|format| !JSON_FORMATS.contains(&format.as_str())) {
            let message = format!("Its 'response_format' is '{format}'; only {} are JSON.", JSON_FORMATS.join(", "));
            return Err(FailureReason::Unsupported(message));
        }
        body.remove("file_url");
        let mut _place = None;
        let file = if let Some(file) = data_url(&url) {
            file?
        } else {
            http.release_permit();
            _place = Some(self.places.acquire().await.expect("the semaphore is never closed"));
            let file = self.fetched(&url).await?;
            http.acquire_permit().await?;
            file
        };
        let call = Call { body: body.to_json().into(), file: Some(file), ..Call::from(&request.data) };
        Ok(http.post(call).await?)
    }

    /// Fetches a file.
    async fn fetched(&self, text: &str) -> Result<CallFile, FailureReason> {
        let refused = |why: &str| FailureReason::InvalidRow(format!("The file at 'file_url' is not fetched: {why}."));
        let url = Url::parse(text).map_err(|error| refused(&format!("it is no URL ({error})")))?;
        self.hosts.check(&url).map_err(|refusal| match refusal {
            net::UrlRefusal::NotListed => refused("its host is not among those of --file-url-hosts"),
            other => refused(&other.to_string()),
        })?;
        let away =
            |why: &str| FailureReason::FileUnreachable(format!("The file at 'file_url' cannot be fetched: {why}."));
        let name = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default().to_owned();
        let fetch = async {
            let response = self.client.get(url).send().await?;
            let (status, media_type) = (response.status().as_u16(), media_type(&response));
            let body = net::read_body(response, MAX_BYTES, &AnswerProgress::default()).await?;
            Ok::<_, reqwest::Error>((status, media_type, body))
        };
        let ended = tokio::time::timeout(TIME, fetch).await;
        let ended = ended.map_err(|_| away(&format!("it took longer than {}", humantime::format_duration(TIME))))?;
        let (status, media_type, body) = ended.map_err(|error| away(&net::innermost(&error)))?;
        match (status, body) {
            (200..300, BoundedBody::Whole(bytes)) => Ok(CallFile { bytes, media_type, name: named(&name) }),
            (200..300, BoundedBody::TooLong(_)) => Err(refused(&format!("it has more than {MAX_BYTES} bytes"))),
            (status, _) if may_pass(status) => Err(away(&format!("its server answers with status {status}"))),
            (status, _) => Err(refused(&format!("its server answers with status {status}"))),
        }
    }
}

fn media_type(response: &Response) -> String {
    let stated = response.headers().get(reqwest::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    stated.unwrap_or("application/octet-stream").to_owned()
}

/// The file in a data URL; `None` if the text is none.
fn data_url(text: &str) -> Option<Result<CallFile, FailureReason>> {
    let rest = text.strip_prefix("data:")?;
    let wrong = |why: &str| FailureReason::InvalidRow(format!("The data URL in 'file_url' is not valid: {why}."));
    let Some((kind, data)) = rest.split_once(',') else { return Some(Err(wrong("it has no comma"))) };
    let Some(media_type) = kind.strip_suffix(";base64") else { return Some(Err(wrong("it is not in base64"))) };
    let decoded = STANDARD.decode(data).map_err(|error| wrong(&error.to_string()));
    Some(decoded.map(|bytes| CallFile {
        bytes: Bytes::from(bytes),
        media_type: media_type.to_owned(),
        name: format!("audio.{}", ending(media_type)),
    }))
}

/// The ending of a file's name, by which servers tell the format.
fn ending(media_type: &str) -> &str {
    let kind = media_type.split(';').next().unwrap_or_default();
    match kind.strip_prefix("audio/").or(kind.strip_prefix("video/")).unwrap_or_default() {
        "mpeg" | "mp3" => "mp3",
        "x-m4a" | "m4a" => "m4a",
        "mp4" => "mp4",
        "ogg" => "ogg",
        "flac" | "x-flac" => "flac",
        "webm" => "webm",
        _ => "wav",
    }
}

fn named(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain: String = name.chars().filter(|c| is_plain(*c)).take(100).collect();
    if plain.is_empty() { "audio".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_is_a_file_or_an_error() {
        let file = |text: &str| data_url(text).expect("a data URL");
        let audio = file("data:audio/mpeg;base64,aGk=").expect("a file");
        assert_eq!(
            (&audio.bytes[..], audio.media_type.as_str(), audio.name.as_str()),
            (&b"hi"[..], "audio/mpeg", "audio.mp3")
        );
        for text in ["data:audio/wav;base64", "data:audio/wav,aGk=", "data:audio/wav;base64,!"] {
            assert!(matches!(file(text), Err(FailureReason::InvalidRow(_))), "{text}");
        }
        assert!(data_url("https://example.com/a.wav").is_none());
    }

    #[tokio::test]
    async fn only_listed_hosts_are_asked() {
        let files = AudioFiles::new(&["files.example".to_owned(), "localhost".to_owned()]).expect("hosts");
        let cases = [
            ("file:///etc/passwd", "neither http nor https"),
            ("https://other.example/a.wav", "--file-url-hosts"),
            ("http://127.0.0.1/a.wav", "--file-url-hosts"),
            ("https://user:secret@files.example/a.wav", "a user name or a password"),
            ("not a url", "no URL"),
        ];
        for (url, why) in cases {
            let message = match files.fetched(url).await {
                Err(FailureReason::InvalidRow(message)) => message,
                other => format!("{other:?}"),
            };
            assert!(message.contains(why) && !message.contains("secret"), "{url}: {message}");
        }
        // A name that leads to this machine.
        let Err(FailureReason::FileUnreachable(message)) = files.fetched("http://localhost/a.wav").await else {
            panic!("it is not public")
        };
        assert!(message.contains("no public address"), "{message}");
        assert!(AudioFiles::new(&["http://a".to_owned()]).is_err());
    }
}
