//! Admission webhooks: programs of the tenant that may change or refuse what is written.
//!
//! ```text
//!  admit    ─► configurations (cache, by name) ─► select ─► call one after the other ─► patch
//!  validate ─► configurations (cache, by name) ─► select ─► call all at once ─► first refusal
//!                                                              │
//!                     version (the object as the rule names it)│call ─► target ─► streaming::hook
//! ```
//!
//! What is pure of it (rules, the review document) is in the crate `admission`. Nothing here is
//! written to the store; what webhooks did to an object is settled by the registry like everything
//! else that a client sent.
//!
//! Source: Kubernetes documentation, "Dynamic Admission Control".

mod call;
pub mod conditions;
pub mod connect;
mod mutate;
pub(crate) mod select;
pub mod target;
mod validate;
pub mod version;

use std::sync::{Arc, RwLock};

use admission::webhook::{Asker, Webhook};
use admission::{Operation, rule};
use machinery::{GroupResource, GroupVersionKind, GroupVersionResource, ObjectSource, Status};
use serde_json::Value;
use streaming::HookClient;

use conditions::Conditions;
pub use mutate::Memory;

use crate::cache::Caches;
use crate::registry::Call;

/// What a write is about, as admission sees it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The kind of the body.
    pub gvk: &'a GroupVersionKind,
    /// What is written, or empty for the object itself.
    pub subresource: &'a str,
    /// The stored object, of an update or delete.
    pub old: Option<&'a Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// `DeleteOptions`, of a delete.
    pub options: Option<&'a Value>,
}

/// A request on its way through the webhooks.
#[derive(Clone, Copy)]
pub(crate) struct Passing<'a> {
    pub(crate) call: &'a Call,
    pub(crate) subject: &'a Subject<'a>,
    pub(crate) asker: &'a Asker<'a>,
}

/// A webhook with its compiled conditions.
struct Hook {
    webhook: Webhook,
    conditions: Conditions,
}

/// The webhooks that are configured, and the way to them.
pub struct Hooks {
    /// Makes the calls.
    pub client: HookClient,
    mutating: Configured,
    validating: Configured,
}

impl Hooks {
    /// No calls yet; configurations are read from the caches when they are needed. Either kind
    /// may be off.
    pub fn new(client: HookClient, mutating: bool, validating: bool) -> Self {
        let configured = |plural: &str, enabled| Configured {
            resource: GroupResource::new("admissionregistration.k8s.io", plural),
            enabled,
            parsed: RwLock::default(),
        };
        Self {
            client,
            mutating: configured("mutatingwebhookconfigurations", mutating),
            validating: configured("validatingwebhookconfigurations", validating),
        }
    }

    /// Lets the mutating webhooks change an object (`None` for deletions). True when one did.
    ///
    /// # Errors
    /// The first refusal, or the first failed call that may not fail.
    pub async fn mutate(
        &self,
        call: &Call,
        subject: &Subject<'_>,
        operation: Operation,
        object: Option<&mut Value>,
        memory: &mut Memory,
    ) -> Result<bool, Status> {
        let webhooks = self.mutating.read(&call.api.caches);
        if webhooks.is_empty() || rule::is_exempt(&subject.gvk.group, &subject.gvk.kind) {
            return Ok(false);
        }
        let facts = Facts::new(call, subject, operation, object.as_deref());
        let asker = facts.asker(call, subject);
        let passing = Passing { call, subject, asker: &asker };
        mutate::run(passing, &webhooks, object, memory).await
    }

    /// Lets the validating webhooks judge an object (`None` for deletions).
    ///
    /// # Errors
    /// A refusal, or a failed call that may not fail.
    pub async fn validate(
        &self,
        call: &Call,
        subject: &Subject<'_>,
        operation: Operation,
        object: Option<&Value>,
    ) -> Result<(), Status> {
        let webhooks = self.validating.read(&call.api.caches);
        if webhooks.is_empty() || rule::is_exempt(&subject.gvk.group, &subject.gvk.kind) {
            return Ok(());
        }
        let facts = Facts::new(call, subject, operation, object);
        let asker = facts.asker(call, subject);
        validate::run(Passing { call, subject, asker: &asker }, &webhooks, object).await
    }
}

/// The webhooks of one kind of configuration, parsed once per change.
struct Configured {
    resource: GroupResource,
    enabled: bool,
    /// As of a generation of the cache.
    parsed: RwLock<Option<(u64, Arc<[Hook]>)>>,
}

impl Configured {
    fn read(&self, caches: &Caches) -> Arc<[Hook]> {
        if !self.enabled {
            return Arc::new([]);
        }
        let generation = caches.generation(&self.resource);
        if let Some((of, hooks)) = &*self.parsed.read().expect("no panic while locked")
            && *of == generation
        {
            return hooks.clone();
        }
        // The cache lists by key, which is the name.
        let configurations = caches.list(&self.resource, None);
        let webhooks = configurations.iter().flat_map(|configuration| Webhook::list(configuration));
        let webhooks: Arc<[Hook]> = webhooks
            .map(|webhook| Hook {
                conditions: Conditions::compile(&webhook.conditions, &conditions::WEBHOOK),
                webhook,
            })
            .collect();
        *self.parsed.write().expect("no panic while locked") = Some((generation, webhooks.clone()));
        webhooks
    }
}

/// What an [`Asker`] borrows.
pub(crate) struct Facts {
    operation: Operation,
    gvr: GroupVersionResource,
    name: String,
    namespace: String,
    options: Value,
}

impl Facts {
    pub(crate) fn new(
        call: &Call,
        subject: &Subject<'_>,
        operation: Operation,
        object: Option<&Value>,
    ) -> Self {
        let name = call.admission_name(subject.old, object);
        let is_namespace = call.row.group.is_empty() && call.row.plural == "namespaces";
        let namespace = if is_namespace { name.clone() } else { call.info.namespace.clone() };
        let options = match (subject.options, operation) {
            (Some(given), _) => given.clone(),
            (None, Operation::Create) => write_options(call, "CreateOptions", subject.dry_run),
            (None, Operation::Update) => write_options(call, "UpdateOptions", subject.dry_run),
            (None, _) => Value::Null,
        };
        Self { operation, gvr: call.gvr(), name, namespace, options }
    }

    pub(crate) fn asker<'a>(&'a self, call: &'a Call, subject: &'a Subject<'a>) -> Asker<'a> {
        Asker {
            user: &call.user,
            operation: self.operation,
            gvk: subject.gvk,
            gvr: &self.gvr,
            subresource: subject.subresource,
            namespace: &self.namespace,
            name: &self.name,
            options: &self.options,
            dry_run: subject.dry_run,
        }
    }
}

/// The options of a write as an object. A patch arrives as one of these too.
fn write_options(call: &Call, kind: &str, dry_run: bool) -> Value {
    let mut options = serde_json::json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    for key in ["fieldManager", "fieldValidation"] {
        if let Some(value) = call.query.get(key).filter(|value| !value.is_empty()) {
            options[key] = value.into();
        }
    }
    if dry_run {
        options["dryRun"] = serde_json::json!(["All"]);
    }
    options
}
