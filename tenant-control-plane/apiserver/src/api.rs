//! What every request can reach: the server's parts, put together once.

use std::sync::Arc;

use admission::{Attributes, Chain, Charge, Operation};
use auth::token::Issuer;
use auth::{Authenticator, Authorizer};
use machinery::{GroupVersionResource, Status};
use schema::Schema;
use serde_json::Value;
use streaming::NodeClient;
use tokio_util::sync::CancellationToken;

use crate::aggregation::Aggregation;
use crate::alloc::ServiceAllocator;
use crate::cache::{Caches, ResourceCache};
use crate::config::Config;
use crate::discovery::openapi::Documents;
use crate::health::Health;
use crate::hooks::{Hooks, Memory, Subject, version};
use crate::http::limit::Limits;
use crate::kinds::{Row, Table};
use crate::metrics::Metrics;
use crate::policies::Policies;
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
    /// The tenant's programs in admission.
    pub hooks: Hooks,
    /// The tenant's rules in admission.
    pub policies: Policies,
    /// Signs ServiceAccount tokens, if there is a key.
    pub issuer: Option<Issuer>,
    /// Who serves the groups that this server does not.
    pub aggregation: Aggregation,
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

    /// Lets admission change an object: plugins, then webhooks, then once more what has to see the
    /// webhooks' changes. True when a webhook has changed it.
    pub async fn admit(
        &self,
        call: &Call,
        subject: &Subject<'_>,
        object: &mut Value,
    ) -> Result<bool, Status> {
        self.fill_in(call, subject, object)?;
        let Some(operation) = hook_operation(call, subject, true) else { return Ok(false) };
        let mut memory = Memory::default();
        let hooks = &self.hooks;
        if !hooks.mutate(call, subject, operation, Some(&mut *object), &mut memory).await? {
            return Ok(false);
        }
        let before = object.clone();
        self.fill_in(call, subject, object)?;
        if *object != before {
            memory.object_changed();
        }
        memory.begin_again();
        hooks.mutate(call, subject, operation, Some(&mut *object), &mut memory).await?;
        Ok(true)
    }

    fn fill_in(
        &self,
        call: &Call,
        subject: &Subject<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        let (gvr, name) = (call.gvr(), call.admission_name(subject.old, Some(object)));
        let warnings = self.admission.mutate(&attributes(call, &gvr, subject, &name), object)?;
        warnings.into_iter().for_each(|w| call.warn(w));
        Ok(())
    }

    /// What storing a new object adds to the quotas of its namespace.
    pub fn charges(&self, call: &Call, object: &Value) -> Vec<Charge> {
        let (gvr, gvk) = (call.gvr(), call.gvk());
        let name = call.admission_name(None, Some(object));
        let subject =
            Subject { gvk: &gvk, subresource: "", old: None, dry_run: false, options: None };
        self.admission.charges(&attributes(call, &gvr, &subject, &name), object)
    }

    /// Lets admission judge an object; `None` for deletions.
    pub async fn validate_admission(
        &self,
        call: &Call,
        subject: &Subject<'_>,
        object: Option<&Value>,
    ) -> Result<(), Status> {
        let (gvr, name) = (call.gvr(), call.admission_name(subject.old, object));
        let attributes = attributes(call, &gvr, subject, &name);
        let mut warnings = self.admission.validate(&attributes, object)?;
        if let Some(operation) = hook_operation(call, subject, object.is_some()) {
            if object.is_none() {
                let mut memory = Memory::default();
                self.hooks.mutate(call, subject, operation, None, &mut memory).await?;
            }
            self.policies.validate(call, subject, operation, object).await?;
            self.hooks.validate(call, subject, operation, object).await?;
        }
        warnings.extend(self.admission.settle(&attributes, object)?);
        warnings.into_iter().for_each(|w| call.warn(w));
        Ok(())
    }

    /// Asks webhooks and policies alone about the body of a subresource (a binding, an eviction, a
    /// connection), for which there are no plugins.
    pub async fn admit_body(
        &self,
        call: &Call,
        subject: &Subject<'_>,
        operation: Operation,
        body: &mut Value,
    ) -> Result<(), Status> {
        self.mutate_body(call, subject, operation, body).await?;
        self.policies.validate(call, subject, operation, Some(&*body)).await?;
        self.hooks.validate(call, subject, operation, Some(&*body)).await
    }

    /// Asks webhooks about a review, which policies do not see.
    pub async fn admit_review(
        &self,
        call: &Call,
        subject: &Subject<'_>,
        body: &mut Value,
    ) -> Result<(), Status> {
        self.mutate_body(call, subject, Operation::Create, body).await?;
        self.hooks.validate(call, subject, Operation::Create, Some(&*body)).await
    }

    async fn mutate_body(
        &self,
        call: &Call,
        subject: &Subject<'_>,
        operation: Operation,
        body: &mut Value,
    ) -> Result<(), Status> {
        let mut memory = Memory::default();
        if self.hooks.mutate(call, subject, operation, Some(&mut *body), &mut memory).await? {
            memory.begin_again();
            self.hooks.mutate(call, subject, operation, Some(&mut *body), &mut memory).await?;
        }
        Ok(())
    }
}

impl Call {
    /// The resource asked for, with its version.
    pub fn gvr(&self) -> GroupVersionResource {
        version::gvr(&self.row)
    }

    /// The name that admission knows an object by.
    pub fn admission_name(&self, old: Option<&Value>, object: Option<&Value>) -> String {
        let of = |v: &Value| v["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match (old, object) {
            (Some(old), _) => of(old),
            (None, Some(object)) if self.info.name.is_empty() => of(object),
            _ => self.info.name.clone(),
        }
    }
}

/// What webhooks are told that a write does; `None` for the server's own writes on behalf of
/// another request (the pod that an eviction deletes, the budget that it spends), and for writes
/// whose body they were asked about already.
fn hook_operation(call: &Call, subject: &Subject<'_>, has_object: bool) -> Option<Operation> {
    if call.info.resource != call.row.plural || subject.subresource == "binding" {
        return None;
    }
    match (call.info.verb.as_str(), subject.old.is_some()) {
        ("delete" | "deletecollection", _) if !has_object => Some(Operation::Delete),
        _ if !has_object => None,
        (_, true) => Some(Operation::Update),
        (_, false) => Some(Operation::Create),
    }
}

fn attributes<'a>(
    call: &'a Call,
    gvr: &'a GroupVersionResource,
    subject: &Subject<'a>,
    name: &'a str,
) -> Attributes<'a> {
    Attributes {
        user: &call.user,
        verb: &call.info.verb,
        gvr,
        kind: &subject.gvk.kind,
        subresource: subject.subresource,
        namespace: &call.info.namespace,
        name,
        old: subject.old,
        dry_run: subject.dry_run,
    }
}
