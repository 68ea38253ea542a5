//! What happened to a cluster: as a list, and live.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event as Sse, KeepAlive};
use futures::{Stream, stream};
use marina_db::ClusterId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{Path, Query};
use crate::actions::clusters;
use crate::identity::{Caller, Permission};
use crate::problem::{FieldError, Problem};
use crate::state::AppState;
use crate::view::{EventView, Page};

/// Events on a page when no limit is given, and at the most.
const PAGE: i64 = 100;
/// Pause between two comments that keep a quiet stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Events on the page, 1 to 100.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<i64>,
}

/// Events of a cluster, newest first.
#[utoipa::path(get, path = "/api/v1/clusters/{cluster}/events", tag = "events",
    params(("cluster" = String, Path, description = "Id or name"), ListParams),
    responses((status = 200, body = Page<EventView>), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Path(cluster): Path<String>,
    Query(params): Query<ListParams>,
) -> Result<Json<Page<EventView>>, Problem> {
    caller.may(Permission::Read)?;
    let limit = params.limit.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        let message = format!("must be 1 to {PAGE}, is {limit}.");
        return Err(Problem::invalid(vec![FieldError::new("limit", message)]));
    }
    let mut tx = state.db.read().await?;
    let cluster = tx.cluster_of(&caller.org.id, &cluster).await?;
    let before = params.cursor.unwrap_or(i64::MAX);
    let events = tx.events_before(&cluster.id, before, limit).await?;
    let full = i64::try_from(events.len()).is_ok_and(|length| length == limit);
    let next_cursor = events.last().filter(|_| full).map(|last| last.seq.to_string());
    Ok(Json(Page { items: events.iter().map(EventView::from).collect(), next_cursor }))
}

/// State of one stream.
struct Follow {
    state: AppState,
    caller: Caller,
    cluster: ClusterId,
    bell: tokio::sync::watch::Receiver<i64>,
    after: i64,
    shown: String,
    queue: Vec<Sse>,
    first: bool,
}

/// Server-sent events: `cluster` with the whole cluster whenever it changes, `event` with each new
/// event, `gone` when the cluster is deleted.
#[utoipa::path(get, path = "/api/v1/clusters/{cluster}/events/stream", tag = "events",
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = 401, body = Problem), (status = 404, body = Problem)))]
pub async fn stream(
    State(state): State<AppState>,
    caller: Caller,
    Path(cluster): Path<String>,
) -> Result<axum::response::Sse<impl Stream<Item = Result<Sse, Infallible>>>, Problem> {
    caller.may(Permission::Read)?;
    let mut tx = state.db.read().await?;
    let cluster = tx.cluster_of(&caller.org.id, &cluster).await?;
    let newest = tx.events_before(&cluster.id, i64::MAX, 1).await?;
    drop(tx);
    let follow = Follow {
        bell: state.bell.subscribe(),
        state,
        caller,
        cluster: cluster.id,
        after: newest.first().map_or(0, |event| event.seq),
        shown: String::new(),
        queue: Vec::new(),
        first: true,
    };
    let stream = stream::unfold(Some(follow), |follow| async {
        let mut follow = follow?;
        loop {
            if let Some(event) = follow.queue.pop() {
                return Some((Ok(event), Some(follow)));
            }
            if !std::mem::take(&mut follow.first) && follow.bell.changed().await.is_err() {
                return None;
            }
            match follow.look().await {
                Ok(()) => {}
                Err(problem) if problem.status == 404 => {
                    return Some((Ok(Sse::default().event("gone").data("{}")), None));
                }
                Err(_) => return None,
            }
        }
    });
    Ok(axum::response::Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl Follow {
    /// Queues what is new, last first.
    async fn look(&mut self) -> Result<(), Problem> {
        let id = self.cluster.as_str();
        let cluster = clusters::get(&self.state, &self.caller, id).await?;
        let mut tx = self.state.db.read().await?;
        let events = tx.events_after(&self.cluster, self.after, PAGE).await?;
        let text = serde_json::to_string(&cluster).map_err(|e| Problem::internal(&e))?;
        for event in &events {
            self.after = event.seq;
            let json = serde_json::to_string(&EventView::from(event));
            let json = json.map_err(|e| Problem::internal(&e))?;
            self.queue.push(Sse::default().event("event").id(event.seq.to_string()).data(json));
        }
        if text != self.shown {
            self.queue.push(Sse::default().event("cluster").data(text.clone()));
            self.shown = text;
        }
        self.queue.reverse();
        Ok(())
    }
}
