//! The node's own network: loopback, one card, one address, one route, and the kernel settings
//! that forwarding pods' traffic needs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::system::System;
use crate::user_data::UserData;

const CARD_PATIENCE: Duration = Duration::from_secs(20);

/// Settings of the node's own network namespace: (path below `/proc/sys`, value).
const NETWORK: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    // Traffic between two pods of one bridge must pass the rules of Services and policies too.
    ("net/bridge/bridge-nf-call-iptables", "1"),
    ("net/bridge/bridge-nf-call-ip6tables", "1"),
];

/// Settings of the whole kernel: in a sandbox it is the host's, and stays as it is.
const MACHINE: &[(&str, &str)] = &[
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("fs/inotify/max_user_instances", "8192"),
    ("fs/inotify/max_user_watches", "524288"),
    ("kernel/pid_max", "4194304"),
];

/// Brings the network up as the user-data says.
///
/// # Errors
/// There is no card with that address, or the kernel refuses a command.
pub fn configure(system: System, data: &UserData) -> anyhow::Result<()> {
    let card = wait_for_card(&data.network.mac)?;
    let batch = commands(&card, &data.network.address, &data.network.gateway);
    ip_batch(&batch)?;
    set_all(NETWORK);
    if system == System::VirtualMachine {
        set_all(MACHINE);
    }
    nix::unistd::sethostname(&data.node_name).context("setting the host name")?;
    fs::write("/etc/hostname", format!("{}\n", data.node_name)).context("writing /etc/hostname")?;
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost\n{} {}\n",
        data.node_ip()?,
        data.node_name
    );
    fs::write("/etc/hosts", hosts).context("writing /etc/hosts")
}

fn wait_for_card(mac: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + CARD_PATIENCE;
    loop {
        if let Some(name) = find_card(Path::new("/sys/class/net"), mac) {
            return Ok(name);
        }
        if Instant::now() > deadline {
            bail!("there is no network card with the address {mac}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn find_card(dir: &Path, mac: &str) -> Option<String> {
    fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        let found = address.trim().eq_ignore_ascii_case(mac);
        found.then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

fn commands(card: &str, address: &str, gateway: &str) -> String {
    format!(
        "link set lo up\naddr replace {address} dev {card}\nlink set {card} up\n\
         route replace default via {gateway} dev {card}\n"
    )
}

fn ip_batch(commands: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ip")?;
    child
        .stdin
        .take()
        .expect("stdin was asked for above")
        .write_all(commands.as_bytes())
        .context("writing to ip")?;
    let output = child.wait_with_output().context("waiting for ip")?;
    if !output.status.success() {
        bail!("ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A setting that this kernel does not have changes nothing that a node depends on.
fn set_all(settings: &[(&str, &str)]) {
    for (path, value) in settings {
        let _ = fs::write(Path::new("/proc/sys").join(path), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_found_by_its_address() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mac) in [("lo", "00:00:00:00:00:00\n"), ("eth1", "52:54:00:aa:00:01\n")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("address"), mac).unwrap();
        }
        assert_eq!(find_card(dir.path(), "52:54:00:AA:00:01").as_deref(), Some("eth1"));
        assert_eq!(find_card(dir.path(), "52:54:00:aa:00:02"), None);
    }

    #[test]
    fn the_commands_are_idempotent() {
        assert_eq!(
            commands("eth0", "10.0.1.5/16", "10.0.0.1"),
            "link set lo up\naddr replace 10.0.1.5/16 dev eth0\nlink set eth0 up\n\
             route replace default via 10.0.0.1 dev eth0\n"
        );
    }
}
