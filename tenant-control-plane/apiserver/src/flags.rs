//! Command-line flags. Names are upstream's; unknown ones are refused.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Parser;

/// The Kubernetes API server.
#[derive(Parser, Clone, Debug)]
#[command(name = "kube-apiserver", version)]
pub struct Flags {
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port to serve HTTPS on.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address under which members of the cluster reach this server. By default the bind address,
    /// or when that is 0.0.0.0 or a loopback address, the one of the default route.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// etcd servers, comma-separated URLs.
    #[arg(long, value_delimiter = ',', required = true)]
    pub etcd_servers: Vec<String>,
    /// Authority that signed etcd's certificate.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of the client certificate for etcd.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// Interval between compactions of etcd; 0 turns them off.
    #[arg(long, default_value = "5m")]
    pub etcd_compaction_interval: String,
    /// Prefix of every key in etcd. Only upstream's default is supported.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// Authority of client certificates.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// File of bearer tokens: lines of token, user name, uid, "groups".
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// Serving certificate.
    #[arg(long, required = true)]
    pub tls_cert_file: PathBuf,
    /// Key of the serving certificate.
    #[arg(long, required = true)]
    pub tls_private_key_file: PathBuf,
    /// Public or private keys that verify ServiceAccount tokens.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Key that signs ServiceAccount tokens.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Issuer of ServiceAccount tokens; the first one is used for new tokens.
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    /// Where the keys of the tokens are published.
    #[arg(long)]
    pub service_account_jwks_uri: Option<String>,
    /// Refuse tokens of ServiceAccounts that are gone. Cannot be turned off.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub service_account_lookup: bool,
    /// Longest validity of a token, such as `24h`.
    #[arg(long)]
    pub service_account_max_token_expiration: Option<String>,
    /// Tokens of clients that do not renew live longer.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub service_account_extend_token_expiration: bool,
    /// Audiences of this server; default: the issuers.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// Range of cluster IPs.
    #[arg(long, default_value = "10.0.0.0/24")]
    pub service_cluster_ip_range: String,
    /// Range of node ports.
    #[arg(long, default_value = "30000-32767")]
    pub service_node_port_range: String,
    /// Authorizers, comma-separated: Node, RBAC, AlwaysAllow.
    #[arg(long, value_delimiter = ',', default_value = "AlwaysAllow")]
    pub authorization_mode: Vec<String>,
    /// Admission plugins beside the default ones.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to leave out.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// Accept bootstrap tokens.
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_bootstrap_token_auth: bool,
    /// Requests without credentials run as system:anonymous, unless everything is allowed to all.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub anonymous_auth: bool,
    /// Client certificate for kubelets.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Key of the client certificate for kubelets.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// Authority of kubelets' serving certificates.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Which of a node's addresses to use, in this order. Unlike upstream, names come after
    /// addresses: they do not resolve where this server runs.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "InternalIP,Hostname,InternalDNS,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// How this server reaches nodes, pods and Services.
    #[arg(long)]
    pub egress_selector_config_file: Option<PathBuf>,
    /// Kubernetes version to serve, such as 1.35.
    #[arg(long)]
    pub emulated_version: Option<String>,
    /// Pods may be privileged.
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allow_privileged: bool,
    /// Authority of front proxies' client certificates.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of front proxies; any when empty.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers with the user name.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// Headers with groups.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// Prefixes of headers with further facts.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Client certificate for extension API servers.
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Key of the client certificate for extension API servers.
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,
    /// Extension API servers and webhooks are reached by their Services' endpoints. Accepted; here
    /// that is always so.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_aggregator_routing: bool,
    /// Requests that read, at most so many at once.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Requests that write, at most so many at once.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// Time between the first failing /readyz and the end of service, such as `10s`.
    #[arg(long, default_value = "0s")]
    pub shutdown_delay_duration: String,
    /// Turns `/debug` on upstream; there is none here.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub profiling: bool,
    /// Features to turn on or off; accepted, none is known yet.
    #[arg(long)]
    pub feature_gates: Vec<String>,
    /// Groups and versions to serve; accepted, the built-in set is always served.
    #[arg(long, value_delimiter = ',')]
    pub runtime_config: Vec<String>,
    /// Log level: 0 to 3 normal, 4 and more debugging.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub v: u8,
}
