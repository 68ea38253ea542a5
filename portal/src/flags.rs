//! Command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Marina's console and REST API.
#[derive(Parser, Debug)]
#[command(name = "portal", version, args_conflicts_with_subcommands = true)]
pub struct Flags {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: Option<ServeFlags>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make the first organization and the administrator's account, once, and print the
    /// administrator's one-time password.
    Setup(SetupFlags),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SetupFlags {
    /// Database file; created when missing.
    #[arg(long, value_name = "FILE")]
    pub database: PathBuf,
    /// Key that opens sealed secrets; created when missing.
    #[arg(long, value_name = "FILE")]
    pub secret_key_file: PathBuf,
    /// Make a new one-time password for the administrator and end all of that account's sessions.
    #[arg(long)]
    pub reset_admin_password: bool,
}

/// Flags of the server.
#[derive(Args, Clone, Debug)]
pub struct ServeFlags {
    /// Database file; created when missing.
    #[arg(long, value_name = "FILE")]
    pub database: PathBuf,
    /// Key that opens sealed secrets; kept apart from the database.
    #[arg(long, value_name = "FILE")]
    pub secret_key_file: PathBuf,
    /// Address of the console and the REST API.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Serve HTTPS with this certificate chain (PEM). Without it the portal serves plain HTTP:
    /// then it belongs on loopback or behind a proxy that terminates TLS.
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// `host:port` of the gateway, for clusters whose endpoint is not known yet.
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub gateway_address: String,
    /// Domain of the clusters' server names.
    #[arg(long, default_value = "marina.local")]
    pub domain: String,
}
