//! Where the traffic of Services goes.

use std::collections::HashSet;
use std::net::IpAddr;

use machinery::names;
use serde_json::Value;

use super::faults::{int, items, text};
use super::service::NOT_AN_ADDRESS;
use super::{At, Faults};

pub(super) fn endpoints(endpoints: &Value, faults: &mut Faults) {
    let list = At::new("subsets");
    for (index, subset) in items(endpoints, "subsets").iter().enumerate() {
        let here = list.index(index);
        for kind in ["addresses", "notReadyAddresses"] {
            let addresses = here.field(kind);
            for (index, address) in items(subset, kind).iter().enumerate() {
                let place = addresses.index(index);
                check_address(text(address, "ip"), &place.field("ip"), faults);
            }
        }
        let ports = here.field("ports");
        for (index, port) in items(subset, "ports").iter().enumerate() {
            let place = ports.index(index);
            faults.range(&place.field("port"), int(port, "port").unwrap_or_default(), 1, 65535);
        }
    }
}

/// Nodes forward what is sent to a Service: it must not come out at themselves or on their link.
/// Returns the address, if it is one.
fn check_address(text: &str, at: &At<'_>, faults: &mut Faults) -> Option<IpAddr> {
    let Ok(address) = text.parse::<IpAddr>() else {
        faults.invalid(at, text, NOT_AN_ADDRESS);
        return None;
    };
    let (is_link_local, is_link_local_multicast) = match address.to_canonical() {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let plain = address.to_canonical();
    if plain.is_unspecified() {
        faults.invalid(at, text, &format!("may not be unspecified ({text})"));
    }
    if plain.is_loopback() {
        faults.invalid(at, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if is_link_local {
        let why = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        faults.invalid(at, text, why);
    }
    if is_link_local_multicast {
        let why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        faults.invalid(at, text, why);
    }
    Some(address)
}

pub(super) fn endpoint_slice(slice: &Value, faults: &mut Faults) {
    let list = At::new("endpoints");
    for (index, endpoint) in items(slice, "endpoints").iter().enumerate() {
        let here = list.index(index);
        let addresses = here.field("addresses");
        if items(endpoint, "addresses").is_empty() {
            faults.required(&addresses, "must contain at least 1 address");
        }
        let texts = items(endpoint, "addresses").iter().filter_map(Value::as_str);
        for (index, address) in texts.enumerate() {
            let kind = text(slice, "addressType");
            slice_address(address, kind, &addresses, &addresses.index(index), faults);
        }
    }
    let list = At::new("ports");
    let mut seen = HashSet::new();
    for (index, port) in items(slice, "ports").iter().enumerate() {
        let here = list.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            faults.text(&here.field("name"), name, names::dns1123_label);
        }
        if !seen.insert(name) {
            faults.duplicate(&here.field("name"), name);
        }
    }
}

fn slice_address(address: &str, kind: &str, list: &At<'_>, at: &At<'_>, faults: &mut Faults) {
    if !matches!(kind, "IPv4" | "IPv6") {
        return;
    }
    let Some(parsed) = check_address(address, at, faults) else { return };
    match (kind, parsed) {
        ("IPv6", IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            faults.invalid(at, address, "must not be an IPv4-mapped IPv6 address");
        }
        ("IPv4", _) if !parsed.to_canonical().is_ipv4() => {
            faults.invalid(list, address, "must be an IPv4 address");
        }
        ("IPv6", IpAddr::V4(_)) => faults.invalid(list, address, "must be an IPv6 address"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use machinery::GroupVersionKind;
    use serde_json::{Value, json};

    use crate::table::Schema;

    fn gvk(group: &str, kind: &str) -> GroupVersionKind {
        GroupVersionKind { group: group.into(), version: "v1".into(), kind: kind.into() }
    }

    fn slice(kind: &str, addresses: &[&str]) -> Value {
        json!({
            "metadata": {"name": "s"}, "addressType": kind,
            "endpoints": [{"addresses": addresses}], "ports": [],
        })
    }

    fn faults_of(group: &str, kind: &str, object: &Value) -> Vec<String> {
        let schema = Schema::get("1.35").expect("table");
        let causes = schema.validate_create(&gvk(group, kind), object);
        causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn traffic_is_not_led_to_the_node_itself() {
        let object = json!({"metadata": {"name": "e"}, "subsets": [{
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "127.0.0.1"}, {"ip": "0.0.0.0"}],
            "notReadyAddresses": [{"ip": "169.254.169.254"}, {"ip": "224.0.0.5"}, {"ip": "x"}],
            "ports": [{"port": 80}],
        }]});
        assert_eq!(
            faults_of("", "Endpoints", &object),
            [
                "subsets[0].addresses[1].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "subsets[0].addresses[2].ip: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)",
                "subsets[0].notReadyAddresses[0].ip: Invalid value: \"169.254.169.254\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
                "subsets[0].notReadyAddresses[1].ip: Invalid value: \"224.0.0.5\": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
                "subsets[0].notReadyAddresses[2].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ]
        );
    }

    #[test]
    fn a_slice_has_addresses_of_its_family() {
        let of = |kind: &str, address: &str| -> Vec<String> {
            faults_of("discovery.k8s.io", "EndpointSlice", &slice(kind, &[address]))
        };
        let none: [&str; 0] = [];
        assert_eq!(of("IPv4", "10.0.0.1"), none);
        assert_eq!(of("IPv6", "fd00::1"), none);
        assert_eq!(of("FQDN", "example.com"), none);
        for (kind, address) in [
            ("IPv4", "127.1.2.3"),
            ("IPv4", "::ffff:127.0.0.1"),
            ("IPv6", "::1"),
            ("IPv6", "::"),
            ("IPv6", "fe80::1"),
            ("IPv6", "ff02::1"),
            ("IPv6", "::ffff:10.0.0.1"),
        ] {
            let found = of(kind, address);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("endpoints[0].addresses[0]: "), "{found:?}");
        }
        for (kind, address, family) in [("IPv4", "fd00::1", "IPv4"), ("IPv6", "10.0.0.1", "IPv6")] {
            let text = format!(
                "endpoints[0].addresses: Invalid value: {address:?}: must be an {family} address"
            );
            assert_eq!(of(kind, address), [text]);
        }
    }

    #[test]
    fn what_was_stored_before_may_stay() {
        let schema = Schema::get("1.35").expect("table");
        let gvk = gvk("discovery.k8s.io", "EndpointSlice");
        let old = slice("IPv4", &["127.0.0.1"]);
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a": "b"});
        assert!(schema.validate_update(&gvk, &new, &old).is_empty());
        new["endpoints"] = json!([{"addresses": ["127.0.0.2"]}]);
        assert_eq!(schema.validate_update(&gvk, &new, &old).len(), 1);
    }
}
