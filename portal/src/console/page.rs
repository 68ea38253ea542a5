//! What all pages share.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

use super::assets;
use super::session::Session;
use crate::identity::Caller;
use crate::problem::Problem;

/// The frame of a page for a signed-in person.
pub(super) struct Page {
    /// Highlighted in the navigation.
    pub section: &'static str,
    /// For forms.
    pub csrf: String,
    /// Who is signed in.
    pub caller: Caller,
}

impl Page {
    pub fn new(section: &'static str, session: Session) -> Self {
        Self { section, csrf: session.csrf, caller: session.caller }
    }

    /// Address of an asset.
    pub fn asset(&self, name: &str) -> String {
        assets::url(name)
    }
}

/// A problem as a page.
pub(super) struct Failure(Problem);

impl<E: Into<Problem>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        error(self.0).into_response()
    }
}

/// Result of a page's handler.
pub(super) type Shown<T = Response> = Result<T, Failure>;

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    problem: Problem,
    css: String,
}

/// The page that shows a problem.
pub(super) fn error(problem: Problem) -> impl IntoResponse {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let page = ErrorPage { problem, css: assets::url("app.css") };
    (status, Html(page.render().unwrap_or_default()))
}

/// A rendered part of a page.
pub(super) fn part(template: &impl Template) -> Result<String, Problem> {
    template.render().map_err(|error| Problem::internal(&error))
}

/// A rendered page.
pub(super) fn show(template: &impl Template) -> Shown {
    Ok(Html(part(template)?).into_response())
}

/// A page that shows what was wrong with a form.
pub(super) fn refused(template: &impl Template, problem: &Problem) -> Shown {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    Ok((status, Html(part(template)?)).into_response())
}
