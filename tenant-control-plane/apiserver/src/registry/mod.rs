//! The registry: carries out verbs on resources, for every kind alike.
//!
//! ```text
//!  request ─► Target (row, namespace, name, subresource)
//!     get, list, watch      ─► read, watch      ─► cache bytes ─► present
//!     create, update, patch ─► decode ─► settle (metadata, defaults, strategy, admission,
//!                              validation)      ─► store transaction ─► present
//!     delete                ─► delete (grace, finalizers, preconditions) ─► store
//!     subresources          ─► sub/*
//!     reviews               ─► review
//! ```

pub mod charge;
pub mod decode;
pub mod delete;
pub mod options;
pub mod patch;
pub mod permission;
pub mod present;
pub mod read;
pub mod review;
pub mod settle;
pub mod sub;
pub mod watch;
pub mod write;

use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use machinery::{GroupResource, GroupVersionKind, Reason, RequestInfo, Status, UserInfo};

use schema::Schema;

use crate::api::Api;
use crate::http::query::Query;
use crate::http::{Request, Response, respond};
use crate::kinds::{Action, Row, Subresource};

/// One request on one resource.
#[derive(Clone)]
pub struct Call {
    /// The server.
    pub api: Arc<Api>,
    /// What is asked for.
    pub info: RequestInfo,
    /// By whom.
    pub user: UserInfo,
    /// The kind.
    pub row: Arc<Row>,
    /// Query parameters.
    pub query: Query,
    /// Request headers.
    pub headers: http::HeaderMap,
    /// Now, as the API writes it.
    pub now: String,
    /// What to tell the client beside the answer.
    pub warnings: Arc<Mutex<Vec<String>>>,
    /// Who is recorded as having set fields.
    pub manager: String,
    /// The object to be written comes from server-side apply and carries its own record of who
    /// set which field.
    pub applying: bool,
}

impl Call {
    /// The resource, without version.
    pub fn resource(&self) -> GroupResource {
        self.row.group_resource()
    }

    /// The row's kind.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind {
            group: self.row.group.to_string(),
            version: self.row.version.to_string(),
            kind: self.row.kind.to_string(),
        }
    }

    /// The subresource asked for.
    pub fn subresource(&self) -> Option<&Subresource> {
        self.row.subresource(&self.info.subresource)
    }

    /// Adds a warning. A write that is tried again gives each of its warnings once. Beyond as many
    /// as can be shown they are dropped.
    pub fn warn(&self, text: impl Into<String>) {
        let (text, mut warnings) =
            (text.into(), self.warnings.lock().expect("no panic while locked"));
        if !text.is_empty() && warnings.len() < respond::WARNINGS && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The table of types that has the row's kind.
    pub fn schema(&self) -> &Schema {
        self.row.types.as_deref().unwrap_or(self.api.schema)
    }

    /// The same call about another object.
    pub fn about(&self, namespace: &str, name: &str) -> Call {
        let mut other = self.clone();
        other.info.namespace = namespace.to_owned();
        other.info.name = name.to_owned();
        other
    }

    /// 422 for this kind.
    pub fn invalid(&self, name: &str, causes: Vec<machinery::Cause>) -> Status {
        Status::invalid(&self.row.group, &self.row.kind, name, causes)
    }
}

/// Answers a resource request that may proceed.
pub async fn handle(
    api: Arc<Api>,
    request: Request,
    info: RequestInfo,
    user: UserInfo,
) -> Response {
    match dispatch(api, request, info, user).await {
        Ok(response) => response,
        Err(status) => respond::error(&status),
    }
}

