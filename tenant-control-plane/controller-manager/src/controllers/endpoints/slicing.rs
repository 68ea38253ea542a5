//! Spreads a Service's endpoints over EndpointSlices with as few writes as possible. Pure.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::backends::Port;

/// What to write.
#[derive(Debug, Default)]
pub(super) struct Slicing {
    /// Contents of slices to create.
    pub create: Vec<(Vec<Port>, Vec<Endpoint>)>,
    /// Slices to write again, with their new endpoints.
    pub update: Vec<EndpointSlice>,
    /// Slices that are not needed.
    pub delete: Vec<EndpointSlice>,
    /// Slices that stay as they are.
    pub keep: Vec<EndpointSlice>,
}

/// A slice's ports in the form of the backends'.
pub(super) fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    let mut ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            port: port.port.unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    ports
}

/// The ports in the form of a slice's.
pub(super) fn to_slice_ports(ports: &[Port]) -> Option<Vec<EndpointPort>> {
    let ports: Vec<_> = ports
        .iter()
        .map(|port| EndpointPort {
            name: Some(port.name.clone()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    (!ports.is_empty()).then_some(ports)
}

fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>) {
    let target = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.clone(), target)
}

/// Compares the slices that there are, of one address type, with the endpoints wanted per set of
/// ports. Endpoints stay in the slice they are in; new ones fill slices that are written anyway,
/// then those with room, then new slices.
pub(super) fn slice(
    existing: Vec<EndpointSlice>,
    wanted: BTreeMap<Vec<Port>, Vec<Endpoint>>,
    capacity: usize,
) -> Slicing {
    let mut result = Slicing::default();
    let mut by_ports: BTreeMap<Vec<Port>, Vec<EndpointSlice>> = BTreeMap::new();
    for slice in existing {
        by_ports.entry(ports_of(&slice)).or_default().push(slice);
    }
    for (ports, endpoints) in wanted {
        let slices = by_ports.remove(&ports).unwrap_or_default();
        fill(slices, ports, endpoints, capacity, &mut result);
    }
    result.delete.extend(by_ports.into_values().flatten());
    result
}

fn fill(
    slices: Vec<EndpointSlice>,
    ports: Vec<Port>,
    endpoints: Vec<Endpoint>,
    capacity: usize,
    result: &mut Slicing,
) {
    let mut fresh: BTreeMap<_, _> = endpoints.into_iter().map(|e| (identity(&e), e)).collect();
    let mut placed = HashSet::new();
    // (changed, slice)
    let mut kept = Vec::new();
    for mut slice in slices {
        let before = slice.endpoints.clone();
        slice.endpoints = before
            .iter()
            .filter_map(|old| {
                let key = identity(old);
                placed.insert(key.clone()).then(|| fresh.remove(&key)).flatten()
            })
            .collect();
        kept.push((slice.endpoints != before, slice));
    }
    let mut rest = fresh.into_values().peekable();
    kept.sort_by_key(|(changed, _)| !changed);
    for (changed, slice) in &mut kept {
        while slice.endpoints.len() < capacity && rest.peek().is_some() {
            slice.endpoints.extend(rest.next());
            *changed = true;
        }
    }
    while rest.peek().is_some() {
        result.create.push((ports.clone(), rest.by_ref().take(capacity).collect()));
    }
    // One empty slice may stay, to say that the Service has nothing behind it.
    let mut others =
        kept.iter().filter(|(_, s)| !s.endpoints.is_empty()).count() + result.create.len();
    for (changed, slice) in kept {
        if slice.endpoints.is_empty() && others > 0 {
            result.delete.push(slice);
        } else {
            others += usize::from(slice.endpoints.is_empty());
            if changed { result.update.push(slice) } else { result.keep.push(slice) }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoint(ip: &str, ready: bool) -> Endpoint {
        serde_json::from_value(json!({
            "addresses": [ip], "conditions": {"ready": ready}, "targetRef": {"uid": ip}
        }))
        .unwrap()
    }

    fn http() -> Vec<Port> {
        vec![Port { name: "http".into(), port: 8080, protocol: "TCP".into(), app_protocol: None }]
    }

    fn existing(name: &str, ips: &[&str]) -> EndpointSlice {
        EndpointSlice {
            metadata: serde_json::from_value(json!({"name": name})).unwrap(),
            address_type: "IPv4".into(),
            endpoints: ips.iter().map(|ip| endpoint(ip, true)).collect(),
            ports: to_slice_ports(&http()),
        }
    }

    fn wanted(ips: &[&str]) -> BTreeMap<Vec<Port>, Vec<Endpoint>> {
        BTreeMap::from([(http(), ips.iter().map(|ip| endpoint(ip, true)).collect())])
    }

    #[test]
    fn a_first_endpoint_makes_a_slice_and_repetition_makes_no_write() {
        let result = slice(vec![], wanted(&["a", "b", "c"]), 2);
        assert_eq!(result.create.iter().map(|(_, e)| e.len()).collect::<Vec<_>>(), [2, 1]);
        let result = slice(vec![existing("s", &["a", "b"])], wanted(&["a", "b"]), 2);
        assert!(result.create.is_empty() && result.update.is_empty() && result.delete.is_empty());
        assert_eq!(result.keep.len(), 1);
    }

    #[test]
    fn a_change_touches_only_the_slice_it_is_in() {
        let slices = vec![existing("s1", &["a", "b"]), existing("s2", &["c"])];
        let result = slice(slices, wanted(&["a", "c", "d"]), 2);
        assert_eq!(result.update.len(), 1);
        assert_eq!(result.update[0].metadata.name.as_deref(), Some("s1"));
        assert_eq!(result.update[0].endpoints.len(), 2, "the freed place is used");
        assert!(result.create.is_empty());
    }

    #[test]
    fn surplus_and_foreign_slices_go_and_the_last_empty_one_stays() {
        let slices = vec![existing("s1", &["a"]), existing("s2", &["b"])];
        let result = slice(slices, wanted(&[]), 2);
        assert_eq!((result.update.len(), result.delete.len()), (1, 1));
        let mut other = existing("s3", &["a"]);
        other.ports = None;
        let result = slice(vec![other], wanted(&["a"]), 2);
        assert_eq!((result.create.len(), result.delete.len()), (1, 1));
    }
}
