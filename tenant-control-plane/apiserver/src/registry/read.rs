//! Get and list, from the cache's bytes.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use machinery::{Reason, Status};
use serde_json::{Value, json};

use super::{Call, options, present};
use crate::cache::{Filter, Found, ResourceCache};
use crate::convert::webhook;
use crate::http::Response;
use crate::http::respond::CONTINUE;

impl Call {
    /// Key of an object of this call's namespace in the cache.
    pub fn cache_key(&self, name: &str) -> String {
        if self.row.namespaced {
            format!("{}/{name}", self.info.namespace)
        } else {
            name.to_owned()
        }
    }
}

/// The revision that the client asks for: `None` for "now", else "not older than".
pub fn wanted_revision(call: &Call) -> Result<Option<i64>, Status> {
    match call.query.get("resourceVersion") {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "Invalid value: {text:?}: resourceVersion must be a number"
            ))
        }),
    }
}

/// Waits until the cache may answer, and returns the revision that it has reached.
async fn await_revision(call: &Call, wanted: Option<i64>) -> Result<i64, Status> {
    match wanted {
        None => call.api.caches.catch_up().await,
        Some(0) => Ok(call.api.caches.revision()),
        Some(revision) => call.api.caches.reach(revision).await,
    }
}

/// `GET` on an object.
pub async fn get(call: &Arc<Call>) -> Result<Response, Status> {
    let cache = call.api.cache(&call.row)?;
    await_revision(call, wanted_revision(call)?).await?;
    let name = &call.info.name;
    let object = cache
        .get(&call.cache_key(name))
        .ok_or_else(|| Status::not_found(&call.resource(), name))?;
    present::cached(call, object).await
}

