//! Files: what clients upload and what batches produce (contract §2 to §4).

use std::time::Duration;

use super::ids::{BlobId, FileId};
use super::text_enum::text_enum;
use super::time::Timestamp;

/// How long the files of batches, uploaded or produced, are kept if the client does not say (contract §2.1, §8.1).
pub const BATCH_FILE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

text_enum! {
    /// What a file is for.
    pub enum Purpose {
        Assistants = "assistants",
        /// The input of batches.
        Batch = "batch",
        /// The output and error files of batches. Clients cannot upload for it.
        BatchOutput = "batch_output",
        Evals = "evals",
        FineTune = "fine-tune",
        UserData = "user_data",
        Vision = "vision",
    }
}

impl Purpose {
    /// The purposes clients may upload for, in the order OpenAI's refusal lists them (contract §2.4).
    pub const UPLOADABLE: [Self; 6] =
        [Self::FineTune, Self::Assistants, Self::Batch, Self::UserData, Self::Vision, Self::Evals];
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
}
