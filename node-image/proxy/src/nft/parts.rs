//! What one service port puts into the table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::model::{PortKey, Protocol, ServicePort, Target};

/// Nftables refuses longer names of sets and chains.
const NAME_LIMIT: usize = 110;
/// Nftables refuses longer comments.
const COMMENT_LIMIT: usize = 120;

/// Where connections arrive: an address of a Service, or every node's (`None`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Front {
    /// The address.
    pub address: Option<Ipv4Addr>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// All places where a port's connections arrive, and whether it is from outside the cluster.
pub fn fronts<'a>(
    key: &'a PortKey,
    port: &'a ServicePort,
) -> impl Iterator<Item = (Front, bool)> + 'a {
    let protocol = key.protocol;
    let of = move |address, port| Front { address, protocol, port };
    let at = move |address: &Ipv4Addr| of(Some(*address), port.port);
    let internal = port.addresses.iter().map(move |address| (at(address), false));
    let external = port.external_addresses.iter().map(move |address| (at(address), true));
    internal.chain(external).chain(port.node_port.map(move |number| (of(None, number), true)))
}

/// A chain that all ports with the same number of endpoints share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    /// For node ports.
    pub on_nodes: bool,
    /// Protocol: nftables knows ports only together with it.
    pub protocol: Protocol,
    /// Replaces the source address.
    pub masquerade: bool,
    /// Number of endpoints.
    pub count: usize,
}

impl Pick {
    /// Name of the chain.
    pub fn chain(self) -> String {
        let kind = if self.on_nodes { "pick-nodeport" } else { "pick" };
        let masquerade = if self.masquerade { "-masquerade" } else { "" };
        format!("{kind}-{}-{}{masquerade}", self.protocol.as_nft(), self.count)
    }

    /// Its rules.
    pub fn rules(self) -> Vec<String> {
        let (proto, map) = (self.protocol.as_nft(), endpoints(self.on_nodes, self.protocol));
        let address = if self.on_nodes { "" } else { "ip daddr . " };
        let key = format!("{address}{proto} dport . numgen random mod {}", self.count);
        let pick = format!("dnat ip to {key} map @{map}");
        let mark = self.masquerade.then(|| "jump mark-for-masquerade".to_owned());
        mark.into_iter().chain([pick]).collect()
    }
}

/// The map of endpoints.
fn endpoints(on_nodes: bool, protocol: Protocol) -> &'static str {
    match (on_nodes, protocol) {
        (false, Protocol::Tcp) => "endpoints-tcp",
        (false, Protocol::Udp) => "endpoints-udp",
        (false, Protocol::Sctp) => "endpoints-sctp",
        (true, Protocol::Tcp) => "nodeport-endpoints-tcp",
        (true, Protocol::Udp) => "nodeport-endpoints-udp",
        (true, Protocol::Sctp) => "nodeport-endpoints-sctp",
    }
}

/// Everything in the table that belongs to a port, or that it shares with others.
#[derive(Debug, Default)]
pub struct Parts {
    /// By map and key: the rest of the element (comment and value).
    pub elements: BTreeMap<(&'static str, String), String>,
    /// Its own chains with their rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Its own sets of clients, with the seconds after which they are forgotten.
    pub sets: BTreeMap<String, u32>,
    /// Shared chains.
    pub picks: BTreeSet<Pick>,
    /// Endpoints that may reach themselves, which must then see another source. Shared.
    pub hairpins: BTreeSet<Ipv4Addr>,
}

impl Parts {
    /// What a port needs at the fronts that are its own.
    pub fn of(key: &PortKey, port: &ServicePort, owns: impl Fn(&Front) -> bool) -> Self {
        let mut parts = Self::default();
        let own = |wanted: fn(&Front, bool) -> bool| -> Vec<Front> {
            let own = fronts(key, port).filter(|(front, _)| owns(front));
            own.filter(|(front, external)| wanted(front, *external)).map(|own| own.0).collect()
        };
        let internal = own(|_, external| !external);
        let external = own(|front, external| external && front.address.is_some());
        let on_nodes = own(|front, _| front.address.is_none());
        parts.add_fronts(key, port, &internal, &port.internal, None);
        let masquerade = Some(!port.external_local);
        parts.add_fronts(key, port, &external, &port.external, masquerade);
        parts.add_fronts(key, port, &on_nodes, &port.external, masquerade);
        parts
    }

