//! Style and scripts, in the binary, under URLs that change with their bytes, so that browsers may keep them for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::page::{PageError, fingerprint};

/// A file that pages load.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const ASSETS: [Asset; 5] = [
    Asset { name: "style.css", kind: STYLE, bytes: include_bytes!("static/style.css") },
    Asset { name: "dashboard.js", kind: SCRIPT, bytes: include_bytes!("static/dashboard.js") },
    Asset { name: "htmx.min.js", kind: SCRIPT, bytes: include_bytes!("vendor/htmx.min.js") },
    Asset { name: "uPlot.iife.min.js", kind: SCRIPT, bytes: include_bytes!("vendor/uPlot.iife.min.js") },
    Asset { name: "uPlot.min.css", kind: STYLE, bytes: include_bytes!("vendor/uPlot.min.css") },
];

static FINGERPRINTS: LazyLock<[String; 5]> = LazyLock::new(|| ASSETS.map(|asset| fingerprint(asset.bytes)));

/// The URL of an asset.
pub(super) fn url(name: &str) -> String {
    let no = ASSETS.iter().position(|asset| asset.name == name).expect("templates name only assets that there are");
    format!("/dashboard/assets/{}-{name}", FINGERPRINTS[no])
}

/// An asset, if it has the bytes that its URL was made for.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let known =
        ASSETS.iter().find(|asset| name.ends_with(asset.name) && url(asset.name).ends_with(&format!("/{name}")));
    let Some(asset) = known else { return PageError::not_found("There is no such asset.").into_response() };
    let headers = [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, asset.bytes).into_response()
}
