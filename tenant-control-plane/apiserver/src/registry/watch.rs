//! Watch: a stream of changes, read from the resource's shared history at the client's pace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use machinery::{Reason, Status};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;

use super::read::{select, wanted_revision};
use super::{Call, options, present};
use crate::cache::{Event, Filter, Object, ResourceCache};
use crate::convert::webhook;
use crate::http::media::{self, Form};
use crate::http::{Response, respond};
use crate::table::Printer;

/// Events that are read from the history at once.
const BATCH: usize = 128;
/// How often an idle client is told how far the cache is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A last bookmark is sent this long before the watch ends.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Watches without `timeoutSeconds` end after this long, or up to twice as long.
const MIN_TIMEOUT_S: u64 = 1800;

struct Watch {
    call: Arc<Call>,
    cache: Arc<ResourceCache>,
    filter: Filter,
    form: Form,
    printer: Option<Printer>,
    /// Table columns are sent with the first row only.
    columns_sent: bool,
    /// Objects to be sent first, as if they had just been created.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// Revision of the initial objects, while their end is still to be marked.
    mark_initial_end: Option<i64>,
    cursor: u64,
    grown: Receiver<u64>,
    bookmarks: bool,
    next_bookmark: Instant,
    final_bookmark_sent: bool,
    end: Instant,
    stop: tokio_util::sync::CancellationToken,
    /// The cache has ended: what it still holds is the rest.
    cache_ended: bool,
    ended: bool,
}

/// Where a watch begins.
struct Start {
    initial: Vec<Arc<Object>>,
    cursor: u64,
    mark_initial_end: Option<i64>,
}

/// `GET ...?watch=true`.
pub async fn watch(call: &Arc<Call>) -> Result<Response, Status> {
    let cache = call.api.cache(&call.row)?;
    let filter = options::filter(call, &cache)?;
    let form = media::negotiate(&call.headers, true)?.form;
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let initial_events = initial_events(call, bookmarks)?;
    let timeout = timeout(call)?;
    let printer = (form == Form::Table).then(|| Printer::new(call)).transpose()?;
    // Before looking at the history, so that no growth is missed.
    let grown = cache.subscribe();
    let start = match start(call, &cache, &filter, initial_events).await {
        Ok(start) => start,
        // Clients expect this one inside of the stream.
        Err(status) if status.reason == Reason::Expired => return Ok(refusal(&status)),
        Err(status) => return Err(status),
    };
    let now = Instant::now();
    let state = Watch {
        call: call.clone(),
        cache,
        filter,
        form,
        printer,
        columns_sent: false,
        initial: start.initial.into_iter(),
        mark_initial_end: start.mark_initial_end,
        cursor: start.cursor,
        grown,
        bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        final_bookmark_sent: false,
        end: now + timeout,
        stop: call.api.stopping.clone(),
        cache_ended: false,
        ended: false,
    };
    Ok(stream(state))
}

fn stream(state: Watch) -> Response {
    let form = state.form;
    let gauge = state.call.api.metrics.watch_opened();
    let stream = futures::stream::unfold((state, gauge), |(mut state, gauge)| async move {
        let bytes = state.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), (state, gauge)))
    });
    let mut response = respond::bytes(StatusCode::OK, "application/json", Bytes::new());
    *response.body_mut() = streaming::body::stream(stream);
    let kind = match form {
        Form::Plain => return response,
        Form::Table => "Table",
        Form::Partial => "PartialObjectMetadata",
    };
    let text = format!("application/json;as={kind};v=v1;g=meta.k8s.io");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// A watch that ends at once with an error.
fn refusal(status: &Status) -> Response {
    let event = json!({"type": "ERROR", "object": status.to_json()});
    respond::bytes(StatusCode::OK, "application/json", format!("{event}\n"))
}