    /// Adds fronts of one kind. `external` says of those for clients outside the cluster whether
    /// their source address is replaced.
    fn add_fronts(
        &mut self,
        key: &PortKey,
        port: &ServicePort,
        fronts: &[Front],
        targets: &BTreeSet<Target>,
        external: Option<bool>,
    ) {
        let Some(first) = fronts.first() else { return };
        let on_nodes = first.address.is_none();
        let (map, reject) = match on_nodes {
            false => ("service-ips", "no-endpoints"),
            true => ("service-nodeports", "no-endpoint-nodeports"),
        };
        let comment = comment(key);
        if targets.is_empty() {
            let verdict = format!("comment \"{comment}\" : goto reject-it");
            for front in fronts {
                self.elements.insert((reject, front.element()), verdict.clone());
            }
            return;
        }
        let chain = match port.affinity_seconds {
            Some(seconds) => self.add_sticky(key, targets, external, seconds),
            None => {
                let masquerade = external == Some(true);
                let (protocol, count) = (key.protocol, targets.len());
                let pick = Pick { on_nodes, protocol, masquerade, count };
                self.picks.insert(pick);
                self.add_endpoints(fronts, targets);
                pick.chain()
            }
        };
        for front in fronts {
            let verdict = format!("comment \"{comment}\" : goto {chain}");
            self.elements.insert((map, front.element()), verdict);
        }
        self.hairpins.extend(targets.iter().map(|target| target.ip));
    }

    fn add_endpoints(&mut self, fronts: &[Front], targets: &BTreeSet<Target>) {
        for front in fronts {
            let map = endpoints(front.address.is_none(), front.protocol);
            for (index, target) in targets.iter().enumerate() {
                let element = match front.address {
                    Some(address) => format!("{address} . {} . {index}", front.port),
                    None => format!("{} . {index}", front.port),
                };
                self.elements.insert((map, element), format!(": {} . {}", target.ip, target.port));
            }
        }
    }

    /// The chains of a port whose clients keep their endpoint. Returns the first one's name.
    fn add_sticky(
        &mut self,
        key: &PortKey,
        targets: &BTreeSet<Target>,
        external: Option<bool>,
        seconds: u32,
    ) -> String {
        let (mut rules, mut choices) = (Vec::new(), Vec::new());
        if external == Some(true) {
            rules.push("jump mark-for-masquerade".to_owned());
        }
        let proto = key.protocol.as_nft();
        for (index, target) in targets.iter().enumerate() {
            let Target { ip, port } = target;
            let suffix = format!("__{ip}-{port}");
            let endpoint = name("endpoint", key, &suffix);
            // The time is part of the name: nftables cannot change that of an existing set.
            let set = name("affinity", key, &format!("{suffix}-{seconds}"));
            rules.push(format!("ip saddr @{set} goto {endpoint}"));
            choices.push(format!("{index} : goto {endpoint}"));
            let learn = format!("update @{set} {{ ip saddr }}");
            let lead = format!("meta l4proto {proto} dnat to {ip}:{port}");
            self.chains.insert(endpoint, vec![learn, lead]);
            self.sets.insert(set, seconds);
        }
        let (count, choices) = (targets.len(), choices.join(", "));
        rules.push(format!("numgen random mod {count} vmap {{ {choices} }}"));
        let chain = name(if external.is_some() { "external" } else { "service" }, key, "");
        self.chains.insert(chain.clone(), rules);
        chain
    }
}

impl Front {
    fn element(&self) -> String {
        let (proto, port) = (self.protocol.as_nft(), self.port);
        match self.address {
            Some(address) => format!("{address} . {proto} . {port}"),
            None => format!("{proto} . {port}"),
        }
    }
}

/// What an operator reads in `nft list`: `namespace/service:port`.
fn comment(key: &PortKey) -> String {
    let mut text = format!("{}/{}:{}", key.namespace, key.name, key.port);
    text.truncate(COMMENT_LIMIT);
    text
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
