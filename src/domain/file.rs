//! Files: what clients upload and what batches produce (contract §2 to §4).

use std::fmt;
use std::time::Duration;

use super::ids::{BlobId, FileId};
use super::time::Timestamp;

/// How long the files of batches, uploaded or produced, are kept if the client does not say (contract §2.1, §8.1).
pub const BATCH_FILE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `assistants`
    Assistants,
    /// `batch`: the input of batches.
    Batch,
    /// `batch_output`: the output and error files of batches. Not for clients to upload.
    BatchOutput,
    /// `evals`
    Evals,
    /// `fine-tune`
    FineTune,
    /// `user_data`
    UserData,
    /// `vision`
    Vision,
}

impl Purpose {
    /// The purposes clients may upload for, in the order OpenAI's refusal lists them (contract §2.4).
    pub const UPLOADABLE: [Self; 6] =
        [Self::FineTune, Self::Assistants, Self::Batch, Self::UserData, Self::Vision, Self::Evals];

    /// The text on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assistants => "assistants",
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
            Self::Evals => "evals",
            Self::FineTune => "fine-tune",
            Self::UserData => "user_data",
            Self::Vision => "vision",
        }
    }

    /// The purpose with exactly this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let known = Self::UPLOADABLE.into_iter().chain([Self::BatchOutput]);
        known.into_iter().find(|purpose| purpose.as_str() == text)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A file as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its id.
    pub id: FileId,
    /// What it is for.
    pub purpose: Purpose,
    /// The name it was uploaded under, without directories.
    pub filename: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was uploaded or, for a batch's files, when the batch ended.
    pub created_at: Timestamp,
    /// When it expires; never if unset.
    pub expires_at: Option<Timestamp>,
}

/// One immutable piece of a file: the parts in order, end to end, are its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePart {
    /// The blob that holds the piece.
    pub blob: BlobId,
    /// The size of the piece in bytes.
    pub bytes: u64,
}

/// The part of a client's file name that is kept: no directories, no control characters, at most 512 bytes.
#[must_use]
pub fn clean_filename(sent: &str) -> String {
    let base = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut clean: String = base.chars().filter(|c| !c.is_control()).collect();
    while clean.len() > 512 {
        clean.pop();
    }
    if clean.is_empty() { "upload".to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filenames_lose_directories_and_control_characters() {
        assert_eq!(clean_filename("a.jsonl"), "a.jsonl");
        assert_eq!(clean_filename("../../etc/passwd"), "passwd");
        assert_eq!(clean_filename("C:\\temp\\x.jsonl"), "x.jsonl");
        assert_eq!(clean_filename("a\r\nSet-Cookie: b\0"), "aSet-Cookie: b");
        assert_eq!(clean_filename("dir/"), "upload");
        assert_eq!(clean_filename(&"é".repeat(400)).len(), 512);
    }

    #[test]
    fn purposes_survive_printing_and_parsing() {
        for purpose in Purpose::UPLOADABLE.into_iter().chain([Purpose::BatchOutput]) {
            assert_eq!(Purpose::parse(purpose.as_str()), Some(purpose));
        }
        assert_eq!(Purpose::parse("Batch"), None);
    }
}
