//! ResourceQuota: a namespace's objects together stay within its quotas.
//!
//! What is used is counted from the cache at each request, together with what was admitted a
//! moment ago and is not in the cache yet. With several API servers, requests that race within
//! their caches' delay (milliseconds) can pass a quota together; the next one is refused.
//!
//! What a quota's status shows as used decides nothing here. The server raises it in the same
//! transaction that stores a new object ([`Chain::charges`](crate::Chain::charges)), as controllers
//! expect; they lower it again. Source: Kubernetes documentation, "Resource Quotas".

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use machinery::amounts::{Amounts, amounts, is_pod_level};
use machinery::quota::{Counted, Scopes};
use machinery::{GroupResource, Quantity, Status};
use serde_json::Value;

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::{Charge, Context};
use crate::object::{items, text};

/// Resources that each container must ask for when a quota limits them.
const MUST_SPECIFY: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// How long an admitted object may take to show up in the cache. One whose write failed counts
/// for as long.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct ResourceQuota {
    admitted: Mutex<VecDeque<Admitted>>,
}

/// A new object that passed.
struct Admitted {
    at: Instant,
    resource: GroupResource,
    namespace: String,
    name: String,
    object: Arc<Value>,
}

fn quotas(context: &Context, attributes: &Attributes<'_>) -> Vec<Arc<Value>> {
    let quotas = GroupResource::new("", "resourcequotas");
    context.source.list(&quotas, Some(attributes.namespace))
}

impl Plugin for ResourceQuota {
    fn charges(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: &Value,
    ) -> Vec<Charge> {
        let is_new = attributes.operation() == Operation::Create;
        if !is_new || !attributes.subresource.is_empty() || attributes.namespace.is_empty() {
            return Vec::new();
        }
        let quotas = quotas(context, attributes);
        if quotas.is_empty() {
            return Vec::new();
        }
        let request = Request::new(attributes, object);
        let charges = quotas.iter().filter_map(|quota| {
            let scopes = Scopes::of(quota);
            let amounts = request.demand(&amounts(&quota["spec"]["hard"]), &scopes);
            let quota = text(&quota["metadata"]["name"]).to_owned();
            let counts = request.new.is_in(&scopes) && !amounts.is_empty();
            counts.then_some(Charge { quota, amounts })
        });
        charges.collect()
    }

    fn comes_last(&self) -> bool {
        true
    }

    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let Some(object) = object else {
            self.forget(attributes);
            return Ok(());
        };
        let operation = attributes.operation();
        let writes = matches!(operation, Operation::Create | Operation::Update);
        let counts = attributes.subresource.is_empty() || attributes.is_sub("", "pods", "resize");
        if !counts || !writes || attributes.namespace.is_empty() {
            return Ok(());
        }
        let quotas = quotas(context, attributes);
        if quotas.is_empty() {
            return Ok(());
        }
        let request = Request::new(attributes, object);
        let resource = attributes.group_resource();
        // Held until the decision is noted: of two requests for the last place one sees the other.
        let mut admitted = self.admitted.lock().expect("no holder of this lock panics");
        let mut there = context.source.list(&resource, Some(attributes.namespace));
        let name = text(&object["metadata"]["name"]);
        let concerns = |a: &Admitted| a.resource == resource && a.namespace == attributes.namespace;
        admitted.retain(|a| {
            let arrived =
                concerns(a) && there.iter().any(|o| text(&o["metadata"]["name"]) == a.name);
            a.at.elapsed() < ON_ITS_WAY && !arrived
        });
        for other in admitted.iter().filter(|a| concerns(a) && a.name != name) {
            there.push(other.object.clone());
        }
        for quota in &quotas {
            request.check(quota, &there, &resource)?;
        }
        if operation == Operation::Create && !attributes.dry_run && !name.is_empty() {
            admitted.push_back(Admitted {
                at: Instant::now(),
                namespace: attributes.namespace.to_owned(),
                name: name.to_owned(),
                object: Arc::new(object.clone()),
                resource,
            });
        }
        Ok(())
    }
}

impl ResourceQuota {
    /// An object that can be deleted has arrived.
    fn forget(&self, attributes: &Attributes<'_>) {
        let resource = attributes.group_resource();
        let mut admitted = self.admitted.lock().expect("no holder of this lock panics");
        admitted.retain(|a| {
            a.name != attributes.name
                || a.namespace != attributes.namespace
                || a.resource != resource
        });
    }
}

