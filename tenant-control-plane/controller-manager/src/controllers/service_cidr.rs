//! ServiceCIDRs: says that a range is ready, and keeps one that is being deleted as long as a Service
//! has an address that lies in no other range.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use component::workqueue::Requeue;
use component::{Informer, ObjectKey, WorkQueue};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use serde_json::json;

use crate::context::{Context, Running};
use crate::writes::{Writer, ignore_missing};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// API servers that have not heard of the deletion may still hand out an address.
const GRACE: Duration = Duration::from_secs(10);

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let ranges = context.informer::<ServiceCIDR>();
    let addresses = context.informer::<IPAddress>();
    let queue = Arc::new(WorkQueue::new());
    // What one range may do depends on all others and on the addresses.
    let wake_all = |ranges: &Arc<Informer<ServiceCIDR>>| {
        let (all, wake) = (ranges.clone(), queue.clone());
        move || all.list().iter().for_each(|range| wake.add(ObjectKey::of(range.as_ref())))
    };
    let wake = wake_all(&ranges);
    ranges.on_change(move |_| wake());
    let wake = wake_all(&ranges);
    addresses.on_change(move |change| {
        if change.new.is_none() {
            wake();
        }
    });
    let writer = Writer::new(context.client.clone(), ranges);
    Ok(Some(context.work("service-cidr", queue, 5, move |key| {
        let (writer, addresses) = (writer.clone(), addresses.clone());
        async move { sync(&writer, &addresses, &key).await }
    })))
}

async fn sync(
    writer: &Writer<ServiceCIDR>,
    addresses: &Informer<IPAddress>,
    key: &ObjectKey,
) -> anyhow::Result<Requeue> {
    let Some(range) = writer.cache().get(key) else { return Ok(None) };
    let held = range.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let Some(deleted) = &range.metadata.deletion_timestamp else {
        let mut current = range.clone();
        if !held {
            let finalizers: Vec<_> = range.finalizers().iter().map(String::as_str).collect();
            let finalizers = [finalizers, vec![FINALIZER]].concat();
            match patch_finalizers(writer, &range, &finalizers).await? {
                Some(patched) => current = patched,
                None => return Ok(None),
            }
        }
        return say(writer, &current, "True", "", "Kubernetes Service CIDR is ready").await;
    };
    if !held {
        return Ok(None);
    }
    let taken: Vec<IpAddr> = addresses
        .list()
        .iter()
        .filter(|address| address.labels().get(MANAGED_BY).is_some_and(|by| by == ALLOCATOR))
        .filter_map(|address| address.name_any().parse().ok())
        .collect();
    if !can_go(&range, &writer.cache().list(), &taken) {
        let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or \
                   create a new ServiceCIDR";
        return say(writer, &range, "False", "Terminating", why).await;
    }
    let passed = Duration::try_from(Timestamp::now().duration_since(deleted.0)).unwrap_or_default();
    if passed < GRACE {
        return Ok(Some(GRACE - passed));
    }
    let others = range.finalizers().iter().map(String::as_str).filter(|f| *f != FINALIZER);
    patch_finalizers(writer, &range, &others.collect::<Vec<_>>()).await?;
    Ok(None)
}

async fn patch_finalizers(
    writer: &Writer<ServiceCIDR>,
    range: &ServiceCIDR,
    finalizers: &[&str],
) -> Result<Option<Arc<ServiceCIDR>>, kube::Error> {
    let patch = json!({"metadata": {
        "resourceVersion": range.metadata.resource_version, "finalizers": finalizers,
    }});
    ignore_missing(writer.patch(range, patch).await)
}

/// Sets the condition `Ready`.
async fn say(
    writer: &Writer<ServiceCIDR>,
    range: &ServiceCIDR,
    state: &str,
    reason: &str,
    message: &str,
) -> anyhow::Result<Requeue> {
    let status = range.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let says_so = |c: &Condition| c.status == state && c.reason == reason && c.message == message;
    if conditions.iter().any(|c| c.type_ == "Ready" && says_so(c)) {
        return Ok(None);
    }
    conditions.retain(|condition| condition.type_ != "Ready");
    conditions.push(Condition {
        type_: "Ready".to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::now()),
    });
    let patch = json!({"status": {"conditions": conditions}});
    ignore_missing(writer.patch_status(range, patch, false).await)?;
    Ok(None)
}

fn prefixes(range: &ServiceCIDR) -> impl Iterator<Item = IpNet> {
    let cidrs = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.filter_map(|cidr| cidr.parse().ok())
}

/// True when all that lies in the range lies in others too, or nothing in it is taken.
fn can_go(range: &ServiceCIDR, all: &[Arc<ServiceCIDR>], taken: &[IpAddr]) -> bool {
    let others: Vec<IpNet> = all
        .iter()
        .filter(|other| other.metadata.uid != range.metadata.uid)
        .filter(|other| other.metadata.deletion_timestamp.is_none())
        .flat_map(|other| prefixes(other))
        .collect();
    let mut own = prefixes(range);
    own.all(|own| {
        let mut inside = taken.iter().filter(|address| own.contains(*address));
        others.iter().any(|other| other.contains(&own))
            || inside.all(|address| others.iter().any(|other| other.contains(address)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(uid: &str, cidr: &str) -> Arc<ServiceCIDR> {
        let range = json!({"metadata": {"name": uid, "uid": uid}, "spec": {"cidrs": [cidr]}});
        Arc::new(serde_json::from_value(range).unwrap())
    }

    #[test]
    fn a_range_stays_while_an_address_is_only_in_it() {
        let all =
            [range("a", "10.96.0.0/24"), range("b", "10.96.0.128/25"), range("c", "10.0.0.0/8")];
        let taken: Vec<IpAddr> = vec!["10.96.0.5".parse().unwrap(), "10.96.0.200".parse().unwrap()];
        assert!(!can_go(&all[0], &all[..2], &taken));
        assert!(can_go(&all[1], &all[..2], &taken));
        assert!(can_go(&all[0], &all[..2], &taken[1..]));
        assert!(can_go(&all[0], &all, &taken));
        assert!(can_go(&all[0], &all[..1], &[]));
    }
}
