//! From a question to an answer, with nothing but objects.

use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Where the answers come from.
pub trait Objects: Send + Sync + 'static {
    /// One Service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// All EndpointSlices of a Service.
    fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<EndpointSlice>>;
    /// The Service that has this cluster IP.
    fn service_by_ip(&self, ip: Ipv4Addr) -> Option<Arc<Service>>;
    /// True when the namespace holds any Service.
    fn has_namespace(&self, namespace: &str) -> bool;
}

/// Types of questions that the zone can answer with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// Host and port of a named service port.
    Srv,
    /// Name of an address.
    Ptr,
    /// Any other type: only whether the name exists matters.
    Other,
}

/// Data of one record in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// A name (without a trailing dot) that stands for this one.
    Cname(String),
    /// Port and host (without a trailing dot); priority 0, weights equal.
    Srv(u16, String),
    /// A name (without a trailing dot).
    Ptr(String),
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name exists; the records may be none (NODATA).
    Records(Vec<Data>),
    /// The name is in our zone and does not exist (NXDOMAIN).
    NoSuchName,
    /// Somebody else's name.
    NotOurs,
}

/// One cluster's zone.
pub struct Zone<O> {
    domain: Vec<String>,
    objects: O,
}

impl<O: Objects> Zone<O> {
    /// The zone of a cluster domain such as `cluster.local`.
    pub fn new(domain: &str, objects: O) -> Self {
        let domain = domain.trim_matches('.').to_lowercase();
        Self { domain: domain.split('.').map(str::to_owned).collect(), objects }
    }

    /// The domain, without a trailing dot.
    pub fn domain(&self) -> String {
        self.domain.join(".")
    }

    /// Answers a question. `labels` are the name's labels, lower-case, root excluded.
    pub fn answer(&self, labels: &[String], kind: Kind) -> Answer {
        if let Some(ip) = reverse(labels) {
            return self.pointer(ip, kind);
        }
        let Some(inside) = labels.strip_suffix(self.domain.as_slice()) else {
            return Answer::NotOurs;
        };
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        match inside.as_slice() {
            [] | ["svc"] | ["pod"] => Answer::Records(Vec::new()),
            ["dns-version"] => Answer::Records(Vec::new()),
            [namespace, "svc" | "pod"] if self.objects.has_namespace(namespace) => {
                Answer::Records(Vec::new())
            }
            [dashed, namespace, "pod"] => self.pod(dashed, namespace, kind),
            [name, namespace, "svc"] => self.service(name, namespace, kind),
            [host, name, namespace, "svc"] => self.host(host, name, namespace, kind),
            [port, protocol, name, namespace, "svc"] => {
                self.port(port, protocol, name, namespace, kind)
            }
            _ => Answer::NoSuchName,
        }
    }

    fn service(&self, name: &str, namespace: &str, kind: Kind) -> Answer {
        let Some(service) = self.objects.service(namespace, name) else {
            return Answer::NoSuchName;
        };
        let spec = service.spec.as_ref();
        if let Some(other) = spec.and_then(|spec| external_name(spec.type_.as_deref(), spec)) {
            return Answer::Records(vec![Data::Cname(other)]);
        }
        if kind == Kind::Srv {
            let fqdn = format!("{name}.{namespace}.svc.{}", self.domain());
            return Answer::Records(self.ports(&service, &fqdn, None));
        }
        let addresses = match cluster_ip(&service) {
            Some(ip) => vec![ip],
            None => {
                let addresses = self.endpoints(&service).into_iter().map(|found| found.ip);
                let addresses: Vec<_> = addresses.collect();
                if addresses.is_empty() {
                    return Answer::NoSuchName;
                }
                addresses
            }
        };
        Answer::Records(only(kind, Kind::A, addresses.into_iter().map(Data::A)))
    }

    /// `<hostname>.<service>`: one endpoint of a headless Service.
    fn host(&self, host: &str, name: &str, namespace: &str, kind: Kind) -> Answer {
        let Some(service) = self.objects.service(namespace, name) else {
            return Answer::NoSuchName;
        };
        if cluster_ip(&service).is_some() {
            return Answer::NoSuchName;
        }
        let found: Vec<_> =
            self.endpoints(&service).into_iter().filter(|found| found.host == host).collect();
        if found.is_empty() {
            return Answer::NoSuchName;
        }
        Answer::Records(only(kind, Kind::A, found.into_iter().map(|found| Data::A(found.ip))))
    }

    /// `_<port>._<protocol>.<service>`.
    fn port(&self, port: &str, protocol: &str, name: &str, namespace: &str, kind: Kind) -> Answer {
        let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_'))
        else {
            return Answer::NoSuchName;
        };
        let Some(service) = self.objects.service(namespace, name) else {
            return Answer::NoSuchName;
        };
        let fqdn = format!("{name}.{namespace}.svc.{}", self.domain());
        let records = self.ports(&service, &fqdn, Some((port, protocol)));
        if records.is_empty() {
            return Answer::NoSuchName;
        }
        Answer::Records(only(kind, Kind::Srv, records.into_iter()))
    }

