//! Validated configuration of the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;

use crate::flags::ServeFlags;

/// What the server runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Database file.
    pub database: PathBuf,
    /// Key of sealed secrets.
    pub secret_key_file: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Certificate chain and key files.
    pub tls: Option<(PathBuf, PathBuf)>,
}

impl TryFrom<ServeFlags> for Config {
    type Error = anyhow::Error;

    fn try_from(flags: ServeFlags) -> anyhow::Result<Self> {
        let tls = flags.tls_cert_file.zip(flags.tls_private_key_file);
        if tls.is_none() && !flags.listen.ip().is_loopback() {
            bail!(
                "--listen {}: plain HTTP is served on loopback only; give --tls-cert-file and \
                 --tls-private-key-file",
                flags.listen
            );
        }
        if flags.domain.is_empty() || flags.gateway_address.is_empty() {
            bail!("--domain and --gateway-address must not be empty");
        }
        Ok(Self {
            database: flags.database,
            secret_key_file: flags.secret_key_file,
            listen: flags.listen,
            tls,
        })
    }
}
