//! The list of clusters, and the form for a new one.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect};
use marina_db::clusters::ClusterSpec;
use marina_db::versions::VersionState;
use serde::Deserialize;

use super::extract::Form;
use super::filters;
use super::page::{self, Page, Shown};
use super::session::Session;
use crate::actions::clusters as actions;
use crate::identity::Caller;
use crate::input::cluster::NewCluster;
use crate::problem::Problem;
use crate::state::AppState;
use crate::view::{ClusterView, VersionView};

#[derive(Template)]
#[template(path = "parts/clusters.html")]
struct List {
    clusters: Vec<ClusterView>,
}

/// The live part of the list.
pub(super) async fn list_part(state: &AppState, caller: &Caller) -> Result<String, Problem> {
    page::part(&List { clusters: actions::list(state, caller).await? })
}

#[derive(Template)]
#[template(path = "clusters.html")]
struct ListPage {
    page: Page,
    list: String,
}

pub(super) async fn list(State(state): State<AppState>, session: Session) -> Shown {
    let list = list_part(&state, &session.caller).await?;
    page::show(&ListPage { page: Page::new("clusters", session), list })
}

/// The form as somebody filled it in.
#[derive(Default, Deserialize)]
pub(super) struct ClusterForm {
    #[serde(default)]
    csrf: String,
    name: String,
    version: Option<String>,
    #[serde(default)]
    control_plane: String,
    #[serde(default)]
    driver: String,
    #[serde(default)]
    pod_cidr: String,
    #[serde(default)]
    service_cidr: String,
    #[serde(default)]
    vpc_cidr: String,
    #[serde(skip)]
    refused: Option<Problem>,
}

impl ClusterForm {
    fn fresh() -> Self {
        let spec = ClusterSpec::named("");
        Self {
            pod_cidr: spec.pod_cidr,
            service_cidr: spec.service_cidr,
            vpc_cidr: spec.vpc_cidr,
            ..Self::default()
        }
    }

    /// What is wrong with a field.
    fn error(&self, field: &str) -> Option<&str> {
        let errors = &self.refused.as_ref()?.errors;
        errors.iter().find(|error| error.field == field).map(|error| error.message.as_str())
    }

    /// What is wrong with the form as a whole.
    fn problem(&self) -> Option<&str> {
        let refused = self.refused.as_ref()?;
        refused.errors.is_empty().then_some(refused.detail.as_str())
    }

    fn networks(&self) -> [(&'static str, &'static str, &str); 3] {
        [
            ("pod_cidr", "Pods", &self.pod_cidr),
            ("service_cidr", "Services", &self.service_cidr),
            ("vpc_cidr", "Workers", &self.vpc_cidr),
        ]
    }

    fn has_network_errors(&self) -> bool {
        self.networks().iter().any(|(field, _, _)| self.error(field).is_some())
    }

    fn to_new(&self) -> NewCluster {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        NewCluster {
            name: self.name.trim().to_owned(),
            version: self.version.clone(),
            control_plane: given(&self.control_plane),
            driver: given(&self.driver),
            pod_cidr: given(&self.pod_cidr),
            service_cidr: given(&self.service_cidr),
            vpc_cidr: given(&self.vpc_cidr),
        }
    }
}

#[derive(Template)]
#[template(path = "cluster_new.html")]
struct NewPage {
    page: Page,
    versions: Vec<VersionView>,
    form: ClusterForm,
}

async fn versions(state: &AppState) -> Result<Vec<VersionView>, Problem> {
    let versions = state.db.read().await?.versions().await?;
    let offered = versions.iter().filter(|version| version.state == VersionState::Offered);
    Ok(offered.map(VersionView::from).collect())
}

pub(super) async fn new(State(state): State<AppState>, session: Session) -> Shown {
    let (versions, form) = (versions(&state).await?, ClusterForm::fresh());
    page::show(&NewPage { page: Page::new("clusters", session), versions, form })
}

pub(super) async fn create(
    State(state): State<AppState>,
    session: Session,
    Form(mut form): Form<ClusterForm>,
) -> Shown {
    session.check(&form.csrf)?;
    match actions::create(&state, &session.caller, &form.to_new(), None).await {
        Ok(cluster) => Ok(Redirect::to(&format!("/clusters/{}", cluster.id)).into_response()),
        Err(problem) if problem.status < 500 => {
            form.refused = Some(problem.clone());
            let versions = versions(&state).await?;
            let page = NewPage { page: Page::new("clusters", session), versions, form };
            page::refused(&page, &problem)
        }
        Err(problem) => Err(problem.into()),
    }
}
