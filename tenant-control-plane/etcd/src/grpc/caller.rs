//! Who a request comes from.

use std::sync::Arc;

use etcd_api::error::EtcdError;
use http::Extensions;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::access::token;
use crate::node::Node;
use crate::pb;

/// The common name of the certificate that a client has shown; an extension of each of its
/// requests.
#[derive(Debug, Clone)]
pub struct CommonName(pub Arc<str>);

/// What a request brings along that says who sent it.
#[derive(Debug, Clone)]
pub struct Credentials {
    token: Option<String>,
    common_name: Option<CommonName>,
}

impl Credentials {
    /// Those of a request.
    pub fn of<T>(r: &Request<T>) -> Self {
        Self::from_parts(r.metadata(), r.extensions())
    }

    fn from_parts(metadata: &MetadataMap, extensions: &Extensions) -> Self {
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        let token = text("token").or_else(|| text("authorization"));
        // A gateway's certificate is not that of whom it speaks for.
        let is_direct = metadata.get("grpcgateway-accept").is_none();
        Self {
            token: token.map(|t| t.strip_prefix("Bearer ").unwrap_or(t).to_owned()),
            common_name: extensions.get::<CommonName>().filter(|_| is_direct).cloned(),
        }
    }

    /// Who it is, as of now. Nobody while authentication is off.
    pub async fn caller(&self, node: &Node) -> Result<Option<pb::Caller>, Status> {
        if !node.machine.is_guarded() {
            return Ok(None);
        }
        // First: what changes after it makes the request fail rather than pass.
        let revision = node.machine.read().access.revision;
        if let (Some(token), Some(jwt)) = (&self.token, &node.config.jwt) {
            let (user, made_at) = jwt.verify(token).ok_or(EtcdError::InvalidAuthToken)?;
            return match made_at < revision {
                true => Err(EtcdError::AuthOldRevision.into()),
                false => Ok(Some(pb::Caller { user, revision: made_at, internal: false })),
            };
        }
        if let Some(token) = &self.token {
            let user = user_of(node, token).await.ok_or(EtcdError::InvalidAuthToken)?;
            return Ok(Some(pb::Caller { user, revision, internal: false }));
        }
        let user = match &self.common_name {
            Some(CommonName(name)) if node.config.client_cert_auth => name.to_string(),
            _ => return Ok(Some(pb::Caller::default())),
        };
        Ok(Some(pb::Caller { user, revision, internal: false }))
    }
}

/// Waits until the login that made the token has been applied here.
async fn user_of(node: &Node, token: &str) -> Option<String> {
    let ttl = node.config.token_ttl;
    if let Some(user) = node.machine.tokens.user_of(token, ttl) {
        return Some(user);
    }
    let applied = node.machine.wait_applied(token::index_of(token)?);
    tokio::time::timeout(node.request_timeout(), applied).await.ok()?;
    node.machine.tokens.user_of(token, ttl)
}

/// Who sent a request.
pub async fn caller<T>(node: &Node, r: &Request<T>) -> Result<Option<pb::Caller>, Status> {
    match node.machine.is_guarded() {
        true => Credentials::of(r).caller(node).await,
        false => Ok(None),
    }
}

/// Refuses who may not do everything.
pub async fn administrator<T>(node: &Node, r: &Request<T>) -> Result<Option<pb::Caller>, Status> {
    let caller = caller(node, r).await?;
    node.machine.read().access.may_administer(caller.as_ref())?;
    Ok(caller)
}

/// Refuses who is not known.
pub async fn somebody<T>(node: &Node, r: &Request<T>) -> Result<Option<pb::Caller>, Status> {
    let caller = caller(node, r).await?;
    node.machine.read().access.must_be_named(caller.as_ref())?;
    Ok(caller)
}
