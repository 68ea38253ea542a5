//! What stands in the kernel, and what leads from there to the next state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::Ipv4Addr;

use component::ObjectKey;

use super::change::Change;
use super::parts::{Front, Parts, Pick, fronts};
use crate::model::{PortKey, State};

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Table {
    ports: State,
    /// Who wants a front: first those whose cluster IP it is. It belongs to the first one: two with
    /// the same address and port are a mistake of the user's, which must not stop all others.
    claims: HashMap<Front, BTreeSet<(bool, PortKey)>>,
    picks: Counts<Pick>,
    hairpins: Counts<Ipv4Addr>,
}

impl Table {
    /// The number of service ports.
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// True when there is no Service.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Takes in the new state of these Services (no port where one is gone), and returns the text
    /// that makes it so in the kernel; empty when nothing changes there.
    pub fn change(&mut self, services: &BTreeSet<ObjectKey>, after: State) -> String {
        let before: State = services.iter().flat_map(|service| self.ports_of(service)).collect();
        let same = |key: &PortKey| before.get(key).is_some_and(|old| after.get(key) == Some(old));
        let mut keys: BTreeSet<_> =
            before.keys().chain(after.keys()).filter(|key| !same(key)).cloned().collect();
        let claimed: BTreeSet<_> = before
            .iter()
            .chain(&after)
            .filter(|(key, _)| keys.contains(*key))
            .flat_map(|(key, port)| fronts(key, port).map(|(front, _)| front))
            .collect();
        // Whoever wants the same front may get it, or lose it.
        let rivals = claimed.iter().filter_map(|front| self.claims.get(front));
        keys.extend(rivals.flatten().map(|(_, key)| key.clone()).collect::<Vec<_>>());

        let old: BTreeMap<_, _> =
            keys.iter().filter_map(|key| Some((key.clone(), self.parts(key)?))).collect();
        for (key, port) in &before {
            self.ports.remove(key);
            for (front, external) in fronts(key, port) {
                self.release(front, &(external, key.clone()));
            }
        }
        for (key, port) in after {
            for (front, external) in fronts(&key, &port) {
                self.claims.entry(front).or_default().insert((external, key.clone()));
            }
            self.ports.insert(key, port);
        }
        self.write(&keys, &old)
    }

    fn ports_of(&self, service: &ObjectKey) -> Vec<(PortKey, crate::model::ServicePort)> {
        let start = PortKey::first_of(service);
        self.ports
            .range(start..)
            .take_while(|(key, _)| key.belongs_to(service))
            .map(|(key, port)| (key.clone(), port.clone()))
            .collect()
    }

    fn release(&mut self, front: Front, claim: &(bool, PortKey)) {
        if let Some(claimants) = self.claims.get_mut(&front) {
            claimants.remove(claim);
            if claimants.is_empty() {
                self.claims.remove(&front);
            }
        }
    }

    fn parts(&self, key: &PortKey) -> Option<Parts> {
        let owns = |front: &Front| {
            let first = self.claims.get(front).and_then(|claimants| claimants.first());
            first.is_some_and(|(_, owner)| owner == key)
        };
        Some(Parts::of(key, self.ports.get(key)?, owns))
    }

    fn write(&mut self, keys: &BTreeSet<PortKey>, old: &BTreeMap<PortKey, Parts>) -> String {
        let (mut change, nothing) = (Change::default(), Parts::default());
        for key in keys {
            let old = old.get(key).unwrap_or(&nothing);
            let new = self.parts(key).unwrap_or_default();
            change.own(old, &new);
            self.picks.note(&old.picks, &new.picks);
            self.hairpins.note(&old.hairpins, &new.hairpins);
        }
        let (come, gone) = self.picks.settle();
        come.iter().for_each(|pick| change.add_chain(&pick.chain(), &pick.rules()));
        gone.iter().for_each(|pick| change.remove_chain(&pick.chain()));
        let (come, gone) = self.hairpins.settle();
        come.iter().for_each(|ip| change.add_element("hairpins", format!("{ip} . {ip}")));
        gone.iter().for_each(|ip| change.remove_element("hairpins", format!("{ip} . {ip}")));
        change.text()
    }
}

/// How many ports use something that they share.
#[derive(Debug)]
struct Counts<T> {
    held: HashMap<T, usize>,
    /// What the counts were before the change that is being made.
    before: BTreeMap<T, usize>,
}

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Self { held: HashMap::new(), before: BTreeMap::new() }
    }
}

impl<T: Copy + Eq + Hash + Ord> Counts<T> {
    fn note(&mut self, old: &BTreeSet<T>, new: &BTreeSet<T>) {
        for (item, more) in new
            .difference(old)
            .map(|item| (item, true))
            .chain(old.difference(new).map(|i| (i, false)))
        {
            let count = self.held.entry(*item).or_default();
            self.before.entry(*item).or_insert(*count);
            // An item may go from one port to the next in one change, in either order.
            *count = if more { count.wrapping_add(1) } else { count.wrapping_sub(1) };
        }
    }

