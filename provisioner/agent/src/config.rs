//! The agent's configuration, validated.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::flags::AgentFlags;

/// Longest data directory: Unix socket addresses have 107 bytes (unix(7)).
const MAX_DATA_DIR: usize = 60;

/// What the agent runs with.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of this host.
    pub host: String,
    /// Where the controller connects.
    pub listen: SocketAddr,
    /// Everything that this agent keeps.
    pub data_dir: PathBuf,
    /// Where the gateway listens.
    pub gateway_listen: SocketAddr,
    /// What clients are told to connect to; empty: the gateway's own address.
    pub gateway_advertise: String,
    /// Binaries of control planes.
    pub release_dir: PathBuf,
    /// Output directory of the node image build.
    pub image_dir: PathBuf,
    /// Worker drivers: name and executable.
    pub drivers: Vec<(String, PathBuf)>,
    /// Certificate of this agent, PEM file.
    pub tls_cert_file: PathBuf,
    /// Private key of this agent, PEM file.
    pub tls_key_file: PathBuf,
    /// CA that signs controllers, PEM file.
    pub region_ca_file: PathBuf,
    /// First and last loopback port for tenants' processes.
    pub ports: (u16, u16),
    /// First user id for tenants.
    pub first_uid: u32,
    /// Remove everything and exit.
    pub purge: bool,
    /// Program that is started as `<launcher> launch --spec <file>`.
    pub launcher: PathBuf,
}

impl AgentConfig {
    /// Directory with one directory per cluster.
    pub fn clusters_dir(&self) -> PathBuf {
        self.data_dir.join("clusters")
    }

    /// Checks the flags.
    pub fn from_flags(flags: AgentFlags) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&flags.data_dir)
            .with_context(|| format!("--data-dir {}", flags.data_dir.display()))?;
        let data_dir = flags.data_dir.canonicalize().context("--data-dir")?;
        if data_dir.as_os_str().len() > MAX_DATA_DIR {
            bail!("--data-dir {}: longer than {MAX_DATA_DIR} characters", data_dir.display());
        }
        let release_dir = flags
            .release_dir
            .canonicalize()
            .with_context(|| format!("--release-dir {}", flags.release_dir.display()))?;
        let pki = data_dir.join("pki");
        let file = |given: Option<PathBuf>, name: &str| given.unwrap_or_else(|| pki.join(name));
        let launcher = match flags.launcher {
            Some(launcher) => launcher,
            None => own_program()?,
        };
        Ok(Self {
            host: flags.host,
            purge: flags.purge,
            listen: flags.listen,
            gateway_listen: flags.gateway_listen,
            gateway_advertise: flags.gateway_advertise.unwrap_or_default(),
            release_dir,
            image_dir: absolute(&flags.image_dir)?,
            drivers: drivers(&flags.driver)?,
            tls_cert_file: file(flags.tls_cert_file, "agent.crt"),
            tls_key_file: file(flags.tls_key_file, "agent.key"),
            region_ca_file: file(flags.region_ca_file, "region-ca.crt"),
            ports: port_range(&flags.port_range)?,
            first_uid: flags.first_uid,
            launcher,
            data_dir,
        })
    }
}

/// This program by a path that still works when its file is replaced by a newer build: then the
/// newer one launches.
fn own_program() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("finding this program")?;
    let text = path.to_string_lossy();
    Ok(PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text)))
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{}", path.display()))
}

fn drivers(flags: &[String]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut drivers = Vec::new();
    for flag in flags {
        let (name, path) =
            flag.split_once('=').with_context(|| format!("--driver {flag:?}: not NAME=PATH"))?;
        crate::member::setup::check_name(name).context("--driver")?;
        if drivers.iter().any(|(other, _)| other == name) {
            bail!("--driver {name}: given twice");
        }
        drivers.push((name.to_owned(), absolute(Path::new(path))?));
    }
    Ok(drivers)
}

fn port_range(text: &str) -> anyhow::Result<(u16, u16)> {
    let parsed = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?)));
    match parsed {
        Some((first, last)) if first > 0 && first <= last => Ok((first, last)),
        _ => bail!("--port-range {text:?}: not FIRST-LAST with 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_flags_say_what_is_allowed() {
        assert_eq!(port_range("20000-20010").unwrap(), (20000, 20010));
        for bad in ["", "1", "0-1", "9-8", "1-70000"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
        assert!(drivers(&["sandbox".into()]).is_err());
        assert!(drivers(&["a=/x".into(), "a=/y".into()]).is_err());
        assert_eq!(drivers(&["qemu=/x".into()]).unwrap(), [("qemu".to_owned(), "/x".into())]);
    }
}
