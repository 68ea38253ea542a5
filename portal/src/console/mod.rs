//! The console: server-rendered pages that work without JavaScript, and are live with it.
//!
//! Marks for browser tests (`data-testid`): `login`, `password`, `sign-in`; `old-password`,
//! `new-password`, `change-password`; `new-cluster`, `cluster-form` with `name`, `version`, `ha`,
//! `driver-sandbox`, `create`; on a cluster's page `phase`, `add-group`, `group-name`,
//! `group-count`, `group-driver`, `create-group`, `node` (with `data-phase`), `kubeconfig`,
//! `confirm`, `delete`; `token-name`, `create-token`, `minted`; `sign-out`.
//!
//! To add a page: a template, a handler in the file of its noun, a line in [`router`].

mod activity;
mod assets;
mod cluster;
mod clusters;
mod door;
mod extract;
mod filters;
mod live;
mod page;
mod session;
mod tokens;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::api::BODY_LIMIT;
use crate::problem::Problem;
use crate::state::AppState;

/// Nothing but what this server sends, nothing inline, never in a frame.
const CSP: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// All pages.
pub(crate) fn router(state: AppState) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::to("/clusters") }))
        .route("/sign-in", get(door::sign_in_page).post(door::sign_in))
        .route("/sign-out", post(door::sign_out))
        .route("/password", get(door::password_page).post(door::change_password))
        .route("/clusters", get(clusters::list).post(clusters::create))
        .route("/clusters/new", get(clusters::new))
        .route("/clusters/{cluster}", get(cluster::show))
        .route("/clusters/{cluster}/delete", post(cluster::delete))
        .route("/clusters/{cluster}/kubeconfig", get(cluster::kubeconfig))
        .route("/clusters/{cluster}/node-groups", post(cluster::create_group))
        .route("/clusters/{cluster}/node-groups/{group}/scale", post(cluster::scale_group))
        .route("/clusters/{cluster}/node-groups/{group}/delete", post(cluster::delete_group))
        .route("/live/clusters", get(live::clusters))
        .route("/live/clusters/{cluster}", get(live::cluster))
        .route("/activity", get(activity::activity))
        .route("/hosts", get(activity::hosts))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{token}/revoke", post(tokens::revoke))
        .route("/assets/{hash}/{name}", get(assets::get))
        .fallback(|| async { page::error(Problem::not_found("There is no such page.")) })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(guard))
        .with_state(state)
}

/// Refuses forms that another site sent, and adds the security headers.
async fn guard(request: Request, next: Next) -> Response {
    let changes = request.method() != Method::GET && request.method() != Method::HEAD;
    let mut response = if changes && !same_origin(request.headers()) {
        let detail = "This form was sent from another site. Open the console and try again.";
        page::error(Problem::forbidden(detail)).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What the browser says about who sends a request. Requests without any word of it come from
/// programs, which have no cookies to abuse.
fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, authority)| authority == host)
        }
        (None, _) => true,
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_sites_own_forms_are_taken() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| {
                    (header::HeaderName::from_static(name), HeaderValue::from_static(value))
                })
                .collect::<HeaderMap>()
        };
        assert!(same_origin(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(!same_origin(&headers(&[("sec-fetch-site", "cross-site")])));
        assert!(same_origin(&headers(&[("origin", "http://a:1"), ("host", "a:1")])));
        assert!(!same_origin(&headers(&[("origin", "http://b:1"), ("host", "a:1")])));
        assert!(!same_origin(&headers(&[("origin", "null"), ("host", "a:1")])));
    }
}