    /// SRV data of a Service's named ports, or of the one that is asked for.
    fn ports(&self, service: &Service, fqdn: &str, wanted: Option<(&str, &str)>) -> Vec<Data> {
        let matches = |name: Option<&str>, protocol: Option<&str>| {
            let (name, protocol) = (name.unwrap_or(""), protocol.unwrap_or("TCP"));
            wanted.is_none_or(|(wanted_name, wanted_protocol)| {
                wanted_name == name && protocol.eq_ignore_ascii_case(wanted_protocol)
            })
        };
        if cluster_ip(service).is_some() {
            let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
            return ports
                .filter(|port| matches(port.name.as_deref(), port.protocol.as_deref()))
                .filter_map(|port| Some(Data::Srv(u16::try_from(port.port).ok()?, fqdn.to_owned())))
                .collect();
        }
        let mut records = Vec::new();
        for slice in self.slices_of(service) {
            let ports = slice.ports.iter().flatten();
            let ports: Vec<u16> = ports
                .filter(|port| matches(port.name.as_deref(), port.protocol.as_deref()))
                .filter_map(|port| port.port.and_then(|port| u16::try_from(port).ok()))
                .collect();
            for found in endpoints_in(&slice, publishes_unready(service)) {
                let host = format!("{}.{fqdn}", found.host);
                records.extend(ports.iter().map(|port| Data::Srv(*port, host.clone())));
            }
        }
        records
    }

    /// `10-244-1-2.<namespace>.pod`: the address that the name spells.
    fn pod(&self, dashed: &str, namespace: &str, kind: Kind) -> Answer {
        match dashed.replace('-', ".").parse() {
            Ok(ip) if self.objects.has_namespace(namespace) => {
                Answer::Records(only(kind, Kind::A, [Data::A(ip)].into_iter()))
            }
            _ => Answer::NoSuchName,
        }
    }

    fn pointer(&self, ip: Ipv4Addr, kind: Kind) -> Answer {
        let Some(service) = self.objects.service_by_ip(ip) else { return Answer::NotOurs };
        let (Some(name), Some(namespace)) = (&service.metadata.name, &service.metadata.namespace)
        else {
            return Answer::NotOurs;
        };
        let name = format!("{name}.{namespace}.svc.{}", self.domain());
        Answer::Records(only(kind, Kind::Ptr, [Data::Ptr(name)].into_iter()))
    }

    fn slices_of(&self, service: &Service) -> Vec<Arc<EndpointSlice>> {
        let meta = &service.metadata;
        match (&meta.namespace, &meta.name) {
            (Some(namespace), Some(name)) => self.objects.slices(namespace, name),
            _ => Vec::new(),
        }
    }

    fn endpoints(&self, service: &Service) -> Vec<Found> {
        let unready = publishes_unready(service);
        let slices = self.slices_of(service);
        let mut found: Vec<_> =
            slices.iter().flat_map(|slice| endpoints_in(slice, unready)).collect();
        found.sort();
        found.dedup();
        found
    }
}

/// One endpoint of a headless Service.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    ip: Ipv4Addr,
    /// Its host name, or its address with dashes.
    host: String,
}

fn endpoints_in(slice: &EndpointSlice, unready: bool) -> Vec<Found> {
    let usable = |endpoint: &&Endpoint| {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
        unready || ready.unwrap_or(true)
    };
    let ipv4 = slice.address_type == "IPv4";
    let endpoints = slice.endpoints.iter().filter(|_| ipv4).filter(usable);
    endpoints
        .flat_map(|endpoint| {
            let addresses = endpoint.addresses.iter().filter_map(|a| a.parse::<Ipv4Addr>().ok());
            addresses.map(|ip| Found {
                ip,
                host: endpoint
                    .hostname
                    .clone()
                    .filter(|hostname| !hostname.is_empty())
                    .unwrap_or_else(|| ip.to_string().replace('.', "-")),
            })
        })
        .collect()
}

fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

fn cluster_ip(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()
}

fn external_name(
    kind: Option<&str>,
    spec: &k8s_openapi::api::core::v1::ServiceSpec,
) -> Option<String> {
    let name = spec.external_name.as_ref().filter(|_| kind == Some("ExternalName"))?;
    Some(name.trim_end_matches('.').to_owned())
}

/// The records when the question's type fits, else none (the name still exists).
fn only(asked: Kind, have: Kind, records: impl Iterator<Item = Data>) -> Vec<Data> {
    if asked == have { records.collect() } else { Vec::new() }
}

