//! The form of an upload, read part by part within bounds.
//!
//! multer buffers the bytes before the first boundary and the headers of a part. It has no limit for this buffer, and
//! searches all of it again whenever more bytes arrive. So the bytes that multer gets are counted from one delivery to
//! the next, and the upload is refused if they are too many.

mod filename;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use futures::{Stream, StreamExt as _};
use multer::{Constraints, Field, Multipart, SizeLimit};

use filename::filename;

use super::ApiError;
use super::content_coding::damaged;
use super::server::BodyCut;

/// A text part is a word or a number.
const TEXT_BYTES: u64 = 4096;
/// The text parts of a form.
const TEXTS: [&str; 6] = [
    "purpose",
    "expires_after",
    "expires_after[anchor]",
    "expires_after[seconds]",
    "expires_after.anchor",
    "expires_after.seconds",
];
/// Bytes that the parser may get without delivering anything: the headers of a part, or the text before the first part.
const UNPLACED_BYTES: usize = 64 << 10;
/// Bytes that the parser gets at once.
const SLICE_BYTES: usize = 64 << 10;
/// Parts of a form. An upload has four.
const PARTS: usize = 100;
/// Bytes of all ignored parts together.
const IGNORED_BYTES: usize = 1 << 20;
/// Bytes that a form may have besides the largest file.
const BESIDE_FILE: u64 = 1 << 20;
/// Characters of the boundary; RFC 2046 allows 70.
const BOUNDARY_BYTES: usize = 200;

/// The form that an operation takes.
pub(super) struct FormShape {
    /// The parts that it must have, for messages.
    pub(super) required: &'static str,
    /// The parts that it may have, for messages.
    pub(super) known: &'static str,
    /// The name of the part with the bytes.
    pub(super) payload: &'static str,
    /// The largest payload, in bytes.
    pub(super) max_bytes: u64,
    /// The refusal of a larger one.
    pub(super) too_large: ApiError,
}

/// A form that is being read.
pub(super) struct Form<'a> {
    shape: FormShape,
    parts: Multipart<'a>,
    unplaced: Arc<AtomicUsize>,
    count: usize,
    ignored: usize,
}

/// A part of it.
pub(super) struct FormPart<'a> {
    field: Field<'a>,
    unplaced: Arc<AtomicUsize>,
}

/// The limit that a form exceeds.
#[derive(Debug, thiserror::Error)]
enum FormTooLarge {
    /// The parser got [`UNPLACED_BYTES`] without delivering anything.
    #[error("a part with its headers was not found within {UNPLACED_BYTES} bytes")]
    Unplaced,
    #[error("the form is too large")]
    Whole { limit: u64, payload: &'static str },
}

impl<'a> Form<'a> {
    /// The form in `bytes`, whose client announced at least so many.
    pub(super) fn new<S>(bytes: S, headers: &HeaderMap, announced: u64, shape: FormShape) -> Result<Self, ApiError>
    where
        S: Stream<Item = Result<Bytes, axum::Error>> + Send + Unpin + 'a,
    {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(content_type).map_err(|_| {
            ApiError::invalid(format!("The request must be a multipart/form-data form with {}.", shape.required))
        })?;
        if boundary.len() > BOUNDARY_BYTES {
            let message = format!("The boundary of the form is too long: it may have {BOUNDARY_BYTES} characters.");
            return Err(ApiError::invalid(message));
        }
        let limits = TEXTS.into_iter().fold(SizeLimit::new(), |limits, name| limits.for_field(name, TEXT_BYTES));
        let unplaced = Arc::new(AtomicUsize::new(0));
        let limit = shape.max_bytes.saturating_add(BESIDE_FILE);
        // Reading a byte would tell a client that waits for `100 Continue` to send it all.
        if announced > limit {
            return Err(shape.too_large);
        }
        let counted = CountedBody {
            bytes,
            rest: Bytes::new(),
            at_once: 0,
            whole: 0,
            limit,
            payload: shape.payload,
            unplaced: unplaced.clone(),
        };
        let parts = Multipart::with_constraints(counted, boundary, Constraints::new().size_limit(limits));
        Ok(Self { shape, parts, unplaced, count: 0, ignored: 0 })
    }

    /// The next part. The one before must have been read.
    pub(super) async fn next(&mut self) -> Result<Option<FormPart<'a>>, ApiError> {
        let Some(field) = self.parts.next_field().await.map_err(|error| malformed(&error))? else { return Ok(None) };
        self.unplaced.store(0, Ordering::Relaxed);
        self.count += 1;
        if self.count > PARTS {
            return Err(ApiError::invalid(format!("The form has too many parts: it may have {PARTS}.")));
        }
        Ok(Some(FormPart { field, unplaced: self.unplaced.clone() }))
    }

    /// Reads and drops a part with an unknown name.
    pub(super) async fn ignore(&mut self, mut part: FormPart<'_>) -> Result<(), ApiError> {
        let mut chunks = std::pin::pin!(part.chunks());
        while let Some(chunk) = chunks.next().await {
            self.ignored += chunk.map_err(|error| malformed(&error))?.len();
            if self.ignored > IGNORED_BYTES {
                let FormShape { known, payload, .. } = self.shape;
                let message = format!(
                    "The form's parts with other names than {known} are too large: they are ignored, and may have \
                     1 MiB together. Send the bytes as '{payload}'."
                );
                return Err(ApiError::invalid(message));
            }
        }
        Ok(())
    }
}

