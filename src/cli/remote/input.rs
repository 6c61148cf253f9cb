//! The input file of a batch, on its way to the server.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::server::CalledServer;
use super::watch::outage_notice;
use crate::cli::exit::UsageError;
use crate::cli::output::say;
use crate::client::{ClientError, Pacer, Polling, RemoteFile};

/// The pause after a first upload that the server did not take.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A local file that can be read several times.
pub(super) struct InputFile {
    file: File,
    /// The file's own name.
    pub(super) name: String,
    pub(super) bytes: u64,
}

impl InputFile {
    /// Opens a file. Standard input (`-`) and pipes are copied to a temporary file first.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let unreadable = || format!("{} cannot be read", path.display());
        let (file, name) = if path == Path::new("-") {
            (copied(io::stdin().lock()).context("standard input cannot be read")?, "stdin.jsonl".into())
        } else {
            let mut file = File::open(path).with_context(unreadable)?;
            if !file.metadata().with_context(unreadable)?.is_file() {
                file = copied(file).with_context(unreadable)?;
            }
            (file, path.file_name().unwrap_or_default().to_string_lossy())
        };
        let bytes = file.metadata().with_context(unreadable)?.len();
        if bytes == 0 {
            return Err(UsageError(format!("{} is empty: an input file has one request a line", path.display())).into());
        }
        Ok(Self { file, name: name.into_owned(), bytes })
    }

    /// A hash of its bytes, in hexadecimal digits.
    pub(super) fn fingerprint(&self) -> io::Result<String> {
        let mut hasher = HashWriter(Sha256::new());
        io::copy(&mut self.reader()?, &mut hasher)?;
        Ok(hexadecimal(hasher.0))
    }

    /// The url of its first request.
    pub(super) fn endpoint(&self) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct FirstRequest {
            url: String,
        }
        for line in BufReader::new(self.reader()?).split(b'\n') {
            let line = line?;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let first: FirstRequest = serde_json::from_slice(&line).map_err(|error| {
                UsageError(format!("the first line of {} names no url ({error}); give --endpoint", self.name))
            })?;
            return Ok(first.url);
        }
        Err(UsageError(format!("{} has only blank lines", self.name)).into())
    }

    /// From the beginning. All readers share one position.
    fn reader(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }
}

fn copied(mut from: impl io::Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut from, &mut file)?;
    Ok(file)
}

/// Uploads a file under this name. While the server refuses uploads for now (429, 503), it is sent again, for up to
/// five minutes. After anything else it is not: the file may be there.
pub(super) async fn uploaded(server: &CalledServer, input: &InputFile, name: &str) -> anyhow::Result<RemoteFile> {
    let mut pacer = Pacer::new(Polling { first_pause: FIRST_PAUSE, ..Polling::default() });
    let file = loop {
        let answer = upload(server, input, name.to_owned()).await?;
        let is_final = match &answer {
            Ok(_) => false,
            Err(ClientError::Refused(refusal)) => !matches!(refusal.status, 429 | 503),
            Err(_) => true,
        };
        let answer = if is_final { answer.map(Some) } else { pacer.judge(answer, outage_notice) };
        if let Some(file) = answer.map_err(|error| server.explain(error))? {
            break file;
        }
        pacer.pause().await;
    };
    say(format!("uploaded {} bytes as {}", file.bytes, file.id));
    Ok(file)
}

/// Uploads a file once. A terminal shows a bar.
async fn upload(
    server: &CalledServer,
    input: &InputFile,
    name: String,
) -> anyhow::Result<Result<RemoteFile, ClientError>> {
    let style = ProgressStyle::with_template("uploading {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")?;
    let bar = ProgressBar::new(input.bytes).with_style(style);
    let sent = {
        let bar = bar.clone();
        move |bytes| bar.inc(bytes)
    };
    let file = tokio::fs::File::from_std(input.reader()?);
    let uploaded = server.client.upload_open_file(file, name, sent).await;
    bar.finish_and_clear();
    Ok(uploaded)
}

/// The key that makes the same command find the same batch. It depends on nothing that is kept on this machine.
pub(super) struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of a command with these parts.
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            // With their lengths, so that no text can move from one part to the next.
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Self(format!("batchwright-{}", hexadecimal(hasher)))
    }

    /// The key, or one that no other command has.
    pub(super) fn unless(self, again: bool) -> String {
        if again { format!("batchwright-{}", Uuid::new_v4()) } else { self.0 }
    }
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_every_part_and_where_it_begins() {
        let key = |parts: &[&str]| IdempotencyKey::of(parts).unless(false);
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        for other in [&["ab", ""][..], &["", "ab"], &["ab"], &["b", "a"]] {
            assert_ne!(key(&["a", "b"]), key(other));
        }
        let again = || IdempotencyKey::of(&["a"]).unless(true);
        assert_ne!(again(), again());
    }
}
