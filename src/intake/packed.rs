//! Uploads that are compressed: recognised by their first bytes, and unpacked as they stream in.

use std::io;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::io::AsyncBufRead;
use tokio_util::io::{ReaderStream, StreamReader};

/// Bytes that are unpacked at once.
const CHUNK: usize = 64 << 10;
/// The window of a zstd stream as a power of two: 8 MiB, which every decoder has (RFC 8878, section 3.1.1.1.2), and
/// which `zstd` needs up to `-19`. It bounds the memory of an upload.
const WINDOW_LOG: u32 = 23;
/// The first bytes by which a format is recognised.
const MAGIC: usize = 4;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// One or more members (RFC 1952).
    Gzip,
    /// One or more frames (RFC 8878).
    Zstd,
}

/// Why bytes were not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError<E> {
    /// The stream of packed bytes broke off.
    #[error("the stream broke off")]
    Stream(#[source] E),
    /// The stream needs a window of more than 8 MiB.
    #[error("The zstd data needs more than 8 MiB to be unpacked. Compress it without --long and --ultra.")]
    Window,
    /// The bytes are not of the format, or not to the end.
    #[error("The {packing} data cannot be unpacked: it is damaged, or its end is missing. Please send it again.")]
    Damaged {
        /// The format.
        packing: Packing,
    },
}

impl std::fmt::Display for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl Packing {
    /// The format that a `Content-Encoding` names.
    #[must_use]
    pub fn named(coding: &str) -> Option<Self> {
        match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The format of a file that begins like this. None of them is the beginning of a JSON file.
    fn of(beginning: &[u8]) -> Option<Self> {
        match *beginning {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // A frame, or one that is skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The format of a stream, and the whole stream.
pub async fn recognised<'a, E: Send + 'a>(
    mut bytes: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'a,
) -> Result<(Option<Packing>, BoxStream<'a, Result<Bytes, E>>), E> {
    let mut beginning = BytesMut::new();
    while beginning.len() < MAGIC {
        match bytes.next().await {
            Some(chunk) => beginning.extend_from_slice(&chunk?),
            None => break,
        }
    }
    let packing = Packing::of(&beginning);
    Ok((packing, stream::iter([Ok(beginning.freeze())]).chain(bytes).boxed()))
}

/// The bytes unpacked, or as they are if they are not packed.
pub fn unpacked<'a, E>(
    bytes: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'a,
    packing: Option<Packing>,
) -> BoxStream<'a, Result<Bytes, UnpackError<E>>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let Some(packing) = packing else { return bytes.map_err(UnpackError::Stream).boxed() };
    let packed = StreamReader::new(bytes.map_err(io::Error::other));
    let unpacked = match packing {
        Packing::Gzip => gunzipped(packed),
        Packing::Zstd => unzstd(packed),
    };
    unpacked.map_err(move |error| error_of(error, packing)).boxed()
}

fn gunzipped<'a>(packed: impl AsyncBufRead + Send + 'a) -> BoxStream<'a, io::Result<Bytes>> {
    let mut decoder = GzipDecoder::new(packed);
    decoder.multiple_members(true);
    ReaderStream::with_capacity(decoder, CHUNK).boxed()
}

fn unzstd<'a>(packed: impl AsyncBufRead + Send + 'a) -> BoxStream<'a, io::Result<Bytes>> {
    let mut decoder = ZstdDecoder::with_params(packed, &[DParameter::window_log_max(WINDOW_LOG)]);
    decoder.multiple_members(true);
    ReaderStream::with_capacity(decoder, CHUNK).boxed()
}

fn error_of<E: std::error::Error + Send + Sync + 'static>(error: io::Error, packing: Packing) -> UnpackError<E> {
    // zstd tells it by this text alone.
    if error.to_string().contains("too much memory") {
        return UnpackError::Window;
    }
    match error.downcast() {
        Ok(broken) => UnpackError::Stream(broken),
        Err(_) => UnpackError::Damaged { packing },
    }
}

