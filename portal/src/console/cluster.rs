//! One cluster: state, workers, events, and what can be done with it.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;

use super::extract::{Form, Path};
use super::filters;
use super::page::{self, Page, Shown};
use super::session::Session;
use crate::actions::{clusters, kubeconfig as kubeconfigs, node_groups};
use crate::api::clusters::kubeconfig_headers;
use crate::identity::{Caller, Permission};
use crate::input::node_group::{NewNodeGroup, ScaleNodeGroup};
use crate::problem::{FieldError, Problem};
use crate::state::AppState;
use crate::view::{ClusterView, EventView, NodeGroupView, NodeView};

/// Events on the page.
const EVENTS: i64 = 30;

#[derive(Template)]
#[template(path = "parts/status.html")]
struct Status<'a> {
    cluster: &'a ClusterView,
}

#[derive(Template)]
#[template(path = "parts/groups.html")]
struct Groups {
    id: String,
    csrf: String,
    groups: Vec<NodeGroupView>,
}

#[derive(Template)]
#[template(path = "parts/nodes.html")]
struct Nodes {
    nodes: Vec<NodeView>,
}

#[derive(Template)]
#[template(path = "parts/events.html")]
pub(super) struct Events {
    pub events: Vec<EventView>,
}

/// The live parts of the page, by region.
pub(super) async fn parts(
    state: &AppState,
    caller: &Caller,
    csrf: &str,
    id: &str,
) -> Result<(ClusterView, [(&'static str, String); 4]), Problem> {
    caller.may(Permission::Read)?;
    let cluster = clusters::get(state, caller, id).await?;
    let groups = node_groups::list(state, caller, &cluster.id).await?;
    let nodes = node_groups::nodes(state, caller, &cluster.id).await?;
    let cluster_id = cluster.id.as_str().into();
    let events = state.db.read().await?.events_before(&cluster_id, i64::MAX, EVENTS).await?;
    let events = events.iter().map(EventView::from).collect();
    let groups = Groups { id: cluster.id.clone(), csrf: csrf.to_owned(), groups };
    let regions = [
        ("status", page::part(&Status { cluster: &cluster })?),
        ("groups", page::part(&groups)?),
        ("nodes", page::part(&Nodes { nodes })?),
        ("events", page::part(&Events { events })?),
    ];
    Ok((cluster, regions))
}

/// The node-group form as somebody filled it in.
#[derive(Deserialize)]
pub(super) struct GroupForm {
    #[serde(default)]
    csrf: String,
    name: String,
    count: i64,
    driver: String,
    vcpus: i64,
    memory_mib: i64,
    disk_gib: i64,
    #[serde(skip)]
    problem: Option<String>,
}

impl GroupForm {
    fn fresh(cluster: &ClusterView) -> Self {
        Self {
            csrf: String::new(),
            name: "workers".to_owned(),
            count: 2,
            driver: cluster.driver.clone(),
            vcpus: 1,
            memory_mib: 1024,
            disk_gib: 10,
            problem: None,
        }
    }

    fn to_new(&self) -> NewNodeGroup {
        NewNodeGroup {
            name: self.name.trim().to_owned(),
            count: self.count,
            driver: Some(self.driver.clone()),
            vcpus: Some(self.vcpus),
            memory_mib: Some(self.memory_mib),
            disk_gib: Some(self.disk_gib),
            labels: Default::default(),
            taints: Vec::new(),
        }
    }
}

#[derive(Template)]
#[template(path = "cluster.html")]
struct ClusterPage {
    page: Page,
    cluster: ClusterView,
    status: String,
    groups: String,
    nodes: String,
    events: String,
    form: GroupForm,
    problem: Option<String>,
}

async fn render(
    state: &AppState,
    session: Session,
    id: &str,
    form: Option<GroupForm>,
    problem: Option<String>,
) -> Result<ClusterPage, Problem> {
    let (cluster, regions) = parts(state, &session.caller, &session.csrf, id).await?;
    let [(_, status), (_, groups), (_, nodes), (_, events)] = regions;
    let form = form.unwrap_or_else(|| GroupForm::fresh(&cluster));
    let page = Page::new("clusters", session);
    Ok(ClusterPage { page, cluster, status, groups, nodes, events, form, problem })
}

pub(super) async fn show(
    State(state): State<AppState>,
    session: Session,
    Path(id): Path<String>,
) -> Shown {
    page::show(&render(&state, session, &id, None, None).await?)
}

pub(super) async fn create_group(
    State(state): State<AppState>,
    session: Session,
    Path(id): Path<String>,
    Form(mut form): Form<GroupForm>,
) -> Shown {
    session.check(&form.csrf)?;
    let new = form.to_new();
    match node_groups::create(&state, &session.caller, &id, &new, None).await {
        Ok(_) => Ok(back(&id).into_response()),
        Err(problem) if problem.status < 500 => {
            form.problem = Some(problem.detail.clone());
            page::refused(&render(&state, session, &id, Some(form), None).await?, &problem)
        }
        Err(problem) => Err(problem.into()),
    }
}

#[derive(Deserialize)]
pub(super) struct ScaleForm {
    csrf: String,
    count: i64,
}

pub(super) async fn scale_group(
    State(state): State<AppState>,
    session: Session,
    Path((id, group)): Path<(String, String)>,
    Form(form): Form<ScaleForm>,
) -> Shown {
    session.check(&form.csrf)?;
    let change = ScaleNodeGroup { count: form.count };
    let result =
        node_groups::scale(&state, &session.caller, &id, &group, &change, None).await.map(drop);
    done(&state, session, &id, result).await
}

#[derive(Deserialize)]
pub(super) struct DeleteForm {
    csrf: String,
    #[serde(default)]
    confirm: String,
}

pub(super) async fn delete_group(
    State(state): State<AppState>,
    session: Session,
    Path((id, group)): Path<(String, String)>,
    Form(form): Form<DeleteForm>,
) -> Shown {
    session.check(&form.csrf)?;
    let result = node_groups::delete(&state, &session.caller, &id, &group, None).await.map(drop);
    done(&state, session, &id, result).await
}

pub(super) async fn delete(
    State(state): State<AppState>,
    session: Session,
    Path(id): Path<String>,
    Form(form): Form<DeleteForm>,
) -> Shown {
    session.check(&form.csrf)?;
    let cluster = clusters::get(&state, &session.caller, &id).await?;
    let result = if form.confirm.trim() == cluster.name {
        clusters::delete(&state, &session.caller, &id, None).await.map(drop)
    } else {
        let message = format!("must be the cluster's name, {}.", cluster.name);
        Err(Problem::invalid(vec![FieldError::new("confirm", message)]))
    };
    done(&state, session, &id, result).await
}

pub(super) async fn kubeconfig(
    State(state): State<AppState>,
    session: Session,
    Path(id): Path<String>,
) -> Shown {
    let ttl = kubeconfigs::DEFAULT_TTL_HOURS;
    match kubeconfigs::mint(&state, &session.caller, &id, ttl).await {
        Ok((name, yaml)) => Ok((kubeconfig_headers(&name), yaml).into_response()),
        Err(problem) => done(&state, session, &id, Err(problem)).await,
    }
}

/// Back to the cluster's page, or the page with what went wrong.
async fn done(state: &AppState, session: Session, id: &str, result: Result<(), Problem>) -> Shown {
    match result {
        Ok(()) => Ok(back(id).into_response()),
        Err(problem) if problem.status < 500 && problem.status != 404 => {
            let detail = problem.detail.clone();
            page::refused(&render(state, session, id, None, Some(detail)).await?, &problem)
        }
        Err(problem) => Err(problem.into()),
    }
}

fn back(id: &str) -> Redirect {
    Redirect::to(&format!("/clusters/{id}"))
}
