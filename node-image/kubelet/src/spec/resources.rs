//! Requests and limits as cgroup settings, and the pod's quality-of-service class.

use std::collections::BTreeMap;

use cri::pb::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::Quantity;

use super::containers;
use super::resize::Settings;
use crate::config::CgroupDriver;

/// Microseconds: the period over which CPU quota is counted.
const CPU_PERIOD: i64 = 100_000;
/// The smallest quota and share that the kernel takes.
const MIN_QUOTA: i64 = 1_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// Quality of service (`status.qosClass`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Every container has CPU and memory limits, and requests equal to them.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// Nothing is asked for.
    BestEffort,
}

impl Qos {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

fn amount(map: Option<&BTreeMap<String, ApiQuantity>>, name: &str) -> Option<Quantity> {
    map?.get(name)?.0.parse().ok()
}

/// A container's limit of `resource`, if it has one.
pub fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.limits.as_ref(), resource)
}

/// A container's request of `resource`; its limit when only that is given.
pub fn request(container: &Container, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    amount(resources.requests.as_ref(), resource)
        .or_else(|| amount(resources.limits.as_ref(), resource))
}

/// The pod's class: from its status if the API server has set it, else worked out.
pub fn qos(pod: &Pod) -> Qos {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => return Qos::Guaranteed,
        Some("Burstable") => return Qos::Burstable,
        Some("BestEffort") => return Qos::BestEffort,
        _ => {}
    }
    let all = || containers::init(pod).iter().chain(containers::app(pod));
    let asked = |c: &Container| {
        ["cpu", "memory"].iter().any(|r| request(c, r).is_some_and(|q| !q.is_zero()))
    };
    if !all().any(asked) {
        return Qos::BestEffort;
    }
    let guaranteed = all().all(|c| {
        ["cpu", "memory"].iter().all(|r| match (limit(c, r), request(c, r)) {
            (Some(limit), Some(request)) => !limit.is_zero() && limit == request,
            _ => false,
        })
    });
    if guaranteed { Qos::Guaranteed } else { Qos::Burstable }
}

/// `cpu.shares` for millicores.
pub fn shares(millis: i64) -> i64 {
    (millis * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// The millicores for which [`shares`] are these.
pub fn millis_of_shares(shares: i64) -> i64 {
    (shares * 1000 + 1023) / 1024
}

/// CPU quota and its period for a limit in millicores, microseconds; 0 for none.
pub fn quota(millis: i64) -> (i64, i64) {
    match millis {
        ..=0 => (0, 0),
        _ => ((millis * CPU_PERIOD / 1000).max(MIN_QUOTA), CPU_PERIOD),
    }
}

/// The kernel's preference to kill the container when memory runs out, −997 to 1000.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: i64) -> i64 {
    let critical = containers::spec(pod).priority.is_some_and(|p| p >= 2_000_000_000);
    if critical {
        return -997;
    }
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = request(container, "memory").map_or(0, Quantity::value);
            let score = 1000 - 1000 * request / node_memory.max(1);
            // Never as safe as a guaranteed pod, never as exposed as a best-effort one.
            score.clamp(3, 999)
        }
    }
}

/// The cgroup settings of one container. `node_memory` in bytes.
pub fn linux(pod: &Pod, container: &Container, node_memory: i64) -> LinuxContainerResources {
    LinuxContainerResources {
        oom_score_adj: oom_score_adj(pod, container, node_memory),
        ..Settings::of(container).linux()
    }
}

/// The pod's cgroup for the runtime, below `root` (empty or an absolute path).
pub fn cgroup_parent(pod: &Pod, driver: CgroupDriver, root: &str) -> String {
    let uid = containers::uid(pod);
    let class = match qos(pod) {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    };
    match driver {
        CgroupDriver::Cgroupfs => match class {
            Some(class) => format!("{root}/kubepods/{class}/pod{uid}"),
            None => format!("{root}/kubepods/pod{uid}"),
        },
        CgroupDriver::Systemd => {
            let uid = uid.replace('-', "_");
            match class {
                Some(class) => format!("kubepods-{class}-pod{uid}.slice"),
                None => format!("kubepods-pod{uid}.slice"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"uid": "u-1"},
            "spec": {"containers": [{"name": "a", "resources": resources}]}}))
        .unwrap()
    }

    #[test]
    fn classes() {
        assert_eq!(qos(&pod(serde_json::json!({}))), Qos::BestEffort);
        let burstable = pod(serde_json::json!({"requests": {"cpu": "100m"}}));
        assert_eq!(qos(&burstable), Qos::Burstable);
        let guaranteed = pod(serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}}));
        assert_eq!(qos(&guaranteed), Qos::Guaranteed);
        assert_eq!(
            cgroup_parent(&burstable, CgroupDriver::Cgroupfs, ""),
            "/kubepods/burstable/podu-1"
        );
        assert_eq!(cgroup_parent(&guaranteed, CgroupDriver::Cgroupfs, "/x"), "/x/kubepods/podu-1");
        assert_eq!(
            cgroup_parent(&burstable, CgroupDriver::Systemd, ""),
            "kubepods-burstable-podu_1.slice"
        );
    }

    #[test]
    fn cgroup_values() {
        let pod = pod(
            serde_json::json!({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1500m"}}),
        );
        let linux = linux(&pod, &containers::app(&pod)[0], 4 << 30);
        assert_eq!((linux.cpu_shares, linux.cpu_quota, linux.cpu_period), (256, 150_000, 100_000));
        assert_eq!(linux.memory_limit_in_bytes, 0);
        assert_eq!(linux.oom_score_adj, 750);
        assert_eq!(shares(0), 2);
        for millis in [2, 15, 20, 27, 333, 1000, 1001, 64_000] {
            assert_eq!(millis_of_shares(shares(millis)), millis);
        }
    }
}
