//! The ids clients and databases see: how each is minted, printed and parsed.
//!
//! Every id wraps a UUIDv7, so ids made later sort later, in the database and on the wire.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE62_LEN: usize = 22;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh id; later ones sort after earlier ones of the same process.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "each call returns another id, unlike a default")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }
    };
}

uuid_id! {
    /// A file, printed as `file-` and 22 base62 digits (contract §1.5).
    FileId
}
uuid_id! {
    /// A batch, printed as `batch_` and 32 hexadecimal digits (contract §1.5).
    BatchId
}
uuid_id! {
    /// An API key, printed as `key_` and 32 hexadecimal digits.
    KeyId
}
uuid_id! {
    /// An upload in parts, printed as `upload_` and 32 hexadecimal digits (contract §1.5).
    UploadId
}
uuid_id! {
    /// A part of an upload, printed as `part_` and 32 hexadecimal digits (contract §1.5).
    UploadPartId
}
uuid_id! {
    /// One immutable object of the blob store.
    BlobId
}
uuid_id! {
    /// The right of one daemon to run a range of a lane.
    LeaseId
}
uuid_id! {
    /// One running daemon. A restarted process is another daemon.
    DaemonId
}
uuid_id! {
    /// An event on its way to one receiver, printed as `wh_` and 32 hexadecimal digits.
    DeliveryId
}

/// The event that a batch has ended, printed as `evt_` and 32 hexadecimal digits (contract §1.5). A batch ends once, so
/// the event has the digits of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId(BatchId);

impl FileId {
    /// Reads the printed form; `None` for anything this program never prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("file-")?.as_bytes();
        if digits.len() != BASE62_LEN {
            return None;
        }
        let mut value: u128 = 0;
        for digit in digits {
            let position = BASE62.iter().position(|known| known == digit)?;
            value = value.checked_mul(62)?.checked_add(position as u128)?;
        }
        Some(Self(Uuid::from_u128(value)))
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; BASE62_LEN];
        let mut value = self.0.as_u128();
        for digit in digits.iter_mut().rev() {
            *digit = BASE62[(value % 62) as usize];
            value /= 62;
        }
        write!(f, "file-{}", str::from_utf8(&digits).expect("base62 digits are ASCII"))
    }
}

impl EventId {
    /// The event that this batch has ended.
    #[must_use]
    pub fn of(batch: BatchId) -> Self {
        Self(batch)
    }

    /// The batch.
    #[must_use]
    pub fn batch(self) -> BatchId {
        self.0
    }

    /// Reads the printed form; `None` for anything this program never prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hexadecimal(text, "evt_").map(|id| Self(BatchId(id)))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evt_{}", self.0.0.simple())
    }
}

/// Ids that are printed as a prefix and 32 hexadecimal digits.
macro_rules! printed_as_hex {
    ($($name:ident: $prefix:literal),+) => {$(
        impl $name {
            /// Reads the printed form; `None` for anything this program never prints.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                hexadecimal(text, $prefix).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }
    )+};
}

printed_as_hex!(
    BatchId: "batch_",
    DeliveryId: "wh_",
    KeyId: "key_",
    UploadId: "upload_",
    UploadPartId: "part_"
);

/// The id behind a prefix, if it is printed as this program prints it.
fn hexadecimal(text: &str, prefix: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(prefix)?;
    let is_printed = digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_printed { Uuid::try_parse(digits).ok() } else { None }
}

impl BlobId {
    /// Reads the printed form; `None` for anything this program never prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self).filter(|id| id.to_string() == text)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease_{}", self.0.simple())
    }
}

impl fmt::Display for DaemonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "daemon_{}", self.0.simple())
    }
}

/// One request of one batch, over every attempt, restart and replica.
///
/// Printed as `batch_req_` and 32 hexadecimal digits: 24 of the batch's id and 8 of the row number. It is the `id`
/// of the row's result line and its `Idempotency-Key` upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    /// The batch the row belongs to.
    pub batch: BatchId,
    /// The row number in the input file, counted from 0.
    pub row: u32,
}

