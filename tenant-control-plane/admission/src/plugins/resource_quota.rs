//! ResourceQuota: a namespace's objects together stay within its quotas.
//!
//! What is used is counted from the cache at each request, together with what was admitted a
//! moment ago and is not in the cache yet. With several API servers, requests that race within
//! their caches' delay (milliseconds) can pass a quota together; the next one is refused.
//!
//! What a quota's status shows as used decides nothing here. The server raises it in the same
//! transaction that stores a new object ([`Chain::charges`](crate::Chain::charges)), as controllers
//! expect; they lower it again. Source: Kubernetes documentation, "Resource Quotas".

use std::collections::HashMap;
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

/// From this number of places on, those where nothing is on its way are forgotten.
const PLACES: usize = 1024;

#[derive(Default)]
pub(super) struct ResourceQuota {
    places: Mutex<HashMap<Place, Arc<Mutex<Vec<Admitted>>>>>,
}

/// Requests for different places do not wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    resource: GroupResource,
    namespace: String,
}

impl Place {
    fn of(attributes: &Attributes<'_>) -> Self {
        Self { resource: attributes.group_resource(), namespace: attributes.namespace.to_owned() }
    }
}

/// A new object that passed.
struct Admitted {
    at: Instant,
    name: String,
    object: Arc<Value>,
}

impl Admitted {
    fn is_on_its_way(&self) -> bool {
        self.at.elapsed() < ON_ITS_WAY
    }
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
        let limits = request.limits(&quotas)?;
        if limits.is_empty() {
            return Ok(());
        }
        let place = Place::of(attributes);
        let admitted = self.admitted(&place);
        // Held until the decision is noted: of two requests for the last place one sees the other.
        let mut admitted = admitted.lock().expect("no holder of this lock panics");
        let there = context.source.list(&place.resource, Some(attributes.namespace));
        let name = text(&object["metadata"]["name"]);
        admitted.retain(|a| {
            let arrived = there.iter().any(|o| text(&o["metadata"]["name"]) == a.name);
            a.is_on_its_way() && !arrived
        });
        let coming = admitted.iter().filter(|a| a.name != name).map(|a| &a.object);
        let all = there.iter().chain(coming);
        let all: Vec<_> = all.map(|object| Counted::of(&place.resource, object)).collect();
        for limit in &limits {
            request.check(limit, &all)?;
        }
        if operation == Operation::Create && !attributes.dry_run && !name.is_empty() {
            admitted.push(Admitted {
                at: Instant::now(),
                name: name.to_owned(),
                object: Arc::new(object.clone()),
            });
        }
        Ok(())
    }
}

impl ResourceQuota {
    /// What was admitted to a place a moment ago.
    fn admitted(&self, place: &Place) -> Arc<Mutex<Vec<Admitted>>> {
        let mut places = self.places.lock().expect("no holder of this lock panics");
        if places.len() >= PLACES {
            places.retain(|_, admitted| {
                // Nobody else holds it, so that the lock is free.
                Arc::strong_count(admitted) > 1
                    || admitted
                        .lock()
                        .expect("no holder of this lock panics")
                        .iter()
                        .any(Admitted::is_on_its_way)
            });
        }
        places.entry(place.clone()).or_default().clone()
    }

    /// An object that can be deleted has arrived.
    fn forget(&self, attributes: &Attributes<'_>) {
        let places = self.places.lock().expect("no holder of this lock panics");
        let Some(admitted) = places.get(&Place::of(attributes)).cloned() else { return };
        drop(places);
        let mut admitted = admitted.lock().expect("no holder of this lock panics");
        admitted.retain(|a| a.name != attributes.name);
    }
}

/// What a quota allows of what a write adds.
struct Limit<'a> {
    /// The quota's name.
    name: &'a str,
    scopes: Scopes,
    hard: Amounts,
    /// What the write adds.
    demand: Amounts,
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

    /// The quotas that limit something of what the write adds. Refuses a pod that leaves out what
    /// one of them needs to know.
    fn limits<'q>(&self, quotas: &'q [Arc<Value>]) -> Result<Vec<Limit<'q>>, Status> {
        let mut limits = Vec::new();
        for quota in quotas {
            let scopes = Scopes::of(quota);
            if !self.new.is_in(&scopes) {
                continue;
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
            let demand = self.demand(&hard, &scopes);
            if !demand.is_empty() {
                limits.push(Limit { name, scopes, hard, demand });
            }
        }
        Ok(limits)
    }

    /// Refuses the write when it passes the limit, given all objects that are there.
    fn check(&self, limit: &Limit<'_>, there: &[Counted]) -> Result<(), Status> {
        let Limit { name, scopes, hard, demand } = limit;
        let mut used = Amounts::new();
        for other in there.iter().filter(|other| other.is_in(scopes)) {
            sum(&mut used, other, self.now);
        }
        let of = |list: &Amounts, key: &str| list.get(key).copied().unwrap_or_default();
        let exceeded: Vec<&String> =
            demand.keys().filter(|key| of(&used, key) + demand[*key] > hard[*key]).collect();
        if exceeded.is_empty() {
            return Ok(());
        }
        let print = |list: &Amounts| {
            let shown = exceeded.iter().map(|key| format!("{key}={}", of(list, key)));
            shown.collect::<Vec<_>>().join(",")
        };
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            print(demand),
            print(&used),
            print(hard)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(namespace: &str) -> Place {
        Place { resource: GroupResource::new("", "pods"), namespace: namespace.to_owned() }
    }

    #[test]
    fn namespaces_do_not_wait_for_each_other() {
        let quotas = ResourceQuota::default();
        let one = quotas.admitted(&place("one"));
        let _busy = one.lock().unwrap();
        assert!(quotas.admitted(&place("one")).try_lock().is_err());
        assert!(quotas.admitted(&place("two")).try_lock().is_ok());
    }

    #[test]
    fn a_place_is_kept_while_something_is_on_its_way_to_it() {
        let quotas = ResourceQuota::default();
        let admitted = |seconds| Admitted {
            at: Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap(),
            name: "a".into(),
            object: Arc::default(),
        };
        quotas.admitted(&place("fresh")).lock().unwrap().push(admitted(0));
        quotas.admitted(&place("old")).lock().unwrap().push(admitted(10));
        let held = quotas.admitted(&place("held"));
        for number in 0..PLACES - 3 {
            quotas.admitted(&place(&number.to_string()));
        }
        assert_eq!(quotas.places.lock().unwrap().len(), PLACES);
        quotas.admitted(&place("last"));
        let places = quotas.places.lock().unwrap();
        let mut left: Vec<_> = places.keys().map(|place| place.namespace.as_str()).collect();
        left.sort_unstable();
        assert_eq!(left, ["fresh", "held", "last"]);
        drop(held);
    }
}
