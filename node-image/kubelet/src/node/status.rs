//! `Node.status`, as a pure function of what was measured.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::quantity::Quantity;

use super::machine::{Disk, Machine};
use crate::config::Config;

/// How many images are listed, largest first.
const IMAGES: usize = 50;

/// What was measured just now.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Measured {
    /// Why the runtime or its network is not ready; `None` when both are.
    pub not_ready: Option<String>,
    pub memory_available: i64,
    pub disk: Disk,
    pub pids: Option<(u64, u64)>,
    pub images: Vec<cri::pb::Image>,
    pub runtime_version: String,
    pub handlers: Vec<cri::pb::RuntimeHandler>,
}

fn quantity(q: Quantity) -> ApiQuantity {
    ApiQuantity(q.to_string())
}

/// Capacity and allocatable.
pub fn resources(
    config: &Config,
    machine: &Machine,
    disk: Disk,
) -> [BTreeMap<String, ApiQuantity>; 2] {
    let total: i64 = disk.total.try_into().unwrap_or(i64::MAX);
    // Upstream keeps the hard eviction threshold of the disk out of allocatable.
    let disk_kept = (total as f64 * config.disk_available_min) as i64;
    let kibibytes = |bytes: i64| Quantity::from_bytes(bytes / 1024 * 1024);
    let mut capacity = BTreeMap::from([
        ("cpu".to_owned(), Quantity::from_units(machine.cpus)),
        ("memory".to_owned(), kibibytes(machine.memory)),
        ("pods".to_owned(), Quantity::from_units(config.max_pods.into())),
        ("ephemeral-storage".to_owned(), kibibytes(total)),
        ("hugepages-1Gi".to_owned(), Quantity::from_units(0)),
        ("hugepages-2Mi".to_owned(), Quantity::from_units(0)),
    ]);
    let mut allocatable = capacity.clone();
    let mut take = |name: &str, amount: Quantity| {
        if let Some(have) = allocatable.get_mut(name) {
            *have = if *have > amount { *have - amount } else { Quantity::from_units(0) };
        }
    };
    for (name, amount) in &config.reserved {
        take(name, *amount);
    }
    take("memory", Quantity::from_bytes(config.memory_available_min));
    take("ephemeral-storage", kibibytes(disk_kept));
    let show = |map: &mut BTreeMap<String, Quantity>| {
        map.iter().map(|(k, v)| (k.clone(), quantity(*v))).collect()
    };
    [show(&mut capacity), show(&mut allocatable)]
}

struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

fn verdicts(config: &Config, measured: &Measured) -> [Verdict; 4] {
    let pressure = |kind, holds, yes: (&'static str, &str), no: (&'static str, &str)| {
        let (reason, message) = if holds { yes } else { no };
        Verdict { kind, holds, reason, message: message.to_owned() }
    };
    let free = measured.disk.free as f64 / (measured.disk.total.max(1)) as f64;
    let disk = measured.disk.total > 0 && free < config.disk_available_min;
    let pids = measured.pids.is_some_and(|(used, max)| used * 100 > max * 95);
    let ready = match &measured.not_ready {
        None => Verdict {
            kind: "Ready",
            holds: true,
            reason: "KubeletReady",
            message: "kubelet is posting ready status".into(),
        },
        Some(why) => {
            Verdict { kind: "Ready", holds: false, reason: "KubeletNotReady", message: why.clone() }
        }
    };
    [
        pressure(
            "MemoryPressure",
            measured.memory_available < config.memory_available_min,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ]
}

fn conditions(
    config: &Config,
    measured: &Measured,
    old: &NodeStatus,
    now: Timestamp,
) -> Vec<NodeCondition> {
    let mut conditions: Vec<_> = verdicts(config, measured)
        .into_iter()
        .map(|v| {
            let status = if v.holds { "True" } else { "False" };
            let before = old.conditions.iter().flatten().find(|c| c.type_ == v.kind);
            let since =
                before.filter(|b| b.status == status).and_then(|b| b.last_transition_time.clone());
            NodeCondition {
                type_: v.kind.to_owned(),
                status: status.to_owned(),
                reason: Some(v.reason.to_owned()),
                message: Some(v.message),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: since.or(Some(Time(now))),
            }
        })
        .collect();
    let own: Vec<_> = conditions.iter().map(|c| c.type_.clone()).collect();
    conditions.extend(old.conditions.iter().flatten().filter(|c| !own.contains(&c.type_)).cloned());
    conditions
}

fn images(mut images: Vec<cri::pb::Image>) -> Vec<ContainerImage> {
    images.sort_by_key(|i| std::cmp::Reverse(i.size));
    let one = |i: cri::pb::Image| {
        let names: Vec<_> = i.repo_digests.into_iter().chain(i.repo_tags).take(5).collect();
        ContainerImage { names: Some(names), size_bytes: i.size.try_into().ok() }
    };
    images
        .into_iter()
        .filter(|i| !i.repo_tags.is_empty() || !i.repo_digests.is_empty())
        .take(IMAGES)
        .map(one)
        .collect()
}

fn info(machine: &Machine, runtime_version: &str) -> NodeSystemInfo {
    NodeSystemInfo {
        architecture: machine.architecture.to_owned(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: runtime_version.to_owned(),
        kernel_version: machine.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: crate::VERSION.to_owned(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        swap: None,
        system_uuid: machine.system_uuid.clone(),
    }
}

/// The whole status. Conditions and fields of other writers are kept from `old`.
pub fn build(
    config: &Config,
    machine: &Machine,
    ip: IpAddr,
    measured: Measured,
    old: &NodeStatus,
    now: Timestamp,
) -> NodeStatus {
    let conditions = conditions(config, &measured, old, now);
    let [capacity, allocatable] = resources(config, machine, measured.disk);
    let address =
        |kind: &str, value: String| NodeAddress { type_: kind.to_owned(), address: value };
    let endpoint = config.server.map(|s| DaemonEndpoint { port: s.port().into() });
    let handlers = measured.handlers.into_iter().map(|h| NodeRuntimeHandler {
        name: Some(h.name),
        features: h.features.map(|f| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
            user_namespaces: Some(f.user_namespaces),
        }),
    });
    let handlers: Vec<_> = handlers.collect();
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: endpoint }),
        images: Some(images(measured.images)),
        node_info: Some(info(machine, &measured.runtime_version)),
        runtime_handlers: (!handlers.is_empty()).then_some(handlers),
        ..old.clone()
    }
}

