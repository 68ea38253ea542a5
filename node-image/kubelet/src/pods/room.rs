//! Whether the node has room for what a pod asks for (KEP-1287).
//!
//! Who asks for more than there is waits; when something is freed, those who wait are served by
//! priority, then guaranteed pods first, then those that have waited longest.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use machinery::amounts::pod_amounts;

use crate::node::allocations::Known;
use crate::spec::containers;
use crate::spec::downward::NodeFacts;
use crate::spec::resize;
use crate::spec::resources::{self, Qos};
use crate::status::conditions::RESIZE_PENDING;

/// Why a pod does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// CPU (millicores) and memory (bytes).
type Amounts = [i64; 2];
const NAMES: [&str; 2] = ["cpu", "memory"];

/// What a pod's containers request together.
fn requests(pod: &Pod) -> Amounts {
    let spec = serde_json::json!({"spec": pod.spec});
    let amounts = pod_amounts(&spec, "requests");
    let get = |name: &str| amounts.get(name).copied().unwrap_or_default();
    [get("cpu").milli_value(), get("memory").value()]
}

fn plus(a: Amounts, b: Amounts) -> Amounts {
    [a[0] + b[0], a[1] + b[1]]
}

fn minus(a: Amounts, b: Amounts) -> Amounts {
    [a[0] - b[0], a[1] - b[1]]
}

fn is_more(asked: Amounts, given: Amounts) -> bool {
    asked[0] > given[0] || asked[1] > given[1]
}

/// A condition of the pod's status.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// The lower, the earlier it is served.
fn rank(pod: &Pod) -> (i32, bool, Timestamp, &str) {
    let priority = containers::spec(pod).priority.unwrap_or(0);
    let since = condition(pod, RESIZE_PENDING).and_then(|c| c.last_transition_time.as_ref());
    let since = since.map_or(Timestamp::MAX, |at| at.0);
    let guaranteed = resources::qos(pod) == Qos::Guaranteed;
    (priority.saturating_neg(), !guaranteed, since, containers::uid(pod))
}

fn fit(asked: Amounts, used: Amounts, capacity: Amounts) -> Result<(), Refusal> {
    if let Some(i) = [1, 0].into_iter().find(|i| asked[*i] > capacity[*i]) {
        let message = format!(
            "Node didn't have enough capacity: {}, requested: {}, capacity: {}",
            NAMES[i], asked[i], capacity[i]
        );
        return Err(Refusal { reason: "Infeasible", message });
    }
    let full = |i: &usize| asked[*i] > 0 && used[*i] + asked[*i] > capacity[*i];
    if let Some(i) = [0, 1].into_iter().find(full) {
        let message = format!(
            "Node didn't have enough resource: {}, requested: {}, used: {}, capacity: {}",
            NAMES[i], asked[i], used[i], capacity[i]
        );
        return Err(Refusal { reason: "Deferred", message });
    }
    Ok(())
}

/// Another pod that holds a part of the node.
struct Holder<'a> {
    pod: &'a Pod,
    given: Amounts,
    /// What it asks for, if that is more and it is not on its way out.
    waits_for: Option<Amounts>,
}

fn holder<'a>(pod: &'a Arc<Pod>, known: &Known) -> Option<Holder<'a>> {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let asked = requests(pod);
    let given = requests(&resize::given(pod, known.get(containers::uid(pod))));
    let waits = is_more(asked, given) && pod.metadata.deletion_timestamp.is_none();
    Some(Holder { pod, given, waits_for: waits.then_some(asked) })
}