async fn start(
    call: &Call,
    cache: &ResourceCache,
    filter: &Filter,
    initial_events: Option<bool>,
) -> Result<Start, Status> {
    let wanted = wanted_revision(call)?;
    if let Some(revision) = wanted.filter(|r| *r > 0 && initial_events != Some(true)) {
        let cursor = cursor_at(cache, revision)?;
        return Ok(Start { initial: Vec::new(), cursor, mark_initial_end: None });
    }
    let applied = match wanted {
        Some(0) => call.api.caches.revision(),
        Some(revision) => call.api.caches.reach(revision).await?,
        None => call.api.caches.catch_up().await?,
    };
    let mut found = select(call, cache, filter, None, 0, applied).await?;
    let cursor = cursor_at(cache, found.revision)?;
    webhook::objects(&call.api, &call.row, &mut found.objects).await?;
    let initial = if initial_events == Some(false) { Vec::new() } else { found.objects };
    let mark_initial_end = (initial_events == Some(true)).then_some(found.revision);
    Ok(Start { initial, cursor, mark_initial_end })
}

/// `sendInitialEvents`, checked against the parameters that it needs.
fn initial_events(call: &Call, bookmarks: bool) -> Result<Option<bool>, Status> {
    let matching = call.query.get("resourceVersionMatch").filter(|m| !m.is_empty());
    let Some(_) = call.query.get("sendInitialEvents") else {
        return match matching {
            None => Ok(None),
            Some(_) => Err(Status::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
        };
    };
    let wanted = call.query.flag("sendInitialEvents");
    if matching != Some("NotOlderThan") {
        return Err(Status::bad_request(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    if wanted && !bookmarks {
        return Err(Status::bad_request(
            "sendInitialEvents: Forbidden: sendInitialEvents requires allowWatchBookmarks",
        ));
    }
    Ok(Some(wanted))
}

fn cursor_at(cache: &ResourceCache, revision: i64) -> Result<u64, Status> {
    cache.cursor_after(revision).map_err(|old| too_old(revision, old.oldest))
}

fn too_old(wanted: i64, oldest: i64) -> Status {
    Status::new(Reason::Expired, format!("too old resource version: {wanted} ({oldest})"))
}

fn timeout(call: &Call) -> Result<Duration, Status> {
    let asked = call.query.number("timeoutSeconds")?.filter(|s| *s > 0);
    let seconds = match asked {
        Some(seconds) => seconds as u64,
        // Spread, so that clients do not all come back at the same moment.
        None => MIN_TIMEOUT_S + rand::random_range(0..MIN_TIMEOUT_S),
    };
    Ok(Duration::from_secs(seconds.min(24 * 3600)))
}

enum Wake {
    Grown,
    Timer,
    CacheEnded,
    Stop,
}

impl Watch {
    /// The next bytes for the client; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = BytesMut::new();
        loop {
            self.put_initial(&mut out);
            if !out.is_empty() {
                return Some(out.freeze());
            }
            // Read before the history: everything up to it has then been seen.
            let applied = self.call.api.caches.revision();
            self.grown.mark_unchanged();
            match self.cache.events(&mut self.cursor, BATCH) {
                Ok(mut events) => {
                    let full = events.len() == BATCH;
                    let call = &self.call;
                    if let Err(status) = webhook::events(&call.api, &call.row, &mut events).await {
                        return Some(self.fail(&status));
                    }
                    for event in events {
                        self.put_event(&event, &mut out);
                    }
                    if !out.is_empty() {
                        return Some(out.freeze());
                    }
                    if full {
                        continue;
                    }
                }
                Err(old) => {
                    // The client did not keep up.
                    return Some(self.fail(&too_old(0, old.oldest)));
                }
            }
            if let Some(bytes) = self.bookmark_if_due(applied) {
                return Some(bytes);
            }
            match self.wait().await {
                Wake::Grown | Wake::Timer if Instant::now() < self.end => {}
                // It may have grown just before: look once more.
                Wake::CacheEnded if !self.cache_ended => self.cache_ended = true,
                _ => return None,
            }
        }
    }

    /// The last event: why the watch cannot go on.
    fn fail(&mut self, status: &Status) -> Bytes {
        let mut out = BytesMut::new();
        self.put("ERROR", &status.to_json(), &mut out);
        self.ended = true;
        out.freeze()
    }

    async fn wait(&mut self) -> Wake {
        let mut until = self.end;
        if self.bookmarks {
            until = until.min(self.next_bookmark);
            if !self.final_bookmark_sent
                && let Some(last) = self.end.checked_sub(BOOKMARK_BEFORE_END)
            {
                until = until.min(last.max(Instant::now()));
            }
        }
        let timer = tokio::time::sleep_until(until.into());
        tokio::select! {
            () = self.stop.cancelled() => Wake::Stop,
            changed = self.grown.changed() => if changed.is_ok() { Wake::Grown } else { Wake::Stop },
            () = self.cache.ended() => Wake::CacheEnded,
            () = timer => Wake::Timer,
        }
    }

    fn put_initial(&mut self, out: &mut BytesMut) {
        for object in self.initial.by_ref().take(BATCH).collect::<Vec<_>>() {
            self.put_object("ADDED", &object, out);
        }
        if self.initial.len() == 0
            && let Some(revision) = self.mark_initial_end.take()
        {
            self.put_bookmark(revision, true, out);
        }
    }

    fn bookmark_if_due(&mut self, applied: i64) -> Option<Bytes> {
        if !self.bookmarks {
            return None;
        }
        let now = Instant::now();
        let last = !self.final_bookmark_sent && now + BOOKMARK_BEFORE_END >= self.end;
        if now < self.next_bookmark && !last {
            return None;
        }
        self.final_bookmark_sent |= last;
        self.next_bookmark = now + BOOKMARK_EVERY;
        let mut out = BytesMut::new();
        self.put_bookmark(applied, false, &mut out);
        Some(out.freeze())
    }

    fn put_bookmark(&mut self, revision: i64, initial_end: bool, out: &mut BytesMut) {
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let row = &self.call.row;
        let value = match &self.printer {
            Some(_) => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "columnDefinitions": null, "rows": [],
            }),
            None if self.form == Form::Partial => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            }),
            None => json!({
                "kind": row.kind, "apiVersion": row.api_version(), "metadata": metadata,
            }),
        };
        self.put("BOOKMARK", &value, out);
    }

    /// What the change means to this watcher: an object may enter or leave its selection.
    fn put_event(&mut self, event: &Event, out: &mut BytesMut) {
        let before = event.previous.as_ref().is_some_and(|p| self.filter.matches(p));
        let after = !event.deleted && self.filter.matches(&event.object);
        match (before, after) {
            (false, true) => self.put_object("ADDED", &event.object, out),
            (true, true) => self.put_object("MODIFIED", &event.object, out),
            (true, false) if event.deleted => self.put_object("DELETED", &event.object, out),
            (true, false) => {
                let Some(previous) = &event.previous else { return };
                let last = previous.at_revision(event.revision);
                self.put_object("DELETED", &Arc::new(last), out);
            }
            (false, false) => {}
        }
    }

    fn put_object(&mut self, kind: &str, object: &Arc<Object>, out: &mut BytesMut) {
        let converts = self.call.row.converts();
        match self.form {
            Form::Plain if !converts => {
                out.put_slice(b"{\"type\":\"");
                out.put_slice(kind.as_bytes());
                out.put_slice(b"\",\"object\":");
                out.put_slice(&object.json);
                out.put_slice(b"}\n");
            }
            Form::Plain => self.put(kind, &present::in_version(&self.call, object), out),
            Form::Partial => self.put(kind, &present::partial(&object.parse()), out),
            Form::Table => {
                let value = present::in_version(&self.call, object);
                let metadata = json!({"resourceVersion": object.revision.to_string()});
                let first = !std::mem::replace(&mut self.columns_sent, true);
                let Some(printer) = &self.printer else { return };
                let table = printer.table(&[value], metadata, first);
                self.put(kind, &table, out);
            }
        }
    }

    fn put(&self, kind: &str, object: &Value, out: &mut BytesMut) {
        let event = json!({"type": kind, "object": object});
        serde_json::to_writer(out.writer(), &event).expect("a JSON value always serialises");
        out.put_u8(b'\n');
    }
}
