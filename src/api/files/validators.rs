//! The entity tag of a file, and the conditions of requests that name one (RFC 9110, sections 8.8.3 and 13.1).
//!
//! Clients see only uploads and the files of batches that have ended, whose bytes never change. Merging parts keeps the
//! bytes as well. So the tag is a strong one of the id; the length is in it as a check, should a file ever grow.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::domain::ids::FileId;

/// The tag of a file with so many bytes.
pub(super) fn entity_tag(file: &FileId, length: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{file}-{length}\"")).expect("ids are printable ASCII")
}

/// Whether `If-None-Match` says that the client has the file already. The comparison is weak: `W/` makes no difference.
pub(super) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).any(|known| {
        let known = known.trim_ascii();
        known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes()
    })
}

/// Whether `If-Range` lets a range be answered. The comparison is strong. Downloads have no `Last-Modified`, so a date
/// is never that of the file.
pub(super) fn ranges_apply(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|condition| condition == tag)
}