impl RequestId {
    /// The id of the response made for the row: `resp_`, the 32 hexadecimal digits of its batch, and 8 of its number.
    #[must_use]
    pub fn response_id(self) -> String {
        format!("resp_{}{:08x}", self.batch.0.simple(), self.row)
    }

    /// The row that a response was made for; `None` for ids in another form.
    #[must_use]
    pub fn parse_response(text: &str) -> Option<Self> {
        let (batch, row) = text.strip_prefix("resp_")?.split_at_checked(32)?;
        let id = Self { batch: BatchId(Uuid::try_parse(batch).ok()?), row: u32::from_str_radix(row, 16).ok()? };
        (id.response_id() == text).then_some(id)
    }
}

/// The row number that the id of a result line ends with; `None` if it is not of the form of [`RequestId`].
#[must_use]
pub fn row_of_line_id(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("batch_req_")?;
    let is_ours = digits.len() == 32 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if is_ours { u32::from_str_radix(&digits[24..], 16).ok() } else { None }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The low 96 bits of a UUIDv7 hold all of its random part; the rest is a clock reading.
        let batch = self.batch.0.as_u128() & ((1 << 96) - 1);
        write!(f, "batch_req_{batch:024x}{:08x}", self.row)
    }
}

macro_rules! serialize_as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

serialize_as_text!(FileId, BatchId, RequestId);

impl<'de> Deserialize<'de> for BatchId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("it is no id of a batch"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_printing_and_parsing() {
        for _ in 0..100 {
            let file = FileId::new();
            let batch = BatchId::new();

            assert_eq!(FileId::parse(&file.to_string()), Some(file));
            assert_eq!(BatchId::parse(&batch.to_string()), Some(batch));
            assert_eq!(KeyId::parse(&KeyId(batch.0).to_string()), Some(KeyId(batch.0)));
        }
        let extremes = [FileId(Uuid::nil()), FileId(Uuid::max())];
        for file in extremes {
            assert_eq!(FileId::parse(&file.to_string()), Some(file));
        }
    }

    #[test]
    fn foreign_ids_are_not_ours() {
        for text in ["", "file-", "file_abc", "file-zzzzzzzzzzzzzzzzzzzzzz", "file-ü000000000000000000000"] {
            assert_eq!(FileId::parse(text), None, "{text}");
        }
        for text in ["batch_", "batch_00", "batch_0198C0FFEE00000000000000000000AA", "file-1"] {
            assert_eq!(BatchId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn printed_file_ids_sort_as_they_were_made() {
        let ids: Vec<String> = (0..100).map(|_| FileId::new().to_string()).collect();

        assert!(ids.is_sorted());
    }

    #[test]
    fn a_request_id_names_its_batch_and_row() {
        let batch = BatchId::parse("batch_0123456789abcdef0123456789abcdef").expect("a printed id");

        let id = RequestId { batch, row: 255 };

        assert_eq!(id.to_string(), "batch_req_89abcdef0123456789abcdef000000ff");
        assert_eq!(row_of_line_id(&id.to_string()), Some(255));
        for foreign in ["batch_req_a", "batch_req_89ABCDEF0123456789abcdef000000ff", "req_1", "batch_req_"] {
            assert_eq!(row_of_line_id(foreign), None, "{foreign}");
        }
        assert_eq!(id.response_id(), "resp_0123456789abcdef0123456789abcdef000000ff");
        assert_eq!(RequestId::parse_response(&id.response_id()), Some(id));
    }

    #[test]
    fn responses_of_others_are_of_no_row() {
        let batch = "0123456789abcdef0123456789abcdef";
        let ends = ["", "ff", "0000000g", "000000FF", "+00000ff", "0000000ff"];
        let texts = ends.map(|end| format!("resp_{batch}{end}"));
        for text in texts.iter().map(String::as_str).chain(["resp_", "resp_é", "batch_req_0", ""]) {
            assert_eq!(RequestId::parse_response(text), None, "{text}");
        }
    }
}
