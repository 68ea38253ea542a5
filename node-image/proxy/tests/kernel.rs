//! The real nftables accepts every text that we write. Needs root and nftables; each test has a
//! network namespace of its own, which ends with it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;

use kube_proxy::model::{PortKey, Protocol, ServicePort, State, Target};
use kube_proxy::nft;

fn port(targets: &[&str], affinity_seconds: Option<u32>, node_port: Option<u16>) -> ServicePort {
    let targets: BTreeSet<_> =
        targets.iter().map(|ip| Target { ip: ip.parse().unwrap(), port: 8080 }).collect();
    ServicePort {
        addresses: BTreeSet::from(["10.96.0.7".parse().unwrap()]),
        external_addresses: BTreeSet::from(["192.0.2.7".parse().unwrap()]),
        port: 80,
        node_port,
        affinity_seconds,
        internal: targets.clone(),
        external: targets,
        external_local: false,
    }
}

fn key(name: &str, protocol: Protocol) -> PortKey {
    PortKey { namespace: "default".into(), name: name.into(), port: "web".into(), protocol }
}

/// Writes the texts one after the other in a fresh namespace and returns the table in the end.
fn apply(texts: &[String]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut script = String::new();
    for (index, text) in texts.iter().enumerate() {
        let path = dir.path().join(index.to_string());
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        script += &format!("nft -f {} || exit 1\n", path.display());
    }
    script += "nft list table ip kube-proxy";
    let output = Command::new("unshare").args(["-n", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}\n{texts:#?}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_step_is_accepted_and_leads_to_the_same_table_as_a_full_write() {
    let tcp = key("web", Protocol::Tcp);
    let udp = key(&"long-name-".repeat(12), Protocol::Udp);
    let states = [
        State::new(),
        State::from([(tcp.clone(), port(&["10.244.0.2", "10.244.1.2"], None, Some(30080)))]),
        State::from([
            (tcp.clone(), port(&["10.244.1.2", "10.244.1.3"], Some(10800), Some(30080))),
            (udp.clone(), port(&["10.244.1.2"], None, None)),
        ]),
        State::from([
            (tcp.clone(), port(&["10.244.1.2"], None, None)),
            (udp.clone(), port(&[], None, Some(30053))),
        ]),
        State::from([(udp.clone(), port(&["10.244.3.3"], Some(60), Some(30053)))]),
        State::new(),
    ];
    let services: BTreeSet<_> = [&tcp, &udp].map(PortKey::service).into();
    let (mut table, first) = nft::full(states[0].clone());
    let mut texts = vec![first];
    for state in &states[1..] {
        texts.push(table.change(&services, state.clone()));
        let stepwise = apply(&texts);
        let fresh = apply(&[nft::full(state.clone()).1]);
        let sorted = |table: &str| -> Vec<String> {
            let mut lines: Vec<_> = table.split([',', '\n']).map(|l| l.trim().to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&stepwise), sorted(&fresh));
    }
}