async fn dispatch(
    api: Arc<Api>,
    request: Request,
    info: RequestInfo,
    user: UserInfo,
) -> Result<Response, Status> {
    let table = api.table.snapshot();
    let row =
        table.find(&info.group, &info.version, &info.resource).ok_or_else(no_resource)?.clone();
    check_scope(&row, &info)?;
    check_names(&info)?;
    let call = Arc::new(Call {
        query: Query::parse(request.uri().query()),
        headers: request.headers().clone(),
        now: crate::clock::now(),
        warnings: Arc::default(),
        manager: field_manager(&request),
        applying: false,
        api,
        info,
        user,
        row,
    });
    // Who is refused is warned too.
    let mut response = route(&call, request).await.unwrap_or_else(|s| respond::error(&s));
    let warnings = std::mem::take(&mut *call.warnings.lock().expect("no panic while locked"));
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// 404 for a path that names nothing.
pub fn no_resource() -> Status {
    Status::new(Reason::NotFound, "the server could not find the requested resource")
}

/// `fieldManager`, or the client's name from its user agent.
fn field_manager(request: &Request) -> String {
    let query = Query::parse(request.uri().query());
    if let Some(name) = query.get("fieldManager").filter(|n| !n.is_empty()) {
        return name.chars().take(128).collect();
    }
    let agent = request.headers().get(http::header::USER_AGENT).and_then(|v| v.to_str().ok());
    let name = agent.unwrap_or_default().split('/').next().unwrap_or_default();
    if name.is_empty() { "unknown".to_owned() } else { name.chars().take(128).collect() }
}

fn check_scope(row: &Row, info: &RequestInfo) -> Result<(), Status> {
    let is_namespace = row.group.is_empty() && row.plural == "namespaces";
    let fits = match (row.namespaced, info.namespace.is_empty()) {
        (false, true) => true,
        (false, false) => is_namespace,
        (true, false) => true,
        // Across namespaces one can read, and post reviews nowhere.
        (true, true) => match info.verb.as_str() {
            "list" | "watch" | "deletecollection" | "create" => info.subresource.is_empty(),
            _ if info.name.is_empty() => return Err(method_not_allowed()),
            _ => false,
        },
    };
    if fits { Ok(()) } else { Err(no_resource()) }
}

/// 400 for names in the path that no object can have.
fn check_names(info: &RequestInfo) -> Result<(), Status> {
    // The name of a list comes from a selector, and finds nothing.
    let is_named = !matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    let name = if is_named { info.name.as_str() } else { "" };
    for (what, text) in [("Namespace", info.namespace.as_str()), ("Name", name)] {
        let why = match text {
            "." | ".." => format!("may not be '{text}'"),
            _ if text.contains('/') => "may not contain '/'".to_owned(),
            _ if text.contains('%') => "may not contain '%'".to_owned(),
            _ if text.contains(char::REPLACEMENT_CHARACTER) => "must be valid UTF-8".to_owned(),
            _ => continue,
        };
        return Err(Status::bad_request(format!("{what} parameter invalid: {text:?}: {why}")));
    }
    Ok(())
}

/// 405 for a path that exists and a method that it does not have.
pub fn method_not_allowed() -> Status {
    Status::new(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

async fn route(call: &Arc<Call>, request: Request) -> Result<Response, Status> {
    if !call.info.subresource.is_empty() {
        let sub = call.subresource().ok_or_else(no_resource)?;
        // A proxy takes what its backend may understand.
        let is_proxied = sub.action == Action::Proxy && request.method() == Method::OPTIONS;
        if !is_proxied && !sub.verbs.allows(&call.info.verb) {
            return Err(method_not_allowed());
        }
        return sub::handle(call, sub.action, request).await;
    }
    if !call.row.verbs.allows(&call.info.verb) {
        return Err(method_not_allowed());
    }
    if let Some(kind) = call.row.review {
        return review::handle(call, kind, request).await;
    }
    let needs_name = matches!(call.info.verb.as_str(), "update" | "patch");
    if needs_name && call.info.name.is_empty() {
        return Err(method_not_allowed());
    }
    match call.info.verb.as_str() {
        "get" => {
            let response = read::get(call).await?;
            let head_only = request.method() == Method::HEAD;
            Ok(if head_only { response.map(|_| streaming::body::empty()) } else { response })
        }
        "list" => read::list(call).await,
        "watch" => watch::watch(call).await,
        "create" => {
            if call.row.namespaced && call.info.namespace.is_empty() || !call.info.name.is_empty() {
                return Err(method_not_allowed());
            }
            write::create(call, request).await
        }
        "update" => write::update(call, request, write::Part::Main).await,
        "patch" => patch::patch(call, request, write::Part::Main).await,
        "delete" => delete::delete(call, request).await,
        "deletecollection" => delete::collection(call, request).await,
        _ => Err(method_not_allowed()),
    }
}

/// `Status` with `status: Success`.
pub fn success(details: serde_json::Value) -> Response {
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    respond::json(StatusCode::OK, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_object_has_are_a_bad_request() {
        let code = |verb: Method, path: &str| {
            let info = crate::http::request_info::parse(&verb, &path.parse().unwrap());
            check_names(&info).map_or_else(|status| status.code, |()| 200)
        };
        for path in [
            "/api/v1/namespaces/%ff/pods",
            "/api/v1/namespaces/a/pods/%ff",
            "/api/v1/namespaces/a%2Fb/pods",
            "/api/v1/namespaces/a/pods/a%25b",
            "/api/v1/namespaces/a/pods/%2e%2e",
            "/api/v1/nodes/a%2Fb",
        ] {
            assert_eq!(code(Method::GET, path), 400, "{path}");
        }
        for path in [
            "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Da%2Fb",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "/api/v1/namespaces/a/services/https:s:1/proxy/x%2Fy/%ff",
        ] {
            assert_eq!(code(Method::GET, path), 200, "{path}");
        }
    }
}
