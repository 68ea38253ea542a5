//! What hosts have left, as this pass gives it away.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{HostSeen, Intent, MemberKind, Observed, Size};

/// Memory that stays with the host, MiB.
const HOST_RESERVE_MIB: u64 = 512;
/// Free disk that a host keeps, GiB.
const DISK_RESERVE_GIB: u64 = 2;
/// Virtual CPUs per processor: workers are seldom busy at the same time.
const CPU_OVERCOMMIT: u64 = 8;

/// What a member needs, MiB: the idle size of its process several times over.
fn member_mib(kind: MemberKind) -> u64 {
    match kind {
        MemberKind::Etcd => 96,
        MemberKind::ApiServer => 192,
        MemberKind::ControllerManager | MemberKind::Scheduler => 64,
    }
}

/// What a worker takes from its host, MiB. A machine takes what it has; a sandbox shares the
/// host's memory and takes what its pods use, counted as a quarter.
fn worker_mib(driver: &str, size: Size) -> u64 {
    if driver == "sandbox" { size.memory_mib / 4 } else { size.memory_mib }
}

/// What each host has left.
pub(crate) struct Room {
    hosts: BTreeMap<String, Left>,
}

#[derive(Default)]
struct Left {
    memory_mib: u64,
    vcpus: u64,
    disk_gib: u64,
    ports: BTreeSet<u16>,
    range: (u16, u16),
}

impl Left {
    fn of(host: &HostSeen) -> Self {
        Self {
            memory_mib: host.memory_mib.saturating_sub(HOST_RESERVE_MIB),
            vcpus: host.vcpus * CPU_OVERCOMMIT,
            disk_gib: host.disk_free_gib.saturating_sub(DISK_RESERVE_GIB),
            ports: BTreeSet::new(),
            range: host.ports,
        }
    }

    fn free_ports(&self, count: usize) -> Option<Vec<u16>> {
        let (first, last) = self.range;
        let mut free = (first.max(1)..=last).filter(|port| !self.ports.contains(port));
        let ports: Vec<u16> = free.by_ref().take(count).collect();
        (ports.len() == count && first > 0).then_some(ports)
    }
}

impl Room {
    /// What is left beside everything that exists, also what is being removed.
    pub(crate) fn new(intent: &Intent, observed: &Observed) -> Self {
        let mut hosts: BTreeMap<String, Left> =
            observed.hosts.iter().map(|host| (host.id.clone(), Left::of(host))).collect();
        for cluster in &intent.clusters {
            let Some(seen) = observed.clusters.get(&cluster.id) else { continue };
            for member in &seen.members {
                let Some(left) = hosts.get_mut(&member.host) else { continue };
                left.memory_mib = left.memory_mib.saturating_sub(member_mib(member.kind));
                left.ports.extend(&member.ports);
            }
            for node in &seen.nodes {
                let Some(left) = hosts.get_mut(&node.host) else { continue };
                let taken = worker_mib(&node.driver, node.size);
                left.memory_mib = left.memory_mib.saturating_sub(taken);
                left.vcpus = left.vcpus.saturating_sub(node.size.vcpus);
            }
        }
        Self { hosts }
    }

    /// A host for a whole control plane: the one with the most memory left. `Err` says why there
    /// is none.
    pub(crate) fn place(&self, observed: &Observed, ha: bool) -> Result<String, String> {
        let mut best: Option<(u64, &HostSeen)> = None;
        let mut reasons = Vec::new();
        for host in &observed.hosts {
            match self.reason_against(host, ha) {
                Some(reason) => reasons.push(reason),
                None => {
                    let left = self.hosts.get(&host.id).map_or(0, |left| left.memory_mib);
                    if best.is_none_or(|(most, _)| left > most) {
                        best = Some((left, host));
                    }
                }
            }
        }
        match best {
            Some((_, host)) => Ok(host.id.clone()),
            None if reasons.is_empty() => {
                Err("No host can take the control plane: none is registered.".to_owned())
            }
            None => Err(format!("No host can take the control plane: {}.", reasons.join("; "))),
        }
    }

    fn reason_against(&self, host: &HostSeen, ha: bool) -> Option<String> {
        let name = &host.name;
        if !host.alive {
            return Some(format!("host {name} does not answer"));
        }
        if !host.schedulable {
            return Some(format!("host {name} takes no new tenants"));
        }
        let left = self.hosts.get(&host.id)?;
        let need: u64 = MemberKind::ALL.iter().map(|k| member_mib(*k) * k.count(ha) as u64).sum();
        if left.memory_mib < need {
            let has = left.memory_mib;
            return Some(format!("host {name} has {has} MiB of memory left, {need} are needed"));
        }
        if left.disk_gib == 0 {
            return Some(format!("host {name} has no disk space left"));
        }
        let ports = MemberKind::ALL.iter().map(|k| k.ports().len() * k.count(ha)).sum();
        if left.free_ports(ports).is_none() {
            return Some(format!("host {name} has no ports left"));
        }
        None
    }

    /// Takes what a member needs. The ports, or `None` when there are too few.
    pub(crate) fn take_member(&mut self, host: &str, kind: MemberKind) -> Option<Vec<u16>> {
        let left = self.hosts.get_mut(host)?;
        let ports = left.free_ports(kind.ports().len())?;
        left.ports.extend(&ports);
        left.memory_mib = left.memory_mib.saturating_sub(member_mib(kind));
        Some(ports)
    }

    /// Takes what a worker needs, or says why it cannot be had.
    pub(crate) fn take_worker(
        &mut self,
        host: &HostSeen,
        driver: &str,
        size: Size,
    ) -> Result<(), String> {
        let name = &host.name;
        if !host.alive {
            return Err(format!("host {name} does not answer"));
        }
        match host.drivers.get(driver) {
            None => return Err(format!("host {name} has no {driver} driver")),
            Some(seen) if !seen.usable => {
                let why = seen.message.trim_end_matches('.');
                return Err(format!("host {name} cannot run {driver} workers: {why}"));
            }
            Some(_) => {}
        }
        let Some(left) = self.hosts.get_mut(&host.id) else {
            return Err(format!("host {name} is unknown"));
        };
        let need = worker_mib(driver, size);
        if left.memory_mib < need {
            let has = left.memory_mib;
            return Err(format!("host {name} has {has} MiB of memory left, {need} are needed"));
        }
        if left.vcpus < size.vcpus {
            let (has, need) = (left.vcpus, size.vcpus);
            return Err(format!("host {name} has {has} virtual CPUs left, {need} are needed"));
        }
        if left.disk_gib == 0 {
            return Err(format!("host {name} has no disk space left"));
        }
        left.memory_mib -= need;
        left.vcpus -= size.vcpus;
        Ok(())
    }
}
