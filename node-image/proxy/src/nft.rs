//! The rules as text for `nft -f -`: the whole table, or only what changed.
//!
//! ```text
//!  prerouting, output ─► services ─┬─ vmap @service-ips       (address . protocol . port)
//!                                  └─ vmap @service-nodeports (protocol . port, local addresses)
//!                                           │ goto
//!                                     service chain ─ numgen random ─► endpoint chain ─ dnat
//!  postrouting ─► masquerade marked connections
//!  input, forward, output ─► reject: vmap @no-endpoints
//! ```
//!
//! One element and one chain per service port, one chain per endpoint: the text for a change is as
//! long as what changed.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::model::{PortKey, ServicePort, State, Target};

/// Name of our table, as upstream's.
pub const TABLE: &str = "kube-proxy";
/// Mark of connections whose source address is replaced (upstream's masquerade bit 14).
const MARK: &str = "0x4000";
/// Nftables refuses longer names of sets and chains.
const NAME_LIMIT: usize = 110;

/// Replaces whatever stands in our table by the rules for `state`, in one transaction.
pub fn full(state: &State) -> String {
    let mut text = String::new();
    // The first line makes the second one succeed on a table that does not exist yet.
    let _ = writeln!(text, "add table ip {TABLE}\ndelete table ip {TABLE}");
    text.push_str(&base());
    text.push_str(&diff(&State::new(), state));
    text
}

/// The text that leads from one state to the next; empty when nothing changed.
pub fn diff(old: &State, new: &State) -> String {
    let mut change = Change::default();
    for (key, port) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        change.remove(key, port, None);
    }
    for (key, port) in new {
        match old.get(key) {
            Some(before) if before == port => {}
            Some(before) => {
                change.remove(key, before, Some(port));
                change.add(key, port, Some(before));
            }
            None => change.add(key, port, None),
        }
    }
    change.text()
}

/// Tables, hooks and empty maps.
fn base() -> String {
    let t = TABLE;
    format!(
        "table ip {t} {{
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; }}
  map no-endpoints {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
  chain mark-for-masquerade {{ meta mark set meta mark or {MARK}; }}
  chain reject-it {{ reject; }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @service-nodeports
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain output {{ type nat hook output priority -100; jump services; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    meta mark & {MARK} != 0 meta mark set meta mark xor {MARK} masquerade fully-random
  }}
  chain no-endpoint-services {{
    ip daddr . meta l4proto . th dport vmap @no-endpoints
    fib daddr type local meta l4proto . th dport vmap @no-endpoint-nodeports
  }}
  chain filter-input {{ type filter hook input priority -110; ct state new jump no-endpoint-services; }}
  chain filter-forward {{ type filter hook forward priority -110; ct state new jump no-endpoint-services; }}
  chain filter-output {{ type filter hook output priority -110; ct state new jump no-endpoint-services; }}
}}
"
    )
}

/// Commands in the order in which nftables accepts them: chains exist before something refers to
/// them, and are deleted after the last reference is gone.
#[derive(Default)]
struct Change {
    unlink: String,
    create: String,
    fill: String,
    link: String,
    delete: String,
}

impl Change {
    fn text(self) -> String {
        [self.unlink, self.create, self.fill, self.link, self.delete].concat()
    }

    /// Removes what `port` has and `kept` (its successor, if any) has not.
    fn remove(&mut self, key: &PortKey, port: &ServicePort, kept: Option<&ServicePort>) {
        let kept_elements = kept.map(|kept| elements(key, kept)).unwrap_or_default();
        for (map, element, _) in elements(key, port).difference(&kept_elements) {
            let _ = writeln!(self.unlink, "delete element ip {TABLE} {map} {{ {element} }}");
        }
        let kept_chains = kept.map(|kept| chains(key, kept)).unwrap_or_default();
        for chain in chains(key, port).difference(&kept_chains) {
            let _ = writeln!(self.unlink, "flush chain ip {TABLE} {chain}");
            let _ = writeln!(self.delete, "delete chain ip {TABLE} {chain}");
        }
        let kept_affinity = kept.map(|kept| affinities(key, kept)).unwrap_or_default();
        for set in affinities(key, port).difference(&kept_affinity) {
            let _ = writeln!(self.delete, "delete set ip {TABLE} {}", set.0);
        }
    }

