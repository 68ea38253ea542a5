//! What every request can reach: the server's parts, put together once.

use std::sync::Arc;

use admission::{Attributes, Chain, Charge};
use auth::token::Issuer;
use auth::{Authenticator, Authorizer};
use machinery::{GroupVersionKind, GroupVersionResource, Status};
use schema::Schema;
use serde_json::Value;
use streaming::NodeClient;
use tokio_util::sync::CancellationToken;

use crate::alloc::ServiceAllocator;
use crate::cache::{Caches, ResourceCache};
use crate::config::Config;
use crate::discovery::openapi::Documents;
use crate::health::Health;
use crate::http::limit::Limits;
use crate::kinds::{Row, Table};
use crate::metrics::Metrics;
use crate::registry::charge::Turns;
use crate::registry::{Call, no_resource};
use crate::store::Store;

/// The server.
pub struct Api {
    /// Settings.
    pub config: Config,
    /// Kinds.
    pub table: Arc<Table>,
    /// Shapes of the built-in kinds.
    pub schema: &'static Schema,
    /// etcd.
    pub store: Arc<Store>,
    /// Everything in etcd, in memory.
    pub caches: Arc<Caches>,
    /// Who?
    pub authenticator: Authenticator,
    /// May he?
    pub authorizer: Arc<Authorizer>,
    /// May it be so?
    pub admission: Chain,
    /// Signs ServiceAccount tokens, if there is a key.
    pub issuer: Option<Issuer>,
    /// Cluster IPs and node ports.
    pub services: ServiceAllocator,
    /// Who raises the quotas of a namespace.
    pub turns: Turns,
    /// Way to kubelets, pods and Services.
    pub node_client: Arc<NodeClient>,
    /// OpenAPI documents.
    pub documents: Documents,
    /// Places for requests.
    pub limits: Limits,
    /// Counters.
    pub metrics: Metrics,
    /// Checks.
    pub health: Health,
    /// Cancelled when watches have to end.
    pub stopping: CancellationToken,
}

impl Api {
    /// The cache of a row.
    pub fn cache(&self, row: &Row) -> Result<Arc<ResourceCache>, Status> {
        self.caches.of(row).ok_or_else(no_resource)
    }

    /// Lets admission change an object. `subresource` is what is written, `old` the stored object.
    pub fn admit(
        &self,
        call: &Call,
        gvk: &GroupVersionKind,
        subresource: &str,
        old: Option<&Value>,
        object: &mut Value,
        dry_run: bool,
    ) -> Result<(), Status> {
        let gvr = gvr(call);
        let name = name(call, old, Some(object));
        let attributes = attributes(call, &gvr, gvk, subresource, &name, old, dry_run);
        let warnings = self.admission.mutate(&attributes, object)?;
        warnings.into_iter().for_each(|w| call.warn(w));
        Ok(())
    }

    /// What storing a new object adds to the quotas of its namespace.
    pub fn charges(&self, call: &Call, object: &Value) -> Vec<Charge> {
        let (gvr, gvk) = (gvr(call), call.gvk());
        let name = name(call, None, Some(object));
        let attributes = attributes(call, &gvr, &gvk, "", &name, None, false);
        self.admission.charges(&attributes, object)
    }

    /// Lets admission judge an object; `None` for deletions.
    pub fn validate_admission(
        &self,
        call: &Call,
        gvk: &GroupVersionKind,
        subresource: &str,
        old: Option<&Value>,
        object: Option<&Value>,
        dry_run: bool,
    ) -> Result<(), Status> {
        let gvr = gvr(call);
        let name = name(call, old, object);
        let attributes = attributes(call, &gvr, gvk, subresource, &name, old, dry_run);
        let warnings = self.admission.validate(&attributes, object)?;
        warnings.into_iter().for_each(|w| call.warn(w));
        Ok(())
    }
}

fn gvr(call: &Call) -> GroupVersionResource {
    GroupVersionResource {
        group: call.row.group.to_string(),
        version: call.row.version.to_string(),
        resource: call.row.plural.to_string(),
    }
}

fn name(call: &Call, old: Option<&Value>, object: Option<&Value>) -> String {
    let of = |v: &Value| v["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match (old, object) {
        (Some(old), _) => of(old),
        (None, Some(object)) if call.info.name.is_empty() => of(object),
        _ => call.info.name.clone(),
    }
}

fn attributes<'a>(
    call: &'a Call,
    gvr: &'a GroupVersionResource,
    gvk: &'a GroupVersionKind,
    subresource: &'a str,
    name: &'a str,
    old: Option<&'a Value>,
    dry_run: bool,
) -> Attributes<'a> {
    Attributes {
        user: &call.user,
        verb: &call.info.verb,
        gvr,
        kind: &gvk.kind,
        subresource,
        namespace: &call.info.namespace,
        name,
        old,
        dry_run,
    }
}
