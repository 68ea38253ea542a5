//! A region in memory: carries actions out as the controller and the agents would, when told to.
#![allow(clippy::unwrap_used)]

mod print;

use std::fmt::Write;

use provisioner_plan::{
    Action, ClusterIntent, ClusterSeen, DriverSeen, GroupIntent, HostSeen, Intent, MemberKind,
    MemberSeen, MemberState, NodePhase, NodeSeen, Observed, Size, plan,
};

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

#[derive(Default)]
pub struct World {
    pub intent: Intent,
    pub observed: Observed,
    made: usize,
}

impl World {
    /// One line of a script; returns what it prints.
    pub fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["host", name, memory, drivers @ ..] => self.add_host(name, number(memory), drivers),
            ["cluster", name, kind] => self.add_cluster(name, *kind == "ha"),
            ["group", cluster, name, desired, driver, memory] => {
                self.add_group(cluster, name, number(desired) as usize, driver, number(memory));
            }
            ["pods", cluster, cidr] => self.cluster(cluster).pod_cidr = cidr.parse().unwrap(),
            ["scale", cluster, name, desired] => {
                let group = self.group(cluster, name);
                group.desired = number(desired) as usize;
                group.generation += 1;
            }
            ["delete", cluster] => self.cluster(cluster).deleting = true,
            ["delete-group", cluster, name] => self.group(cluster, name).deleting = true,
            ["host-down", name] => self.host(name).alive = false,
            ["host-up", name] => self.host(name).alive = true,
            ["advance", seconds] => self.observed.now_ms += number(seconds) as i64 * 1000,
            ["member", cluster, kind, state] => self.set_members(cluster, kind, state),
            ["node", name, phase] => self.set_node(name, phase),
            ["plan"] => return self.plan(),
            ["settle"] => return self.settle(),
            _ => panic!("unknown command {line:?}"),
        }
        String::new()
    }

    fn add_host(&mut self, name: &str, memory_mib: u64, drivers: &[&str]) {
        let seen = |name: &&str| {
            let seen = DriverSeen {
                usable: !name.starts_with('!'),
                message: "the program is missing".to_owned(),
            };
            (name.trim_start_matches('!').to_owned(), seen)
        };
        self.observed.hosts.push(HostSeen {
            id: name.to_owned(),
            name: name.to_owned(),
            alive: true,
            schedulable: true,
            vcpus: 4,
            memory_mib,
            disk_free_gib: 100,
            ports: (20_000, 20_039),
            drivers: drivers.iter().map(seen).collect(),
        });
    }

    fn add_cluster(&mut self, name: &str, ha: bool) {
        self.intent.clusters.push(ClusterIntent {
            id: name.to_owned(),
            ha,
            generation: 1,
            created_ms: self.observed.now_ms,
            deleting: false,
            vpc_cidr: "10.0.0.0/16".parse().unwrap(),
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            groups: Vec::new(),
        });
        self.observed.clusters.insert(name.to_owned(), ClusterSeen::default());
    }

    fn add_group(&mut self, cluster: &str, name: &str, desired: usize, driver: &str, memory: u64) {
        let group = GroupIntent {
            id: name.to_owned(),
            name: name.to_owned(),
            desired,
            driver: driver.to_owned(),
            size: Size { vcpus: 1, memory_mib: memory, disk_gib: 10 },
            generation: 1,
            deleting: false,
        };
        self.cluster(cluster).groups.push(group);
    }

    fn cluster(&mut self, name: &str) -> &mut ClusterIntent {
        self.intent.clusters.iter_mut().find(|c| c.id == name).expect("a known cluster")
    }

    fn group(&mut self, cluster: &str, name: &str) -> &mut GroupIntent {
        let groups = &mut self.cluster(cluster).groups;
        groups.iter_mut().find(|g| g.name == name).expect("a known group")
    }

    fn host(&mut self, name: &str) -> &mut HostSeen {
        self.observed.hosts.iter_mut().find(|h| h.name == name).expect("a known host")
    }

    fn seen(&mut self, cluster: &str) -> &mut ClusterSeen {
        self.observed.clusters.get_mut(cluster).expect("a known cluster")
    }

    fn set_members(&mut self, cluster: &str, kind: &str, state: &str) {
        let (state, message) = match state {
            "ready" => (MemberState::Ready, ""),
            "failed" => (MemberState::Failed, "exited with code 1"),
            other => panic!("unknown state {other}"),
        };
        for member in &mut self.seen(cluster).members {
            if member.kind.as_str() == kind {
                member.state = state;
                member.message = message.to_owned();
            }
        }
    }

    fn set_node(&mut self, name: &str, phase: &str) {
        let phase = match phase {
            "ready" => NodePhase::Ready,
            "not-ready" => NodePhase::NotReady,
            "exited" => NodePhase::Exited,
            other => panic!("unknown phase {other}"),
        };
        let now = self.observed.now_ms;
        let mut nodes = self.observed.clusters.values_mut().flat_map(|c| &mut c.nodes);
        let node = nodes.find(|n| n.name == name).expect("a known node");
        node.phase = phase;
        node.phase_since_ms = now;
        node.joined |= phase == NodePhase::Ready;
    }

    /// Plans, audits, prints, carries out.
    fn plan(&mut self) -> String {
        let actions = plan(&self.intent, &self.observed);
        let wrong = crate::checker::audit(&self.intent, &self.observed, &actions);
        assert!(wrong.is_empty(), "{wrong:#?}\nin {actions:#?}");
        let mut out = String::new();
        for action in &actions {
            writeln!(out, "  {}", print::describe(action)).unwrap();
        }
        for action in actions {
            self.execute(action);
        }
        if out.is_empty() { "  nothing to do\n".to_owned() } else { out }
    }

    /// Agents do their part and plans follow until there is nothing to do. Prints events, and
    /// decisions about nodes.
    fn settle(&mut self) -> String {
        let mut out = String::new();
        for _ in 0..40 {
            self.agents();
            let printed = self.plan();
            if printed == "  nothing to do\n" {
                return out;
            }
            let dull = [": report ", ": place ", ": issue ", ": start ", "authorities"];
            for line in printed.lines().filter(|line| !dull.iter().any(|d| line.contains(d))) {
                writeln!(out, "{line}").unwrap();
            }
        }
        panic!("it does not settle:\n{out}");
    }

    fn agents(&mut self) {
        let now = self.observed.now_ms;
        let hosts = &self.observed.hosts;
        let alive = |host: &str| hosts.iter().any(|h| h.id == host && h.alive);
        for (id, seen) in &mut self.observed.clusters {
            if self.intent.clusters.iter().any(|c| c.id == *id && c.deleting) {
                seen.present_on.retain(|host| !alive(host));
                continue;
            }
            for member in seen.members.iter_mut().filter(|m| m.started && alive(&m.host)) {
                if member.state == MemberState::Waiting {
                    member.state = MemberState::Ready;
                }
            }
            seen.vpc_ready |= !seen.members.is_empty();
            let serves =
                |m: &MemberSeen| m.kind == MemberKind::ApiServer && m.state == MemberState::Ready;
            seen.addons_done |= seen.members.iter().any(serves);
            for node in seen.nodes.iter_mut().filter(|n| alive(&n.host)) {
                if node.deleting {
                    node.present = false;
                } else if node.phase == NodePhase::Pending {
                    node.phase = NodePhase::Ready;
                    node.phase_since_ms = now;
                    node.joined = true;
                }
            }
        }
    }

    fn execute(&mut self, action: Action) {
        let now = self.observed.now_ms;
        match action {
            Action::MakePki { cluster } => self.seen(&cluster).has_pki = true,
            Action::PlaceMember { cluster, kind, ordinal, host, ports } => {
                let ports = ports.iter().map(|(_, port)| *port).collect();
                self.place(&cluster, kind, ordinal, host, ports);
            }
            Action::IssueCertificates { cluster, member } => {
                self.member(&cluster, &member).certificates_until_ms = Some(now + YEAR_MS);
            }
            Action::StartMember { cluster, member } => {
                self.member(&cluster, &member).started = true;
            }
            Action::CreateNode { cluster, group, host, address } => {
                self.create_node(&cluster, group, host, address);
            }
            Action::RemoveNode { cluster, node, .. } => {
                let nodes = &mut self.seen(&cluster).nodes;
                let node = nodes.iter_mut().find(|n| n.id == node).unwrap();
                node.deleting = true;
                node.phase = NodePhase::Deleting;
            }
            Action::ForgetNode { cluster, node } => {
                self.seen(&cluster).nodes.retain(|n| n.id != node);
            }
            Action::RemoveGroup { cluster, group } => {
                self.cluster(&cluster).groups.retain(|g| g.id != group);
            }
            Action::RemoveCluster { cluster } => {
                self.intent.clusters.retain(|c| c.id != cluster);
                self.observed.clusters.remove(&cluster);
            }
            Action::ReportCluster { cluster, status } => self.seen(&cluster).status = Some(status),
            Action::ReportGroup { cluster, group, status } => {
                self.seen(&cluster).groups.insert(group, status);
            }
            Action::Event(_) => {}
        }
    }

    fn place(
        &mut self,
        cluster: &str,
        kind: MemberKind,
        ordinal: usize,
        host: String,
        ports: Vec<u16>,
    ) {
        let seen = self.seen(cluster);
        if !seen.present_on.contains(&host) {
            seen.present_on.push(host.clone());
        }
        seen.members.push(MemberSeen {
            id: format!("{}-{ordinal}", kind.as_str()),
            kind,
            ordinal,
            host,
            ports,
            certificates_until_ms: None,
            started: false,
            current: true,
            state: MemberState::Waiting,
            message: String::new(),
        });
    }

    fn create_node(
        &mut self,
        cluster: &str,
        group: String,
        host: String,
        address: std::net::Ipv4Addr,
    ) {
        self.made += 1;
        let (name, now) = (format!("w{}", self.made), self.observed.now_ms);
        let intent = self.cluster(cluster).groups.iter().find(|g| g.id == group).unwrap();
        let (driver, size) = (intent.driver.clone(), intent.size);
        self.seen(cluster).nodes.push(NodeSeen {
            id: name.clone(),
            name,
            group,
            host,
            address,
            driver,
            size,
            phase: NodePhase::Pending,
            joined: false,
            message: String::new(),
            phase_since_ms: now,
            created_ms: now,
            deleting: false,
            present: true,
        });
    }

    fn member(&mut self, cluster: &str, id: &str) -> &mut MemberSeen {
        self.seen(cluster).members.iter_mut().find(|m| m.id == id).expect("a known member")
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}
