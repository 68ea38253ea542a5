//! Files that pages refer to. Their address contains a hash of their content, so that browsers may
//! keep them for ever.

use std::sync::LazyLock;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::extract::Path;

/// Name, type and content.
const FILES: &[(&str, &str, &str)] = &[
    ("app.css", "text/css; charset=utf-8", include_str!("../../assets/app.css")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("../../assets/app.js")),
    ("logo.svg", "image/svg+xml", include_str!("../../assets/logo.svg")),
];

static HASH: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (name, _, content) in FILES {
        hash.update(name);
        hash.update(content);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
});

/// Address of a file.
pub(super) fn url(name: &str) -> String {
    format!("/assets/{}/{name}", *HASH)
}

/// One file.
pub(super) async fn get(Path((_, name)): Path<(String, String)>) -> Response {
    match FILES.iter().find(|(known, _, _)| *known == name) {
        Some((_, kind, content)) => {
            let cache = "public, max-age=31536000, immutable";
            ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, cache)], *content)
                .into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