/// The address in `4.3.2.1.in-addr.arpa`.
fn reverse(labels: &[String]) -> Option<Ipv4Addr> {
    match labels {
        [d, c, b, a, arpa, root] if arpa == "in-addr" && root == "arpa" => {
            format!("{a}.{b}.{c}.{d}").parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Fixture(Vec<Arc<Service>>, Vec<Arc<EndpointSlice>>);

    impl Objects for Fixture {
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
            let same = |s: &&Arc<Service>| {
                s.metadata.name.as_deref() == Some(name)
                    && s.metadata.namespace.as_deref() == Some(namespace)
            };
            self.0.iter().find(same).cloned()
        }
        fn slices(&self, _: &str, name: &str) -> Vec<Arc<EndpointSlice>> {
            let same = |s: &&Arc<EndpointSlice>| s.metadata.name.as_deref() == Some(name);
            self.1.iter().filter(same).cloned().collect()
        }
        fn service_by_ip(&self, ip: Ipv4Addr) -> Option<Arc<Service>> {
            self.0.iter().find(|s| cluster_ip(s) == Some(ip)).cloned()
        }
        fn has_namespace(&self, namespace: &str) -> bool {
            self.0.iter().any(|s| s.metadata.namespace.as_deref() == Some(namespace))
        }
    }

    fn zone() -> Zone<Fixture> {
        let services = json!([
            {"metadata": {"name": "web", "namespace": "n"}, "spec": {"clusterIP": "10.96.0.7",
             "ports": [{"name": "http", "port": 80}]}},
            {"metadata": {"name": "db", "namespace": "n"}, "spec": {"clusterIP": "None",
             "ports": [{"name": "sql", "port": 5432}]}},
            {"metadata": {"name": "ext", "namespace": "n"},
             "spec": {"type": "ExternalName", "externalName": "example.org."}},
        ]);
        let slices = json!([{"metadata": {"name": "db"}, "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432}],
            "endpoints": [
                {"addresses": ["10.244.0.5"], "hostname": "db-0"},
                {"addresses": ["10.244.0.6"], "conditions": {"ready": false}, "hostname": "db-1"},
                {"addresses": ["10.244.0.7"]}]}]);
        let services: Vec<Service> = serde_json::from_value(services).expect("Services");
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).expect("slices");
        let fixture = Fixture(
            services.into_iter().map(Arc::new).collect(),
            slices.into_iter().map(Arc::new).collect(),
        );
        Zone::new("cluster.local.", fixture)
    }

    fn ask(name: &str, kind: Kind) -> Answer {
        let labels: Vec<_> = name.split('.').map(str::to_owned).collect();
        zone().answer(&labels, kind)
    }

    fn a(ip: &str) -> Data {
        Data::A(ip.parse().expect("an address"))
    }

    #[test]
    fn a_service_has_its_cluster_ip_and_a_pointer_back() {
        let name = "web.n.svc.cluster.local";
        assert_eq!(ask(name, Kind::A), Answer::Records(vec![a("10.96.0.7")]));
        assert_eq!(ask(name, Kind::Other), Answer::Records(vec![]), "no AAAA, but the name exists");
        let pointer = ask("7.0.96.10.in-addr.arpa", Kind::Ptr);
        assert_eq!(pointer, Answer::Records(vec![Data::Ptr(name.into())]));
        let port = ask("_http._tcp.web.n.svc.cluster.local", Kind::Srv);
        assert_eq!(port, Answer::Records(vec![Data::Srv(80, name.into())]));
    }

    #[test]
    fn a_headless_service_has_its_ready_endpoints() {
        let both = Answer::Records(vec![a("10.244.0.5"), a("10.244.0.7")]);
        assert_eq!(ask("db.n.svc.cluster.local", Kind::A), both);
        let one = ask("db-0.db.n.svc.cluster.local", Kind::A);
        assert_eq!(one, Answer::Records(vec![a("10.244.0.5")]));
        assert_eq!(ask("db-1.db.n.svc.cluster.local", Kind::A), Answer::NoSuchName);
        let Answer::Records(records) = ask("_sql._tcp.db.n.svc.cluster.local", Kind::Srv) else {
            panic!("no records")
        };
        let first = Data::Srv(5432, "db-0.db.n.svc.cluster.local".into());
        assert_eq!((records.len(), &records[0]), (2, &first));
    }

    #[test]
    fn other_names() {
        let cname = Answer::Records(vec![Data::Cname("example.org".into())]);
        assert_eq!(ask("ext.n.svc.cluster.local", Kind::A), cname);
        let pod = ask("10-244-0-9.n.pod.cluster.local", Kind::A);
        assert_eq!(pod, Answer::Records(vec![a("10.244.0.9")]));
        assert_eq!(ask("gone.n.svc.cluster.local", Kind::A), Answer::NoSuchName);
        assert_eq!(ask("example.org", Kind::A), Answer::NotOurs);
    }
}