/// Whether two statuses say the same, leaving heartbeat times aside.
pub fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |s: &NodeStatus| {
        let mut s = s.clone();
        for condition in s.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        s
    };
    still(a) == still(b)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn config() -> Config {
        Config::load(crate::flags::Flags::parse_from(["kubelet", "--hostname-override", "n"]))
            .unwrap()
    }

    fn measured() -> Measured {
        Measured {
            memory_available: 1 << 30,
            disk: Disk { total: 100 << 30, free: 50 << 30, ..Default::default() },
            pids: Some((100, 32768)),
            ..Default::default()
        }
    }

    fn status(measured: Measured, old: &NodeStatus, second: i64) -> NodeStatus {
        let machine = Machine { cpus: 2, memory: 4 << 30, ..Default::default() };
        build(
            &config(),
            &machine,
            "10.0.1.5".parse().unwrap(),
            measured,
            old,
            Timestamp::from_second(second).unwrap(),
        )
    }

    fn condition(status: &NodeStatus, kind: &str) -> NodeCondition {
        status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap().clone()
    }

    #[test]
    fn ready_and_not() {
        let old = NodeStatus::default();
        let ready = status(measured(), &old, 10);
        assert_eq!(condition(&ready, "Ready").status, "True");
        assert_eq!(condition(&ready, "DiskPressure").status, "False");
        assert_eq!(ready.allocatable.as_ref().unwrap()["memory"].0, "3996Mi");
        let broken =
            status(Measured { not_ready: Some("no network".into()), ..measured() }, &ready, 20);
        let ready_now = condition(&broken, "Ready");
        assert_eq!(
            (ready_now.status.as_str(), ready_now.message.as_deref()),
            ("False", Some("no network"))
        );
        assert_eq!(ready_now.last_transition_time, Some(Time(Timestamp::from_second(20).unwrap())));
        assert_eq!(
            condition(&broken, "DiskPressure").last_transition_time,
            Some(Time(Timestamp::from_second(10).unwrap()))
        );
    }

    #[test]
    fn pressure_is_noticed_and_heartbeats_are_no_change() {
        let a = status(measured(), &NodeStatus::default(), 10);
        let b = status(measured(), &a, 20);
        assert!(same(&a, &b));
        let full = Disk { total: 100, free: 5, ..Default::default() };
        let c = status(Measured { disk: full, memory_available: 1, ..measured() }, &a, 20);
        assert_eq!(condition(&c, "DiskPressure").status, "True");
        assert_eq!(condition(&c, "MemoryPressure").status, "True");
        assert!(!same(&a, &c));
    }
}