impl FormPart<'_> {
    pub(super) fn name(&self) -> Option<&str> {
        self.field.name()
    }

    /// The name of the file; empty if it has none.
    pub(super) fn filename(&self) -> String {
        let disposition = self.field.headers().get(header::CONTENT_DISPOSITION);
        disposition.map(|header| filename(header.as_bytes())).unwrap_or_default()
    }

    pub(super) async fn text(mut self) -> Result<String, ApiError> {
        let mut text = Vec::new();
        let mut chunks = std::pin::pin!(self.chunks());
        while let Some(chunk) = chunks.next().await {
            text.extend_from_slice(&chunk.map_err(|error| malformed(&error))?);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The bytes of the part. Each delivery resets the count of [`UNPLACED_BYTES`].
    pub(super) fn chunks(&mut self) -> impl Stream<Item = Result<Bytes, multer::Error>> + Unpin {
        let unplaced = &self.unplaced;
        (&mut self.field).inspect(|_| unplaced.store(0, Ordering::Relaxed))
    }
}

/// The body of the request, counted on its way to the parser.
struct CountedBody<S> {
    bytes: S,
    rest: Bytes,
    /// Bytes given since the parser last ran.
    at_once: usize,
    whole: u64,
    limit: u64,
    /// The name of the largest part, for messages.
    payload: &'static str,
    /// Bytes given since the parser last delivered something. Reset by the reader of the form.
    unplaced: Arc<AtomicUsize>,
}

impl<S: Stream<Item = Result<Bytes, axum::Error>> + Unpin> Stream for CountedBody<S> {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The parser takes all available bytes before it parses any, so it must be made to wait.
        if self.at_once >= SLICE_BYTES {
            self.at_once = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            match self.bytes.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(chunk))) => self.rest = chunk,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    self.at_once = 0;
                    return Poll::Pending;
                }
            }
        }
        let length = self.rest.len().min(SLICE_BYTES - self.at_once);
        let slice = self.rest.split_to(length);
        self.at_once += length;
        self.whole += length as u64;
        if self.whole > self.limit {
            return Poll::Ready(Some(Err(FormTooLarge::Whole { limit: self.limit, payload: self.payload }.into())));
        }
        if self.unplaced.fetch_add(length, Ordering::Relaxed) >= UNPLACED_BYTES {
            return Poll::Ready(Some(Err(FormTooLarge::Unplaced.into())));
        }
        Poll::Ready(Some(Ok(slice)))
    }
}

/// The error for a form that cannot be read.
pub(super) fn malformed(error: &multer::Error) -> ApiError {
    let multer::Error::StreamReadFailed(cause) = error else {
        return ApiError::invalid(format!("The multipart form cannot be read: {error}."));
    };
    if let Some(cut) = BodyCut::behind(&**cause) {
        return ApiError::cut(cut);
    }
    if let Some(damaged) = damaged(&**cause) {
        return damaged;
    }
    match cause.downcast_ref() {
        Some(FormTooLarge::Unplaced) => ApiError::invalid(format!(
            "The multipart form cannot be read: there is no part within {} KiB. Each part must begin with the boundary \
             that the Content-Type names, and its headers must be smaller than that.",
            UNPLACED_BYTES >> 10
        )),
        Some(FormTooLarge::Whole { limit, payload }) => ApiError::invalid(format!(
            "The form is too large: it may have {limit} bytes, the largest '{payload}' and 1 MiB."
        )),
        None => ApiError::invalid("The upload broke off. Please send it again."),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use futures::stream;

    use super::*;
    use crate::fuzz::NearlyGood;

    fn shape() -> FormShape {
        FormShape {
            required: "the part 'file'",
            known: "'file'",
            payload: "file",
            max_bytes: 1 << 20,
            too_large: ApiError::internal(),
        }
    }

    /// Reads a form to its end. Returns how many bytes its parts had.
    async fn read(body: &[u8], chunk: usize) -> Result<usize, ApiError> {
        let headers: HeaderMap =
            [(header::CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=b"))].into_iter().collect();
        let chunks: Vec<_> = body.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let mut form = Form::new(stream::iter(chunks), &headers, 0, shape())?;
        let mut bytes = 0;
        while let Some(mut part) = form.next().await? {
            let _ = (part.name().map(str::len), part.filename());
            let mut chunks = part.chunks();
            while let Some(chunk) = chunks.next().await {
                bytes += chunk.map_err(|error| malformed(&error))?.len();
            }
        }
        Ok(bytes)
    }

    #[test]
    fn fuzz_a_form_is_read_or_refused_in_whatever_chunks_it_comes() {
        let seeds: [&[u8]; 2] = [
            b"--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
              --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{}\r\n--b--\r\n",
            b"preamble\r\n--b\r\ncontent-disposition:form-data;name=file;filename*=utf-8''%e2%82%ac\r\n\
              Content-Type: x\r\n\r\n\r\n--b--",
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let runtime = std::panic::AssertUnwindSafe(runtime);
        bolero::check!().with_type::<NearlyGood>().with_iterations(3_000).for_each(|made| {
            let body = made.bytes(&seeds);
            let whole = runtime.block_on(read(&body, body.len().max(1))).ok();
            let in_chunks = runtime.block_on(read(&body, made.chunk())).ok();
            assert_eq!(whole, in_chunks);
            assert!(whole.is_none_or(|bytes| bytes <= body.len()));
        });
    }
}