    /// Adds what `port` has and `had` (its predecessor, if any) had not.
    fn add(&mut self, key: &PortKey, port: &ServicePort, had: Option<&ServicePort>) {
        let had_affinity = had.map(|had| affinities(key, had)).unwrap_or_default();
        for (set, seconds) in affinities(key, port).difference(&had_affinity) {
            let _ = writeln!(
                self.create,
                "add set ip {TABLE} {set} {{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}"
            );
        }
        let had_chains = had.map(|had| chains(key, had)).unwrap_or_default();
        for chain in chains(key, port).difference(&had_chains) {
            let _ = writeln!(self.create, "add chain ip {TABLE} {chain}");
        }
        let same_affinity = had.is_some_and(|had| had.affinity_seconds == port.affinity_seconds);
        for target in all_targets(port) {
            let chain = endpoint_chain(key, &target);
            if had_chains.contains(&chain) && same_affinity {
                continue;
            }
            self.fill_endpoint(key, port, &target, had_chains.contains(&chain));
        }
        self.fill_service(key, port, &service_chain(key), &port.internal, &had_chains, false);
        if port.node_port.is_some() {
            let masquerade = !port.external_local;
            let chain = external_chain(key);
            self.fill_service(key, port, &chain, &port.external, &had_chains, masquerade);
        }
        let had_elements = had.map(|had| elements(key, had)).unwrap_or_default();
        for (map, element, verdict) in elements(key, port).difference(&had_elements) {
            let _ = writeln!(self.link, "add element ip {TABLE} {map} {{ {element} : {verdict} }}");
        }
    }

    fn fill_endpoint(&mut self, key: &PortKey, port: &ServicePort, target: &Target, exists: bool) {
        let chain = endpoint_chain(key, target);
        if exists {
            let _ = writeln!(self.create, "flush chain ip {TABLE} {chain}");
        }
        if port.affinity_seconds.is_some() {
            let set = affinity_set(key, target);
            let _ = writeln!(self.fill, "add rule ip {TABLE} {chain} update @{set} {{ ip saddr }}");
        }
        let (ip, number) = (target.ip, target.port);
        let proto = key.protocol.as_nft();
        // A pod that reaches itself through a Service must see another source than itself.
        let _ = writeln!(
            self.fill,
            "add rule ip {TABLE} {chain} ip saddr {ip} jump mark-for-masquerade"
        );
        let _ = writeln!(
            self.fill,
            "add rule ip {TABLE} {chain} meta l4proto {proto} dnat to {ip}:{number}"
        );
    }

    fn fill_service(
        &mut self,
        key: &PortKey,
        port: &ServicePort,
        chain: &str,
        targets: &BTreeSet<Target>,
        had_chains: &BTreeSet<String>,
        masquerade: bool,
    ) {
        if targets.is_empty() {
            return;
        }
        if had_chains.contains(chain) {
            let _ = writeln!(self.create, "flush chain ip {TABLE} {chain}");
        }
        if masquerade {
            let _ = writeln!(self.fill, "add rule ip {TABLE} {chain} jump mark-for-masquerade");
        }
        if port.affinity_seconds.is_some() {
            for target in targets {
                let (set, to) = (affinity_set(key, target), endpoint_chain(key, target));
                let _ =
                    writeln!(self.fill, "add rule ip {TABLE} {chain} ip saddr @{set} goto {to}");
            }
        }
        let choices: Vec<_> = targets
            .iter()
            .enumerate()
            .map(|(index, target)| format!("{index} : goto {}", endpoint_chain(key, target)))
            .collect();
        let _ = writeln!(
            self.fill,
            "add rule ip {TABLE} {chain} numgen random mod {} vmap {{ {} }}",
            choices.len(),
            choices.join(", ")
        );
    }
}

