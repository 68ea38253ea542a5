//! Pages that follow what happens: server-sent events with the regions that changed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::{Stream, stream};
use tokio::sync::watch;

use super::extract::Path;
use super::session::Session;
use super::{cluster as cluster_page, clusters as clusters_page};
use crate::problem::Problem;
use crate::state::AppState;

/// Pause between two comments that keep a quiet stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Shortest time between two renderings for one page: a burst of changes is shown once.
const BURST: Duration = Duration::from_millis(80);

struct Follow {
    state: AppState,
    session: Session,
    /// The cluster of a cluster's page; `None` on the list.
    cluster: Option<String>,
    bell: watch::Receiver<i64>,
    shown: BTreeMap<&'static str, String>,
    first: bool,
}

impl Follow {
    async fn regions(&self) -> Result<Vec<(&'static str, String)>, Problem> {
        let (caller, csrf) = (&self.session.caller, &self.session.csrf);
        match &self.cluster {
            Some(id) => {
                let (_, regions) = cluster_page::parts(&self.state, caller, csrf, id).await?;
                Ok(regions.into())
            }
            None => Ok(vec![("clusters", clusters_page::list_part(&self.state, caller).await?)]),
        }
    }

    /// The regions that differ from what the page shows.
    async fn look(&mut self) -> Result<Option<Event>, Problem> {
        let mut changed = BTreeMap::new();
        for (name, html) in self.regions().await? {
            if self.shown.get(name) != Some(&html) {
                self.shown.insert(name, html.clone());
                changed.insert(name, html);
            }
        }
        if changed.is_empty() {
            return Ok(None);
        }
        let json = serde_json::to_string(&changed).map_err(|e| Problem::internal(&e))?;
        Ok(Some(Event::default().event("regions").data(json)))
    }
}

fn follow(
    state: AppState,
    session: Session,
    cluster: Option<String>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let bell = state.bell.subscribe();
    let follow = Follow { bell, state, session, cluster, shown: BTreeMap::new(), first: true };
    let stream = stream::unfold(Some(follow), |follow| async {
        let mut follow = follow?;
        loop {
            if !std::mem::take(&mut follow.first) {
                follow.bell.changed().await.ok()?;
                tokio::time::sleep(BURST).await;
                follow.bell.mark_unchanged();
            }
            match follow.look().await {
                Ok(Some(event)) => return Some((Ok(event), Some(follow))),
                Ok(None) => {}
                Err(problem) if problem.status == 404 => {
                    return Some((Ok(Event::default().event("gone").data("{}")), None));
                }
                Err(_) => return None,
            }
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

pub(super) async fn clusters(
    State(state): State<AppState>,
    session: Session,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    follow(state, session, None)
}

pub(super) async fn cluster(
    State(state): State<AppState>,
    session: Session,
    Path(id): Path<String>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    follow(state, session, Some(id))
}
