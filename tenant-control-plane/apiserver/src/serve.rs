//! The stack of stages that every request passes, and where it ends.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use machinery::{RequestInfo, Status, UserInfo};
use tower::ServiceBuilder;

use crate::api::Api;
use crate::http::connection::Peer;
use crate::http::query::Query;
use crate::http::stack::{Next, Stage, innermost, pass};
use crate::http::{Request, Response, request_info, respond};
use crate::metrics::Labels;
use crate::{aggregation, discovery, health, registry};

/// Builds the stack.
pub fn stack(api: Arc<Api>) -> Next {
    let (a, b, c, d, e) = (api.clone(), api.clone(), api.clone(), api.clone(), api.clone());
    ServiceBuilder::new()
        .layer(Stage(move |request, next| describe(a.clone(), request, next)))
        .layer(Stage(move |request, next| authenticate(b.clone(), request, next)))
        .layer(Stage(move |request, next| limit(e.clone(), request, next)))
        .layer(Stage(move |request, next| impersonate(c.clone(), request, next)))
        .layer(Stage(move |request, next| authorize(d.clone(), request, next)))
        .service(innermost(move |request| dispatch(api.clone(), request)))
}

fn info_of(request: &Request) -> RequestInfo {
    request.extensions().get::<RequestInfo>().cloned().unwrap_or_default()
}

fn user_of(request: &Request) -> UserInfo {
    request.extensions().get::<UserInfo>().cloned().unwrap_or_default()
}

/// Parses the URL, counts and logs the request, and stamps the response.
async fn describe(api: Arc<Api>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let info = request_info::parse(request.method(), request.uri());
    let method = request.method().clone();
    request.extensions_mut().insert(info.clone());
    let gauge = api.metrics.request_started();
    let mut response = pass(next, request).await;
    drop(gauge);
    let took = start.elapsed();
    let code = response.status().as_u16();
    tracing::debug!(
        http.method = %method, http.path = info.path, http.code = code,
        took_ms = took.as_millis() as u64, "answered"
    );
    let id = uuid::Uuid::new_v4().to_string();
    if let Ok(value) = id.parse() {
        response.headers_mut().insert("audit-id", value);
    }
    if info.is_resource_request && code != 404 || !info.is_resource_request && code == 200 {
        let labels = Labels {
            verb: info.verb.to_uppercase(),
            group: info.group,
            version: info.version,
            resource: info.resource,
            subresource: info.subresource,
            code,
        };
        api.metrics.answered(labels, took);
    }
    response
}

async fn authenticate(api: Arc<Api>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let certificates = peer.map(|p| p.certificates.clone()).unwrap_or_default();
    match api.authenticator.authenticate(request.headers(), &certificates) {
        Ok(Some(user)) => {
            request.extensions_mut().insert(user);
            pass(next, request).await
        }
        Ok(None) => respond::error(&Status::unauthorized()),
        Err(status) => respond::error(&status),
    }
}

/// Keeps the number of requests at work bounded. The administrators' group is never turned away.
async fn limit(api: Arc<Api>, request: Request, next: Next) -> Response {
    let info = info_of(&request);
    let exempt = user_of(&request).in_group("system:masters");
    if exempt || !info.is_resource_request {
        return pass(next, request).await;
    }
    let goes_on = api.aggregation.server_of(&api.caches, &info.path).is_some();
    match api.limits.enter(&info, goes_on).await {
        Ok(place) => {
            let response = pass(next, request).await;
            drop(place);
            response
        }
        Err(status) => respond::error(&status),
    }
}

async fn impersonate(api: Arc<Api>, mut request: Request, next: Next) -> Response {
    let user = user_of(&request);
    match auth::impersonation::impersonate(&api.authorizer, &user, request.headers()) {
        Ok(Some(other)) => {
            request.extensions_mut().insert(other);
        }
        Ok(None) => {}
        Err(status) => return respond::error(&status),
    }
    // What proved the caller's identity goes no further.
    let secrets: Vec<_> = request
        .headers()
        .keys()
        .filter(|n| auth::authn::is_credential_header(n))
        .cloned()
        .collect();
    for name in secrets {
        request.headers_mut().remove(name);
    }
    pass(next, request).await
}

async fn authorize(api: Arc<Api>, request: Request, next: Next) -> Response {
    let (user, info) = (user_of(&request), info_of(&request));
    match api.authorizer.check(&user, &info) {
        Ok(()) => pass(next, request).await,
        Err(status) => respond::error(&status),
    }
}

async fn dispatch(api: Arc<Api>, request: Request) -> Response {
    let (info, user) = (info_of(&request), user_of(&request));
    if let Some(server) = api.aggregation.server_of(&api.caches, &info.path) {
        return aggregation::forward(&api, request, &info, &server, &user).await;
    }
    if info.is_resource_request {
        return registry::handle(api, request, info, user).await;
    }
    let path = info.path.as_str();
    let query = Query::parse(request.uri().query());
    let first = path.trim_matches('/').split('/').next().unwrap_or_default();
    let is_read = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
    if !is_read {
        let exists = matches!(first, "healthz" | "livez" | "readyz" | "metrics")
            || discovery::handle(&api, request.headers(), path).is_some();
        return respond::error(&match exists {
            true => registry::method_not_allowed(),
            false => registry::no_resource(),
        });
    }
    match first {
        "healthz" | "livez" | "readyz" => health::handle(api, info.path.clone(), query).await,
        "metrics" => {
            let caches = api.caches.all();
            let counts: Vec<_> = caches
                .iter()
                .map(|c| (c.prefix.trim_start_matches("/registry/").to_owned(), c.len()))
                .collect();
            respond::bytes(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                api.metrics.render(&counts),
            )
        }
        _ => match discovery::handle(&api, request.headers(), path) {
            Some(response) => response,
            None => respond::error(&registry::no_resource()),
        },
    }
}