/// Map elements that a service port needs: map, key, verdict.
fn elements(key: &PortKey, port: &ServicePort) -> BTreeSet<(&'static str, String, String)> {
    let proto = key.protocol.as_nft();
    let mut elements = BTreeSet::new();
    for address in &port.addresses {
        let element = format!("{address} . {proto} . {}", port.port);
        elements.insert(match port.internal.is_empty() {
            false => ("service-ips", element, format!("goto {}", service_chain(key))),
            true => ("no-endpoints", element, "goto reject-it".to_owned()),
        });
    }
    if let Some(node_port) = port.node_port {
        let element = format!("{proto} . {node_port}");
        elements.insert(match port.external.is_empty() {
            false => ("service-nodeports", element, format!("goto {}", external_chain(key))),
            true => ("no-endpoint-nodeports", element, "goto reject-it".to_owned()),
        });
    }
    elements
}

fn chains(key: &PortKey, port: &ServicePort) -> BTreeSet<String> {
    let mut chains: BTreeSet<_> =
        all_targets(port).iter().map(|target| endpoint_chain(key, target)).collect();
    if !port.internal.is_empty() {
        chains.insert(service_chain(key));
    }
    if port.node_port.is_some() && !port.external.is_empty() {
        chains.insert(external_chain(key));
    }
    chains
}

/// Client sets of a port with session affinity, with their time-out in seconds.
fn affinities(key: &PortKey, port: &ServicePort) -> BTreeSet<(String, u32)> {
    let Some(seconds) = port.affinity_seconds else { return BTreeSet::new() };
    all_targets(port).iter().map(|target| (affinity_set(key, target), seconds)).collect()
}

fn all_targets(port: &ServicePort) -> BTreeSet<Target> {
    match port.node_port {
        Some(_) => port.internal.union(&port.external).copied().collect(),
        None => port.internal.clone(),
    }
}

fn service_chain(key: &PortKey) -> String {
    name("service", key, "")
}

fn external_chain(key: &PortKey) -> String {
    name("external", key, "")
}

fn endpoint_chain(key: &PortKey, target: &Target) -> String {
    name("endpoint", key, &format!("__{}-{}", target.ip, target.port))
}

fn affinity_set(key: &PortKey, target: &Target) -> String {
    name("affinity", key, &format!("__{}-{}", target.ip, target.port))
}

/// A readable, unique name: the hash keeps names apart that the length limit makes alike.
fn name(kind: &str, key: &PortKey, suffix: &str) -> String {
    let proto = key.protocol.as_nft();
    let full = format!("{}/{}/{proto}/{}", key.namespace, key.name, key.port);
    let mut readable = format!("{kind}-{:08x}-{full}", fnv1a(&full));
    readable.truncate(NAME_LIMIT - suffix.len());
    format!("{readable}{}", suffix.replace('.', "-"))
}

/// FNV-1a, 32 bits: stable between runs, unlike the standard library's hasher.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn key() -> PortKey {
        PortKey {
            namespace: "default".into(),
            name: "web".into(),
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
            node_port: None,
            affinity_seconds: None,
            internal: targets.clone(),
            external: targets,
            external_local: false,
        }
    }

    #[test]
    fn a_change_of_one_endpoint_touches_that_endpoint_and_its_service_only() {
        let before = State::from([(key(), port(&["10.244.0.2", "10.244.0.3"]))]);
        let after = State::from([(key(), port(&["10.244.0.2", "10.244.1.9"]))]);
        let text = diff(&before, &after);
        assert!(text.contains("delete chain ip kube-proxy endpoint-"), "{text}");
        assert!(text.contains("dnat to 10.244.1.9:8080"), "{text}");
        assert!(!text.contains("dnat to 10.244.0.2"), "{text}");
        assert!(!text.contains("element"), "the address maps do not change: {text}");
    }

    #[test]
    fn a_service_that_loses_its_last_endpoint_is_rejected() {
        let before = State::from([(key(), port(&["10.244.0.2"]))]);
        let after = State::from([(key(), port(&[]))]);
        let text = diff(&before, &after);
        assert!(text.contains("delete element ip kube-proxy service-ips"), "{text}");
        assert!(text.contains("no-endpoints { 10.96.0.7 . tcp . 80 : goto reject-it }"), "{text}");
    }

    #[test]
    fn nothing_changed_means_no_text() {
        let state = State::from([(key(), port(&["10.244.0.2"]))]);
        assert_eq!(diff(&state, &state.clone()), "");
    }
}