/// A write and what it changes.
struct Request<'a> {
    attributes: &'a Attributes<'a>,
    object: &'a Value,
    new: Counted,
    old: Option<Counted>,
    now: Timestamp,
}

impl<'a> Request<'a> {
    fn new(attributes: &'a Attributes<'a>, object: &'a Value) -> Self {
        let resource = attributes.group_resource();
        let old = attributes.old.map(|old| Counted::of(&resource, old));
        let new = Counted::of(&resource, object);
        Self { attributes, object, new, old, now: Timestamp::now() }
    }

    /// Refuses the write when it passes the quota, given all objects that are there.
    fn check(
        &self,
        quota: &Value,
        there: &[Arc<Value>],
        resource: &GroupResource,
    ) -> Result<(), Status> {
        let scopes = Scopes::of(quota);
        if !self.new.is_in(&scopes) {
            return Ok(());
        }
        let name = text(&quota["metadata"]["name"]);
        let hard = amounts(&quota["spec"]["hard"]);
        if self.attributes.is("", "pods") && self.attributes.operation() == Operation::Create {
            let missing = unspecified(&hard, self.object);
            if !missing.is_empty() {
                let why = format!("failed quota: {name}: must specify {missing}");
                return Err(self.attributes.forbidden(Some(self.object), &why));
            }
        }
        let limited = self.demand(&hard, &scopes);
        if limited.is_empty() {
            return Ok(());
        }
        let mut used = Amounts::new();
        for other in there {
            let other = Counted::of(resource, other);
            if other.is_in(&scopes) {
                sum(&mut used, &other, self.now);
            }
        }
        let of = |list: &Amounts, key: &str| list.get(key).copied().unwrap_or_default();
        let exceeded: Vec<&String> =
            limited.keys().filter(|key| of(&used, key) + limited[*key] > hard[*key]).collect();
        if exceeded.is_empty() {
            return Ok(());
        }
        let print = |list: &Amounts| {
            let shown = exceeded.iter().map(|key| format!("{key}={}", of(list, key)));
            shown.collect::<Vec<_>>().join(",")
        };
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            print(&limited),
            print(&used),
            print(&hard)
        );
        Err(self.attributes.forbidden(Some(self.object), &why))
    }

    /// What the write adds to what the quota limits.
    fn demand(&self, hard: &Amounts, scopes: &Scopes) -> Amounts {
        let mut demand = Amounts::new();
        sum(&mut demand, &self.new, self.now);
        if let Some(old) = self.old.as_ref().filter(|old| old.is_in(scopes)) {
            for (name, amount) in old.usage(self.now) {
                *demand.entry(name.to_owned()).or_default() -= amount;
            }
        }
        demand.retain(|name, amount| *amount > Quantity::ZERO && hard.contains_key(name));
        demand
    }
}

fn sum(to: &mut Amounts, counted: &Counted, now: Timestamp) {
    for (name, amount) in counted.usage(now) {
        *to.entry(name.to_owned()).or_default() += amount;
    }
}

/// `cpu for: a,b; limits.cpu for: a`: what the quota needs to know and containers leave out. A pod
/// that says what it needs as a whole has said enough.
fn unspecified(hard: &Amounts, pod: &Value) -> String {
    let whole = |list: &str| amounts(&pod["spec"]["resources"][list]);
    let mut whole = whole("requests").into_keys().chain(whole("limits").into_keys());
    if whole.any(|name| is_pod_level(&name)) {
        return String::new();
    }
    let mut missing = Vec::new();
    for name in hard.keys().filter(|name| MUST_SPECIFY.contains(&name.as_str())) {
        let (list, of) = match name.split_once('.') {
            Some((list, of)) => (list, of),
            None => ("requests", name.as_str()),
        };
        let mut without: Vec<_> = ["containers", "initContainers"]
            .into_iter()
            .flat_map(|key| items(&pod["spec"][key]))
            .filter(|container| container["resources"][list][of].is_null())
            .map(|container| text(&container["name"]))
            .collect();
        without.sort_unstable();
        if !without.is_empty() {
            missing.push(format!("{name} for: {}", without.join(",")));
        }
    }
    missing.join("; ")
}
