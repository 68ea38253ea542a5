//! The REST API, `/api/v1`.
//!
//! To add a route: one handler with its `utoipa::path` in the file of its noun, one
//! `.routes(routes!(…))` line in [`v1`]; the OpenAPI document follows, and `openapi.json` beside
//! the crate has to be written again (`MARINA_WRITE_OPENAPI=1 cargo test -p portal`).

pub mod clusters;
pub mod events;
pub mod extract;
pub mod me;
pub mod node_groups;
pub mod region;
pub mod tokens;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::problem::Problem;
use crate::state::AppState;

/// Largest request body, bytes.
pub(crate) const BODY_LIMIT: usize = 64 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Marina",
        description = "Kubernetes clusters as a service. Errors are problem details (RFC 9457). \
            Times are Unix milliseconds. Sign in with `POST /api/v1/sign-in`, or make an API token \
            in the console, and send it as `Authorization: Bearer <token>`.",
        license(name = "Apache-2.0")
    ),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Doc;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// All routes of version 1 and their description.
fn v1() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(me::sign_in))
        .routes(routes!(me::me))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(region::versions))
        .routes(routes!(region::hosts))
        .routes(routes!(clusters::list, clusters::create))
        .routes(routes!(clusters::get, clusters::delete))
        .routes(routes!(clusters::kubeconfig))
        .routes(routes!(node_groups::list, node_groups::create))
        .routes(routes!(node_groups::get, node_groups::scale, node_groups::delete))
        .routes(routes!(node_groups::nodes))
        .routes(routes!(events::list))
        .routes(routes!(events::stream))
}

/// The OpenAPI document.
pub fn document() -> Document {
    v1().split_for_parts().1
}

/// The API, its document, and the probes.
pub fn router(state: AppState) -> Router {
    let (routes, document) = v1().split_for_parts();
    let document = axum::Json(document);
    routes
        .route("/api/v1/openapi.json", get(move || async move { document.clone() }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/{*rest}", axum::routing::any(no_such_route))
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(request_id))
        .with_state(state)
}

/// Ready when the database answers.
async fn ready(State(state): State<AppState>) -> Result<&'static str, Problem> {
    state.db.doorbell().await?;
    Ok("ok\n")
}

async fn no_such_route() -> Problem {
    Problem::not_found("There is no such resource. /api/v1/openapi.json lists all of them.")
}

async fn no_such_method() -> Response {
    let detail = "This resource does not have that method. /api/v1/openapi.json lists what it has.";
    Problem::from_status(StatusCode::METHOD_NOT_ALLOWED, detail).into_response()
}

/// Gives each request an id (or keeps the caller's) and returns it.
async fn request_id(request: Request, next: Next) -> Response {
    const HEADER: HeaderName = HeaderName::from_static("x-request-id");
    let given = request.headers().get(HEADER).cloned();
    let given = given.filter(|id| id.len() <= 64 && id.to_str().is_ok());
    let id = given.unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())
            .expect("a UUID is made of hexadecimal digits and dashes")
    });
    let mut response = next.run(request).await;
    response.headers_mut().insert(HEADER, id);
    response
}
