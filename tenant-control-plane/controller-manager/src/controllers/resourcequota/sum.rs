//! From objects to a quota's status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use machinery::Quantity;
use machinery::quota::{Counted, Scopes};

/// Amounts by the names of `spec.hard`.
pub(super) type Amounts = BTreeMap<String, Quantity>;
/// The same as the API writes them.
type Texts = BTreeMap<String, Text>;

/// The objects of one kind in a namespace.
pub(super) enum Objects {
    /// Each with what it counts for.
    Counted(Vec<Arc<Counted>>),
    /// So many, each of which counts for one, and to which no scope applies.
    Alike(usize),
}

/// What objects in scope amount to, for each of the names.
pub(super) fn total(objects: &Objects, names: &[&str], scopes: &Scopes, now: Timestamp) -> Amounts {
    let mut totals: Amounts =
        names.iter().map(|name| ((*name).to_owned(), Quantity::ZERO)).collect();
    match objects {
        Objects::Counted(all) => {
            for object in all.iter().filter(|object| object.is_in(scopes)) {
                for (name, amount) in object.usage(now) {
                    if let Some(total) = totals.get_mut(name) {
                        *total += amount;
                    }
                }
            }
        }
        Objects::Alike(count) if scopes.is_everything() => {
            let count = Quantity::from_units(i64::try_from(*count).unwrap_or(i64::MAX));
            totals.values_mut().for_each(|total| *total = count);
        }
        Objects::Alike(_) => {}
    }
    totals
}

fn parsed(list: Option<&Texts>) -> Amounts {
    let amounts = list.into_iter().flatten();
    amounts.filter_map(|(name, text)| Some((name.clone(), text.0.parse().ok()?))).collect()
}

/// True when the status names the quota's own limits.
pub(super) fn shows_its_limits(quota: &ResourceQuota) -> bool {
    let limits = parsed(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()));
    let shown = quota.status.as_ref().and_then(|status| status.hard.as_ref());
    shown.is_some() && parsed(shown) == limits
}

/// The status with what was counted, or `None` when it says so already. What was not counted stays;
/// what was counted becomes lower only if it `may_fall`.
pub(super) fn status(
    quota: &ResourceQuota,
    counted: &Amounts,
    may_fall: bool,
) -> Option<ResourceQuotaStatus> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let shown = quota.status.as_ref().and_then(|status| status.used.as_ref());
    let before = parsed(shown);
    let used: Amounts = hard
        .keys()
        .filter_map(|name| {
            let (before, now) = (before.get(name), counted.get(name));
            let amount = match (before, now) {
                (Some(before), Some(now)) if !may_fall => (*now).max(*before),
                (_, Some(now)) => *now,
                (Some(before), None) => *before,
                (None, None) => return None,
            };
            Some((name.clone(), amount))
        })
        .collect();
    if shown.is_some() && used == before && shows_its_limits(quota) {
        return None;
    }
    let used = used.into_iter().map(|(name, amount)| (name, Text(amount.to_string()))).collect();
    Some(ResourceQuotaStatus { hard: Some(hard), used: Some(used) })
}

#[cfg(test)]
mod tests {
    use machinery::GroupResource;
    use serde_json::{Value, json};

    use super::*;

    fn quota(hard: Value, status: Value) -> ResourceQuota {
        serde_json::from_value(json!({"spec": {"hard": hard}, "status": status})).unwrap()
    }

    fn amounts(list: &[(&str, &str)]) -> Amounts {
        list.iter().map(|(name, text)| ((*name).to_owned(), text.parse().unwrap())).collect()
    }

    fn used(status: Option<ResourceQuotaStatus>) -> Value {
        serde_json::to_value(status.unwrap().used).unwrap()
    }

    #[test]
    fn a_new_quota_shows_its_limits_and_what_is_used() {
        let quota =
            quota(json!({"pods": "5", "memory": "1Gi", "count/what.example.com": "1"}), json!({}));
        let status = status(&quota, &amounts(&[("pods", "2"), ("memory", "256Mi")]), true);
        assert_eq!(status.clone().unwrap().hard, quota.spec.unwrap().hard);
        assert_eq!(used(status), json!({"memory": "256Mi", "pods": "2"}));
    }

    #[test]
    fn new_objects_only_raise_the_counts() {
        let at =
            |used: Value| quota(json!({"pods": "5"}), json!({"hard": {"pods": "5"}, "used": used}));
        let two = amounts(&[("pods", "2")]);
        // An API server has admitted a pod that the cache does not show yet.
        assert_eq!(status(&at(json!({"pods": "3"})), &two, false), None);
        assert_eq!(used(status(&at(json!({"pods": "3"})), &two, true)), json!({"pods": "2"}));
        assert_eq!(used(status(&at(json!({"pods": "1"})), &two, false)), json!({"pods": "2"}));
        assert_eq!(status(&at(json!({"pods": "2"})), &two, true), None);
    }

    #[test]
    fn limits_follow_the_spec_and_unknown_counts_stay() {
        let changed = quota(
            json!({"pods": "6", "count/x.example.com": "1"}),
            json!({"hard": {"pods": "5"}, "used": {"count/x.example.com": "1", "secrets": "4"}}),
        );
        assert!(!shows_its_limits(&changed));
        let status = status(&changed, &amounts(&[("pods", "0")]), true);
        assert_eq!(used(status), json!({"pods": "0", "count/x.example.com": "1"}));
        let same = quota(json!({"cpu": "1"}), json!({"hard": {"cpu": "1000m"}}));
        assert!(shows_its_limits(&same));
    }

    #[test]
    fn only_objects_in_scope_count() {
        let now = Timestamp::UNIX_EPOCH;
        let resource = GroupResource::new("", "pods");
        let pod = |deadline: Value| {
            let pod = json!({"spec": {"activeDeadlineSeconds": deadline, "containers": [
                {"resources": {"requests": {"cpu": "250m"}}}]}});
            Arc::new(Counted::of(&resource, &pod))
        };
        let pods = Objects::Counted(vec![pod(json!(5)), pod(Value::Null), pod(Value::Null)]);
        let scopes = |scopes: Value| Scopes::of(&json!({"spec": {"scopes": scopes}}));
        let names = ["pods", "requests.cpu", "limits.cpu"];
        let total = |objects: &Objects, list: Value| {
            let totals = super::total(objects, &names, &scopes(list), now);
            totals.into_iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>()
        };
        assert_eq!(total(&pods, json!([])), ["limits.cpu=0", "pods=3", "requests.cpu=750m"]);
        let running = ["limits.cpu=0", "pods=2", "requests.cpu=500m"];
        assert_eq!(total(&pods, json!(["NotTerminating", "NotBestEffort"])), running);
        let alike =
            |list: Value| super::total(&Objects::Alike(7), &["secrets"], &scopes(list), now);
        assert_eq!(alike(json!([])), amounts(&[("secrets", "7")]));
        assert_eq!(alike(json!(["BestEffort"])), amounts(&[("secrets", "0")]));
    }
}
