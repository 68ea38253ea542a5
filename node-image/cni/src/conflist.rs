//! The CNI configuration of this node.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use ipnet::Ipv4Net;
use serde_json::json;

/// File name: the runtime takes the first one in the directory.
const FILE: &str = "10-marina.conflist";

/// The configuration for the standard plugins (CNI specification 1.0.0).
///
/// Masquerading is not left to the bridge plugin: one rule for the whole node is cheaper than one
/// per pod.
pub fn conflist(pod_cidr: Ipv4Net, mtu: u16) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "marina",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "isDefaultGateway": true,
                "hairpinMode": true,
                "forceAddress": false,
                "ipMasq": false,
                "mtu": mtu,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": pod_cidr.to_string()}]]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    })
}

/// Writes the configuration so that the runtime sees the old file or the new one, never a part.
///
/// # Errors
/// When the directory cannot be written.
pub fn write(dir: &Path, pod_cidr: Ipv4Net, mtu: u16) -> anyhow::Result<()> {
    let path = dir.join(FILE);
    let text = serde_json::to_vec_pretty(&conflist(pod_cidr, mtu)).context("no JSON")?;
    if std::fs::read(&path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let partial = dir.join(format!(".{FILE}.partial"));
    let mut file = std::fs::File::create(&partial)
        .with_context(|| format!("cannot write {}", partial.display()))?;
    file.write_all(&text).and_then(|()| file.sync_all()).context("cannot write the CNI file")?;
    std::fs::rename(&partial, &path).context("cannot publish the CNI file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_this_nodes_range_and_is_replaced_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        for cidr in ["10.244.3.0/24", "10.244.4.0/24"] {
            write(dir.path(), cidr.parse().expect("a CIDR"), 1450).expect("written");
            let text = std::fs::read_to_string(dir.path().join(FILE)).expect("the file");
            assert!(text.contains(cidr), "{text}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1);
    }
}
