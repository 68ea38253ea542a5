//! What happened, and where things run.

use askama::Template;
use axum::extract::State;

use super::cluster::Events;
use super::filters;
use super::page::{self, Page, Shown};
use super::session::Session;
use crate::identity::Permission;
use crate::state::AppState;
use crate::view::{EventView, HostView};

/// Events on the page.
const EVENTS: i64 = 200;

#[derive(Template)]
#[template(path = "activity.html")]
struct ActivityPage {
    page: Page,
    events: String,
}

pub(super) async fn activity(State(state): State<AppState>, session: Session) -> Shown {
    session.caller.may(Permission::Read)?;
    let org = &session.caller.org.id;
    let events = state.db.read().await?.events_of_org(org, i64::MAX, EVENTS).await?;
    let events = Events { events: events.iter().map(EventView::from).collect() };
    let events = page::part(&events)?;
    page::show(&ActivityPage { page: Page::new("activity", session), events })
}

#[derive(Template)]
#[template(path = "hosts.html")]
struct HostsPage {
    page: Page,
    hosts: Vec<HostView>,
}

pub(super) async fn hosts(State(state): State<AppState>, session: Session) -> Shown {
    session.caller.may(Permission::Operate)?;
    let hosts = state.db.read().await?.hosts().await?;
    let hosts = hosts.iter().map(HostView::from).collect();
    page::show(&HostsPage { page: Page::new("hosts", session), hosts })
}