    /// What came into use and what is not used any more, since the last call.
    fn settle(&mut self) -> (Vec<T>, Vec<T>) {
        let (mut come, mut gone) = (Vec::new(), Vec::new());
        for (item, before) in std::mem::take(&mut self.before) {
            let now = self.held.get(&item).copied().unwrap_or_default();
            match (before, now) {
                (0, 1..) => come.push(item),
                (1.., 0) => gone.push(item),
                _ => {}
            }
            if now == 0 {
                self.held.remove(&item);
            }
        }
        (come, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Protocol, ServicePort, Target};

    fn key(name: &str) -> PortKey {
        PortKey {
            namespace: "default".into(),
            name: name.into(),
            port: "http".into(),
            protocol: Protocol::Tcp,
        }
    }

    fn port(targets: &[&str]) -> ServicePort {
        let targets: BTreeSet<_> = targets
            .iter()
            .map(|ip| Target { ip: ip.parse().expect("an address"), port: 8080 })
            .collect();
        ServicePort {
            addresses: BTreeSet::from(["10.96.0.7".parse().expect("an address")]),
            port: 80,
            external_addresses: BTreeSet::new(),
            node_port: None,
            affinity_seconds: None,
            internal: targets.clone(),
            external: targets,
            external_local: false,
        }
    }

    fn set(table: &mut Table, name: &str, targets: Option<&[&str]>) -> String {
        let state = targets.map(|targets| (key(name), port(targets))).into_iter().collect();
        table.change(&BTreeSet::from([ObjectKey::new("default", name)]), state)
    }

    #[test]
    fn a_change_of_one_endpoint_touches_its_elements_only() {
        let mut table = Table::default();
        set(&mut table, "web", Some(&["10.244.0.2", "10.244.0.3"]));
        let text = set(&mut table, "web", Some(&["10.244.0.2", "10.244.1.9"]));
        let expected = "delete element ip kube-proxy endpoints-tcp { 10.96.0.7 . 80 . 1 }\n\
                        delete element ip kube-proxy hairpins { 10.244.0.3 . 10.244.0.3 }\n\
                        add element ip kube-proxy endpoints-tcp { 10.96.0.7 . 80 . 1 : 10.244.1.9 . 8080 }\n\
                        add element ip kube-proxy hairpins { 10.244.1.9 . 10.244.1.9 }\n";
        assert_eq!(text, expected);
        assert_eq!(set(&mut table, "web", Some(&["10.244.0.2", "10.244.1.9"])), "");
    }

    #[test]
    fn a_service_that_loses_its_last_endpoint_is_rejected() {
        let mut table = Table::default();
        set(&mut table, "web", Some(&["10.244.0.2"]));
        let text = set(&mut table, "web", Some(&[]));
        assert!(text.contains("delete element ip kube-proxy service-ips"), "{text}");
        assert!(text.contains("no-endpoints { 10.96.0.7 . tcp . 80 comment"), "{text}");
        assert!(text.contains("delete chain ip kube-proxy pick-tcp-1"), "{text}");
    }

    #[test]
    fn of_two_services_with_one_address_the_other_takes_over() {
        let mut table = Table::default();
        let first = set(&mut table, "a", Some(&["10.244.0.2"]));
        assert!(first.contains("\"default/a:http\" : goto pick-tcp-1"), "{first}");
        assert_eq!(set(&mut table, "b", Some(&["10.244.0.3"])), "", "the place is taken");
        let moved = set(&mut table, "b", Some(&["10.244.0.4", "10.244.0.5"]));
        assert_eq!(moved, "", "still");
        let text = set(&mut table, "a", None);
        assert!(text.contains("add chain ip kube-proxy pick-tcp-2"), "{text}");
        assert!(text.contains("\"default/b:http\" : goto pick-tcp-2"), "{text}");
        let text = set(&mut table, "a", Some(&["10.244.0.2"]));
        assert!(text.contains("\"default/a:http\" : goto pick-tcp-1"), "{text}");
        set(&mut table, "a", None);
        set(&mut table, "b", None);
        assert!(table.is_empty() && table.claims.is_empty());
        assert!(table.picks.held.is_empty() && table.hairpins.held.is_empty());
    }

    #[test]
    fn a_cluster_ip_cannot_be_taken_by_an_external_address() {
        let mut table = Table::default();
        let mut greedy = port(&["10.244.0.9"]);
        greedy.external_addresses = std::mem::take(&mut greedy.addresses);
        let claim = State::from([(key("a"), greedy)]);
        let text = table.change(&BTreeSet::from([ObjectKey::new("default", "a")]), claim);
        assert!(text.contains("\"default/a:http\" : goto pick-tcp-1-masquerade"), "{text}");
        let text = set(&mut table, "kubernetes", Some(&["10.244.0.2"]));
        assert!(text.contains("\"default/kubernetes:http\" : goto pick-tcp-1 }"), "{text}");
    }

    #[test]
    fn what_goes_from_one_port_to_another_stays() {
        let mut table = Table::default();
        set(&mut table, "a", Some(&["10.244.0.2"]));
        let both: BTreeSet<_> = ["a", "b"].map(|name| ObjectKey::new("default", name)).into();
        let text = table.change(&both, State::from([(key("b"), port(&["10.244.0.2"]))]));
        assert!(!text.contains("hairpins") && !text.contains("chain"), "{text}");
    }
}
