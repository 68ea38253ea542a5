//! Who asks the kubelet, and whether he may.

use http::{HeaderMap, Method, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use rustls::ServerConnection;
use x509_parser::prelude::*;

use crate::config::AuthorizationMode;
use crate::node::Node;

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// The caller that the connection's client certificate names (verified by then).
pub fn from_certificate(connection: &ServerConnection) -> Option<Caller> {
    let first = connection.peer_certificates()?.first()?;
    let (_, cert) = X509Certificate::from_der(first).ok()?;
    let subject = cert.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    Some(Caller { user, groups })
}

/// The Node subresource that a path stands for.
pub fn subresource(path: &str) -> &'static str {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        _ => "proxy",
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

async fn from_token(node: &Node, headers: &HeaderMap) -> Option<Caller> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ")?.trim();
    if token.is_empty() || !node.config.authentication_webhook {
        return None;
    }
    let api: Api<TokenReview> = Api::all(node.client.clone());
    let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: None };
    let review = TokenReview { spec, ..Default::default() };
    let status = api.create(&PostParams::default(), &review).await.ok()?.status?;
    let user = status.user.filter(|_| status.authenticated == Some(true))?;
    Some(Caller { user: user.username?, groups: user.groups.unwrap_or_default() })
}

/// Lets the request through, or answers with the status to refuse it with.
///
/// # Errors
/// 401 for a caller without identity, 403 for one who may not.
pub async fn check(
    node: &Node,
    certificate: Option<&Caller>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), (StatusCode, String)> {
    let caller = match certificate {
        Some(caller) => caller.clone(),
        None => from_token(node, headers)
            .await
            .ok_or((StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()))?,
    };
    let all = node.config.authorization == AuthorizationMode::AlwaysAllow;
    if all || caller.groups.iter().any(|g| g == "system:masters") {
        return Ok(());
    }
    let subresource = subresource(path);
    let attributes = ResourceAttributes {
        verb: Some(verb(method).to_owned()),
        version: Some("v1".into()),
        resource: Some("nodes".into()),
        subresource: Some(subresource.to_owned()),
        name: Some(node.facts.name.clone()),
        ..Default::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(caller.user.clone()),
        groups: Some(caller.groups),
        resource_attributes: Some(attributes),
        ..Default::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(node.client.clone());
    let review = SubjectAccessReview { spec, ..Default::default() };
    match api.create(&PostParams::default(), &review).await {
        Ok(answer) if answer.status.as_ref().is_some_and(|s| s.allowed) => Ok(()),
        Ok(_) => {
            let (user, verb) = (&caller.user, verb(method));
            let what = format!(
                "Forbidden (user={user}, verb={verb}, resource=nodes, subresource={subresource})"
            );
            Err((StatusCode::FORBIDDEN, what))
        }
        Err(error) => {
            Err((StatusCode::INTERNAL_SERVER_ERROR, format!("Authorization error: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_subresources() {
        assert_eq!(subresource("/stats/summary"), "stats");
        assert_eq!(subresource("/metrics/resource"), "metrics");
        assert_eq!(subresource("/logs/"), "log");
        assert_eq!(subresource("/exec/a/b/c"), "proxy");
    }
}