/// `GET` on a collection.
pub async fn list(call: &Arc<Call>) -> Result<Response, Status> {
    let cache = call.api.cache(&call.row)?;
    let filter = options::filter(call, &cache)?;
    let limit = call.query.number("limit")?.unwrap_or(0).max(0) as usize;
    let wanted = wanted_revision(call)?;
    let exact = check_match(call, wanted)?;
    if let Some(token) = call.query.get("continue").filter(|t| !t.is_empty()) {
        let token = Continue::parse(token)?;
        if wanted.is_some_and(|r| r != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        return next_page(call, token, limit).await;
    }
    if let Some(revision) = exact {
        let start = cache_start(call);
        return page_from_store(call, revision, &start, limit).await;
    }
    let applied = await_revision(call, wanted).await?;
    let found = select(call, &cache, &filter, None, limit, applied).await?;
    let token = found.more.then(|| Continue::after(&found));
    present::list(call, found, token.map(|t| t.to_text())).await
}

/// What the cache has of what `filter` wants. Where a webhook converts, selectors are about what it
/// answers, so that everything is converted before the choice.
///
/// # Errors
/// When the webhook does not convert.
pub async fn select(
    call: &Call,
    cache: &ResourceCache,
    filter: &Filter,
    start: Option<&str>,
    limit: usize,
    applied: i64,
) -> Result<Found, Status> {
    if call.row.conversion.is_none() || !filter.is_selective() {
        return Ok(cache.list(filter, start, limit, applied));
    }
    let mut found = cache.list(&filter.without_selectors(), start, 0, applied);
    webhook::objects(&call.api, &call.row, &mut found.objects).await?;
    found.objects.retain(|object| filter.matches(object));
    found.remaining = None;
    found.more = limit > 0 && found.objects.len() > limit;
    if found.more {
        found.objects.truncate(limit);
    }
    Ok(found)
}

fn cache_start(call: &Call) -> String {
    match (&call.info.namespace, call.row.namespaced) {
        (namespace, true) if !namespace.is_empty() => format!("{namespace}/"),
        _ => String::new(),
    }
}

/// Checks `resourceVersionMatch`; the revision when the list must be as of exactly that one.
fn check_match(call: &Call, wanted: Option<i64>) -> Result<Option<i64>, Status> {
    let invalid = |text: &str| Err(Status::bad_request(format!("resourceVersionMatch: {text}")));
    match (call.query.get("resourceVersionMatch"), wanted) {
        (None | Some(""), _) => Ok(None),
        (Some(_), None) => invalid(
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (Some("NotOlderThan"), _) => Ok(None),
        (Some("Exact"), Some(0)) => invalid(
            "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (Some("Exact"), Some(revision)) => Ok(Some(revision)),
        (Some(_), _) => invalid("Unsupported value: supported values: \"Exact\", \"NotOlderThan\""),
    }
}

/// Where a list goes on. Opaque to clients; the notation is upstream's, so that a client can go on
/// with another replica, whichever server that is.
struct Continue {
    /// Revision of the whole list; -1: whatever is current.
    revision: i64,
    /// First key of the next page, behind the resource's prefix.
    start: String,
}

impl Continue {
    fn after(found: &Found) -> Self {
        let last = found.objects.last().map(|o| o.key()).unwrap_or_default();
        Self { revision: found.revision, start: format!("{last}\0") }
    }

    fn to_text(&self) -> String {
        let token = json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn parse(text: &str) -> Result<Self, Status> {
        let bad = || Status::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if token["v"] != "meta.k8s.io/v1" {
            return Err(bad());
        }
        let revision = token["rv"].as_i64().filter(|r| *r != 0).ok_or_else(bad)?;
        let start = token["start"].as_str().filter(|s| !s.is_empty()).ok_or_else(bad)?;
        if start.split('/').any(|part| part == "." || part == "..") || start.starts_with('/') {
            return Err(bad());
        }
        Ok(Self { revision, start: start.to_owned() })
    }
}

async fn next_page(call: &Arc<Call>, token: Continue, limit: usize) -> Result<Response, Status> {
    // Without a revision to stand on, the rest of the list is as of now.
    let is_current = token.revision < 0 || token.revision == call.api.caches.revision();
    if is_current {
        let cache = call.api.cache(&call.row)?;
        let filter = options::filter(call, &cache)?;
        let applied = match token.revision {
            r if r < 0 => call.api.caches.catch_up().await?,
            r => r,
        };
        let found = select(call, &cache, &filter, Some(&token.start), limit, applied).await?;
        if token.revision < 0 || found.revision == token.revision {
            let next = found.more.then(|| Continue::after(&found).to_text());
            return present::list(call, found, next).await;
        }
    }
    page_from_store(call, token.revision, &token.start, limit).await.map_err(|mut status| {
        if status.reason == Reason::Expired {
            let restart = Continue { revision: -1, start: token.start.clone() };
            status.message = "The provided continue parameter is too old to display a consistent \
                list result. You can start a new list without the continue parameter, or use the \
                continue token in this response to retrieve the remainder of the results. \
                Continuing with the provided token results in an inconsistent list - objects that \
                were created, modified, or deleted between the time the first chunk was returned \
                and now may show up in the list."
                .to_owned();
            status.details = json!({CONTINUE: restart.to_text()});
        }
        status
    })
}

/// A page as of a past revision: only the store knows those.
async fn page_from_store(
    call: &Arc<Call>,
    revision: i64,
    start: &str,
    limit: usize,
) -> Result<Response, Status> {
    let cache = call.api.cache(&call.row)?;
    let filter = options::filter(call, &cache)?;
    let prefix = format!("{}/", cache.prefix);
    let scope = format!("{prefix}{}", cache_start(call));
    let mut from = format!("{prefix}{start}");
    if !from.starts_with(&scope) {
        return Err(Status::bad_request("continue key is not valid"));
    }
    let page_size = if limit == 0 { 1000 } else { limit.max(100) as i64 };
    let mut found = Found { objects: Vec::new(), revision, remaining: None, more: false };
    'pages: loop {
        let page = call.api.store.range(&scope, &from, page_size, revision).await?;
        let decoded = page.kvs.iter().map(|kv| {
            let key = String::from_utf8_lossy(&kv.key[prefix.len()..]).into_owned();
            cache
                .decode(&key, &kv.value, kv.mod_revision)
                .map(Arc::new)
                .map_err(|e| Status::internal(format!("a stored object is not JSON: {e}")))
        });
        let mut objects = decoded.collect::<Result<Vec<_>, _>>()?;
        webhook::objects(&call.api, &call.row, &mut objects).await?;
        for (i, object) in objects.into_iter().enumerate() {
            if !filter.matches(&object) {
                continue;
            }
            if limit > 0 && found.objects.len() == limit {
                found.more = true;
                let left = page.count as usize - i;
                found.remaining = (!filter.is_selective()).then_some(left);
                break 'pages;
            }
            found.objects.push(object);
        }
        match page.kvs.last() {
            Some(last) if page.more => {
                from = String::from_utf8_lossy(&last.key).into_owned() + "\0"
            }
            _ => break,
        }
    }
    let next = found.more.then(|| Continue::after(&found).to_text());
    present::list(call, found, next).await
}
