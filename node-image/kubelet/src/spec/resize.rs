//! Resizing in place (KEP-1287): what a pod asks for, what it was given, and what of that a
//! running container does not have yet.
//!
//! ```text
//! asked (spec) ──judged against the node──► given (allocation) ──runtime──► in effect (container)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use cri::pb;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::Quantity;

use super::{containers, resources};

/// Requests and limits that a pod was given, by container name.
pub type Allocation = BTreeMap<String, ResourceRequirements>;

/// What can be resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
}

impl Resource {
    /// The API's name.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Cpu => "cpu",
        }
    }
}

/// What of a running container the runtime can change. 0 is "not limited".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `cpu.shares`, as in cgroup v1 whatever the node has.
    pub shares: i64,
    /// Microseconds of processor time per period.
    pub quota: i64,
    /// Microseconds.
    pub period: i64,
    /// The limit, bytes.
    pub memory: i64,
}

impl Settings {
    /// What a container with these requests and limits gets.
    pub fn of(container: &Container) -> Self {
        let cpu = resources::limit(container, "cpu").map_or(0, Quantity::milli_value);
        let (quota, period) = resources::quota(cpu);
        let request = resources::request(container, "cpu").map_or(0, Quantity::milli_value);
        Self {
            shares: resources::shares(request),
            quota,
            period,
            memory: resources::limit(container, "memory").map_or(0, Quantity::value),
        }
    }

    /// What the runtime says of a container.
    pub fn reported(linux: &pb::LinuxContainerResources) -> Self {
        Self {
            shares: linux.cpu_shares,
            quota: linux.cpu_quota.max(0),
            period: linux.cpu_period,
            memory: linux.memory_limit_in_bytes.max(0),
        }
    }

    /// As the runtime is told.
    pub fn linux(self) -> pb::LinuxContainerResources {
        pb::LinuxContainerResources {
            cpu_shares: self.shares,
            cpu_quota: self.quota,
            cpu_period: self.period,
            memory_limit_in_bytes: self.memory,
            // No swap beyond the limit; without one the runtime's default stays.
            memory_swap_limit_in_bytes: self.memory,
            ..Default::default()
        }
    }

    /// Whether this is what `wanted` says of a resource. A limit that is not wanted is no
    /// difference: limits cannot be taken away from a running container.
    pub fn has(self, wanted: Settings, resource: Resource) -> bool {
        match resource {
            Resource::Memory => wanted.memory == 0 || self.memory == wanted.memory,
            Resource::Cpu => {
                let quota = (self.quota, self.period) == (wanted.quota, wanted.period);
                self.shares == wanted.shares && (wanted.quota == 0 || quota)
            }
        }
    }

    /// With `wanted`'s values of one resource.
    pub fn with(self, wanted: Settings, resource: Resource) -> Self {
        match resource {
            Resource::Memory => Self { memory: wanted.memory, ..self },
            Resource::Cpu => Self { memory: self.memory, ..wanted },
        }
    }

    /// Whether `wanted` is less of a resource than this.
    pub fn exceeds(self, wanted: Settings, resource: Resource) -> bool {
        let less = |have: i64, want: i64| want != 0 && (have == 0 || want < have);
        match resource {
            Resource::Memory => less(self.memory, wanted.memory),
            Resource::Cpu if self.quota == wanted.quota => wanted.shares < self.shares,
            Resource::Cpu => less(self.quota, wanted.quota),
        }
    }
}

/// The containers whose resources can change, with what they ask for.
pub fn asked(pod: &Pod) -> Allocation {
    let sidecars = containers::init(pod).iter().filter(|c| containers::is_sidecar(c));
    let all = sidecars.chain(containers::app(pod));
    all.map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect()
}

fn amount(list: Option<&BTreeMap<String, ApiQuantity>>, name: &str) -> Option<Quantity> {
    list?.get(name)?.0.parse().ok()
}

/// Whether two say the same of one resource; `1` and `1000m` are the same.
pub fn agree(a: &ResourceRequirements, b: &ResourceRequirements, resource: Resource) -> bool {
    let name = resource.name();
    let of = |r: &ResourceRequirements| {
        (amount(r.requests.as_ref(), name), amount(r.limits.as_ref(), name))
    };
    of(a) == of(b)
}

fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    agree(a, b, Resource::Memory) && agree(a, b, Resource::Cpu)
}

/// Whether the pod was given what it asks for.
pub fn is_settled(asked: &Allocation, given: &Allocation) -> bool {
    asked.iter().all(|(name, want)| given.get(name).is_some_and(|have| same(want, have)))
}

/// The pod with the resources that it was given in place of those that it asks for.
pub fn given(pod: &Arc<Pod>, allocation: Option<&Allocation>) -> Arc<Pod> {
    let Some(allocation) = allocation.filter(|a| !is_settled(&asked(pod), a)) else {
        return pod.clone();
    };
    let mut pod = Pod::clone(pod);
    if let Some(spec) = &mut pod.spec {
        let init = spec.init_containers.iter_mut().flatten();
        let sidecars = init.filter(|c| containers::is_sidecar(c));
        for container in sidecars.chain(&mut spec.containers) {
            if let Some(given) = allocation.get(&container.name) {
                container.resources = Some(given.clone());
            }
        }
    }
    Arc::new(pod)
}

/// What is known of a running container.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Requests and limits when it was made.
    pub made_with: Option<&'a ResourceRequirements>,
    /// What the runtime was told last.
    pub told: Option<Settings>,
    /// What the runtime says.
    pub reported: Option<Settings>,
}

/// What a running container needs to have what it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// It is to be made anew: its `resizePolicy` wants that.
    pub restart: bool,
    /// Resources that the runtime is to change.
    pub update: Vec<Resource>,
}

/// Whether a change of the resource restarts the container.
pub fn restarts(container: &Container, resource: Resource) -> bool {
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|p| p.resource_name == resource.name() && p.restart_policy == "RestartContainer")
}

/// Compares what a running container has with what it was given. A container that the runtime
/// says nothing of, and that was told nothing, is told once.
pub fn due(container: &Container, known: Known<'_>) -> Due {
    let wanted = Settings::of(container);
    let given = container.resources.clone().unwrap_or_default();
    let mut due = Due::default();
    for resource in [Resource::Memory, Resource::Cpu] {
        let seen = [known.told, known.reported];
        let has = seen.iter().flatten().any(|s| s.has(wanted, resource));
        if restarts(container, resource) {
            let as_made = known.made_with.map(|made| agree(made, &given, resource));
            due.restart |= !as_made.unwrap_or(has || seen == [None, None]);
        } else if !has {
            due.update.push(resource);
        }
    }
    due
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
