//! Documents of extension API servers: what they serve, and its schemas.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use crate::body;
use crate::node::{NodeClient, NodeTarget, Scheme};
use crate::proxy::send;

/// Longest document, in bytes.
const LONGEST: usize = 16 * 1024 * 1024;

/// Fetches a document.
///
/// # Errors
/// When there is no answer within `limit`, or it is no success. The text is upstream's:
/// `bad status from https://...: 500`.
pub async fn fetch(
    client: &NodeClient,
    target: &NodeTarget,
    limit: Duration,
) -> Result<Bytes, String> {
    let host = match &target.scheme {
        Scheme::Extension(extension) => &extension.server_name,
        _ => &target.host,
    };
    let url = format!("https://{host}{}", target.path_and_query);
    let failed = |why: &str| format!("failing or missing response from {url}: {why}");
    if let Err(status) = client.check_address(target) {
        return Err(failed(&status.message));
    }
    match tokio::time::timeout(limit, exchange(client, target)).await {
        Ok(Ok((code, body))) if code.is_success() => Ok(body),
        Ok(Ok((code, _))) => Err(failed(&format!("bad status from {url}: {}", code.as_u16()))),
        Ok(Err(error)) => Err(failed(&format!("Get {url:?}: {error:#}"))),
        Err(_) => Err(failed(&format!("Get {url:?}: context deadline exceeded"))),
    }
}

async fn exchange(client: &NodeClient, target: &NodeTarget) -> anyhow::Result<(StatusCode, Bytes)> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Scheme::Extension(extension) = &target.scheme {
        headers.extend(extension.identity.clone());
    }
    let response = send(client, target, Method::GET, headers, body::empty()).await?;
    let code = response.status();
    let collected = Limited::new(response.into_body(), LONGEST).collect().await;
    Ok((code, collected.map_err(|e| anyhow::anyhow!(e))?.to_bytes()))
}
