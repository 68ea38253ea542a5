//! The controller's configuration, validated.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use marina_db::{ids::random_hex, seal::Sealer};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::flags::ControllerFlags;

/// What the controller runs with.
#[derive(Debug)]
pub struct ControllerConfig {
    /// Database file.
    pub database: PathBuf,
    /// Opens and seals secrets.
    pub sealer: Sealer,
    /// How agents are dialled.
    pub tls: ClientTlsConfig,
    /// What desired states depend on beside the database.
    pub settings: Settings,
    /// Name in the lease.
    pub name: String,
}

/// Region-wide settings of clusters.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Domain at the gateway.
    pub domain: String,
    /// Domain of Services.
    pub cluster_domain: String,
    /// Connections per cluster at the gateway.
    pub gateway_max_connections: u32,
}

impl Settings {
    /// A cluster's name at the gateway.
    pub fn server_name(&self, cluster: &str) -> String {
        format!("{cluster}.{}", self.domain)
    }
}

impl ControllerConfig {
    /// Checks the flags and reads the files.
    pub fn from_flags(flags: ControllerFlags) -> anyhow::Result<Self> {
        for (flag, domain) in
            [("--domain", &flags.domain), ("--cluster-domain", &flags.cluster_domain)]
        {
            let label = |part: &str| {
                !part.is_empty()
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            };
            if !domain.split('.').all(label) {
                bail!("{flag} {domain:?}: not a lower-case domain name");
            }
        }
        let read = |name: &str| {
            let path: &Path = &flags.pki_dir.join(name);
            std::fs::read(path).with_context(|| format!("--pki-dir: reading {}", path.display()))
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("region-ca.crt")?))
            .identity(Identity::from_pem(read("controller.crt")?, read("controller.key")?))
            .domain_name(provisioner_pki::region::AGENT_NAME);
        Ok(Self {
            database: flags.database,
            sealer: Sealer::load(&flags.secret_key_file).context("--secret-key-file")?,
            tls,
            settings: Settings {
                domain: flags.domain,
                cluster_domain: flags.cluster_domain,
                gateway_max_connections: flags.gateway_max_connections,
            },
            name: flags.name.unwrap_or_else(|| format!("controller-{}", random_hex(4))),
        })
    }
}