#[cfg(test)]
mod tests {
    use async_compression::Level;
    use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
    use async_compression::zstd::CParameter;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzipEncoder::new(Vec::new());
        encoder.write_all(text).await.expect("a Vec takes all");
        encoder.shutdown().await.expect("a Vec takes all");
        encoder.into_inner()
    }

    async fn zstd(text: &[u8], window_log: u32) -> Vec<u8> {
        let parameters = [CParameter::window_log(window_log), CParameter::checksum_flag(true)];
        let mut encoder = ZstdEncoder::with_quality_and_params(Vec::new(), Level::Default, &parameters);
        encoder.write_all(text).await.expect("a Vec takes all");
        encoder.shutdown().await.expect("a Vec takes all");
        encoder.into_inner()
    }

    /// The bytes as they come out if they arrive in chunks of this size.
    async fn unpack(packed: &[u8], size: usize) -> Result<Vec<u8>, UnpackError<io::Error>> {
        let chunks = packed.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
        let (packing, bytes) = recognised(stream::iter(chunks)).await.expect("no chunk fails");
        unpacked(bytes, packing).try_fold(Vec::new(), async |whole, chunk| Ok([&whole[..], &chunk].concat())).await
    }

    #[tokio::test]
    async fn members_and_frames_are_unpacked_one_after_the_other() {
        let (one, other) = ("one\n".repeat(5000), "other\n".repeat(5000));
        let both = [one.as_bytes(), other.as_bytes()].concat();
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2], &zstd(&both, 20).await[..]].concat();
        let cases = [
            [gzip(one.as_bytes()).await, gzip(other.as_bytes()).await].concat(),
            [zstd(one.as_bytes(), 20).await, zstd(other.as_bytes(), 20).await].concat(),
            skipped,
            both.clone(),
        ];
        for packed in cases {
            assert_unpacks_to(&packed, &both).await;
        }
    }

    async fn assert_unpacks_to(packed: &[u8], text: &[u8]) {
        for size in [1, 3, 1000, packed.len()] {
            assert!(unpack(packed, size).await.expect("it is whole") == text, "{:?} by {size}", Packing::of(packed));
        }
    }

    #[tokio::test]
    async fn a_stream_without_its_end_or_with_other_bytes_is_damaged() {
        let text = "x y z ".repeat(1000);
        for whole in [gzip(text.as_bytes()).await, zstd(text.as_bytes(), 20).await] {
            let mut other = whole.clone();
            let middle = other.len() / 2;
            other[middle] ^= 0xff;
            let behind = [&whole[..], b"behind it"].concat();
            let cut: [&[u8]; 5] = [&whole[..whole.len() - 1], &whole[..5], &whole[..middle], &other, &behind];
            assert_damaged(&cut).await;
        }
    }

    async fn assert_damaged(cases: &[&[u8]]) {
        for (no, packed) in cases.iter().enumerate() {
            let result = unpack(packed, 100).await;
            assert!(matches!(result, Err(UnpackError::Damaged { .. })), "case {no} of {:?}", Packing::of(packed));
        }
    }

    #[tokio::test]
    async fn a_window_of_8_mebibytes_is_the_largest() {
        let text: Vec<u8> = (0..3 << 20).flat_map(u32::to_le_bytes).collect();

        assert!(unpack(&zstd(&text, 23).await, 1 << 16).await.expect("it is whole") == text);
        let larger = unpack(&zstd(&text, 24).await, 1 << 16).await;
        assert!(matches!(larger, Err(UnpackError::Window)), "{larger:?}");
    }

    #[tokio::test]
    async fn an_empty_stream_is_not_packed() {
        assert_eq!(unpack(b"", 1).await.expect("nothing is wrong"), b"");
        assert_eq!(unpack(b"{}", 1).await.expect("nothing is wrong"), b"{}");
    }
}