/// Whether the node has room for what the pod asks for, beside what all others were given and
/// what those get that are served before it.
///
/// # Errors
/// Why not.
pub fn judge(
    pod: &Arc<Pod>,
    all: &[Arc<Pod>],
    known: &Known,
    node: &NodeFacts,
) -> Result<(), Refusal> {
    let (asked, uid) = (requests(pod), containers::uid(pod));
    let capacity = [node.cpu_millis, node.memory];
    let others = all.iter().filter(|p| containers::uid(p) != uid);
    let others: Vec<_> = others.filter_map(|p| holder(p, known)).collect();
    let used = others.iter().fold([0, 0], |sum, other| plus(sum, other.given));
    fit(asked, used, capacity)?;
    let own = requests(&resize::given(pod, known.get(uid)));
    if !is_more(asked, own) {
        return Ok(());
    }
    let mut ahead = used;
    for other in others.iter().filter(|other| rank(other.pod) < rank(pod)) {
        let Some(more) = other.waits_for else { continue };
        // Who does not fit either is not waited for.
        if fit(more, minus(plus(used, own), other.given), capacity).is_ok() {
            ahead = plus(ahead, minus(more, other.given));
        }
    }
    fit(asked, ahead, capacity)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, cpu: &str, phase: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"uid": uid}, "status": {"phase": phase},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn verdict(pod: &Arc<Pod>, others: &[Arc<Pod>], known: &Known) -> Option<Refusal> {
        let node = NodeFacts { cpu_millis: 1000, memory: 1 << 30, ..NodeFacts::default() };
        judge(pod, others, known, &node).err()
    }

    #[test]
    fn the_node_has_to_have_room() {
        let others = [pod("o", "400m", "Running"), pod("done", "900m", "Succeeded")];
        let none = Known::new();
        let of = |cpu: &str, others: &[Arc<Pod>], known: &Known| {
            verdict(&pod("u", cpu, "Running"), others, known)
        };
        assert_eq!(of("600m", &others, &none), None);
        let deferred = of("601m", &others, &none).unwrap();
        assert_eq!(deferred.reason, "Deferred");
        assert_eq!(
            deferred.message,
            "Node didn't have enough resource: cpu, requested: 601, used: 400, capacity: 1000"
        );
        let infeasible = of("1001m", &others, &none).unwrap();
        assert_eq!(infeasible.reason, "Infeasible");
        assert_eq!(
            infeasible.message,
            "Node didn't have enough capacity: cpu, requested: 1001, capacity: 1000"
        );
        // What the other asks for counts only once it has it.
        let given = resize::asked(&pod("o", "100m", "Running"));
        let small = resize::asked(&pod("u", "100m", "Running"));
        let known = Known::from([("o".into(), given), ("u".into(), small)]);
        assert_eq!(of("600m", &others, &known), None);
        // The pod itself is not in its own way.
        assert_eq!(of("900m", &[pod("u", "500m", "Running")], &none), None);
    }

    #[test]
    fn those_who_wait_are_served_in_order() {
        let with = |uid: &str, change: &dyn Fn(&mut Pod)| {
            let mut made = Pod::clone(&pod(uid, "600m", "Running"));
            change(&mut made);
            Arc::new(made)
        };
        let since = |second: i64| {
            move |pod: &mut Pod| {
                pod.status = serde_json::from_value(json!({"conditions": [{"type": RESIZE_PENDING,
                    "status": "True", "lastTransitionTime": Timestamp::from_second(second).unwrap()}]}))
                .unwrap();
            }
        };
        let important = with("a", &|p| p.spec.as_mut().unwrap().priority = Some(1000));
        let guaranteed = with("b", &|p| {
            p.status.as_mut().unwrap().qos_class = Some("Guaranteed".into());
        });
        let (early, late) = (with("c", &since(1)), with("d", &since(2)));
        let mut all = vec![late, early, guaranteed, important];
        let small = || resize::asked(&pod("x", "100m", "Running"));
        let known: Known =
            ["a", "b", "c", "d"].into_iter().map(|uid| (uid.to_owned(), small())).collect();
        for next in ["a", "b", "c", "d"] {
            let served = all.iter().filter(|p| verdict(p, &all, &known).is_none());
            assert_eq!(served.map(|p| containers::uid(p)).collect::<Vec<_>>(), [next]);
            all.retain(|p| containers::uid(p) != next);
        }
    }
}
