//! etcd's command-line flags. Names and defaults are etcd's. Each can be given as an environment
//! variable too (`--data-dir` as `ETCD_DATA_DIR`), or all of them in a file ([`file`]). Those that
//! do nothing here are in [`others`]; unknown ones are refused.

pub mod file;
pub mod others;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser};

/// The flags that do something.
#[derive(Debug, Clone, Parser)]
#[command(name = "etcd", version, about = "A distributed, reliable key-value store")]
pub struct Flags {
    /// YAML file with the flags; others are then ignored.
    #[arg(long)]
    pub config_file: Option<PathBuf>,

    /// Human-readable name of this member; must be a name in --initial-cluster.
    #[arg(long, default_value = "default")]
    pub name: String,

    /// Directory of everything that this member stores [default: <name>.etcd].
    #[arg(long)]
    pub data_dir: Option<PathBuf>,

    /// URLs to listen on for clients, comma-separated: http, https, unix or unixs with a path.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379")]
    pub listen_client_urls: Vec<String>,

    /// Client URLs that are told to clients [default: --listen-client-urls].
    #[arg(long, value_delimiter = ',')]
    pub advertise_client_urls: Vec<String>,

    /// URLs to listen on for other members.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    pub listen_peer_urls: Vec<String>,

    /// Peer URLs that are told to other members [default: --listen-peer-urls].
    #[arg(long, value_delimiter = ',')]
    pub initial_advertise_peer_urls: Vec<String>,

    /// First members: name=url,… [default: this one alone]. Ignored once there is data.
    #[arg(long, default_value = "")]
    pub initial_cluster: String,

    /// `new`, or `existing` to join a cluster that has added this member.
    #[arg(long, default_value = "new")]
    pub initial_cluster_state: String,

    /// Tells clusters apart that are made from the same URLs.
    #[arg(long, default_value = "etcd-cluster")]
    pub initial_cluster_token: String,

    /// Server certificate for clients.
    #[arg(long)]
    pub cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub key_file: Option<PathBuf>,
    /// Authorities of client certificates.
    #[arg(long)]
    pub trusted_ca_file: Option<PathBuf>,
    /// Demand a client certificate.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub client_cert_auth: bool,

    /// Certificate for other members, as server and as client.
    #[arg(long)]
    pub peer_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub peer_key_file: Option<PathBuf>,
    /// Authorities of the members' certificates.
    #[arg(long)]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// Demand a certificate of other members.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub peer_client_cert_auth: bool,

    /// Further URLs for /metrics and /health, without client certificates.
    #[arg(long, value_delimiter = ',')]
    pub listen_metrics_urls: Vec<String>,

    /// Milliseconds between heartbeats.
    #[arg(long, default_value_t = 100)]
    pub heartbeat_interval: u64,
    /// Milliseconds without a leader before an election.
    #[arg(long, default_value_t = 1000)]
    pub election_timeout: u64,

    /// Log entries between checkpoints, at least.
    #[arg(long, default_value_t = 10_000)]
    pub snapshot_count: u64,
    /// Log entries kept for slow members after a checkpoint.
    #[arg(long, alias = "experimental-snapshot-catchup-entries", default_value_t = 5_000)]
    pub snapshot_catchup_entries: u64,

    /// Bytes of data at which writes are refused (NOSPACE); 0: 2 GiB.
    #[arg(long, default_value_t = 0)]
    pub quota_backend_bytes: i64,
    /// `periodic` or `revision`.
    #[arg(long, default_value = "periodic")]
    pub auto_compaction_mode: String,
    /// Hours (or a duration such as 5m), or a number of revisions; 0: off.
    #[arg(long, default_value = "0")]
    pub auto_compaction_retention: String,

    /// Learners at a time, at most.
    #[arg(long, default_value_t = 1)]
    pub max_learners: usize,
    /// Operations in one transaction, at most.
    #[arg(long, default_value_t = 128)]
    pub max_txn_ops: usize,
    /// Bytes of one request, at most.
    #[arg(long, default_value_t = 1_572_864)]
    pub max_request_bytes: usize,
    /// Serve the API as JSON over HTTP too (`POST /v3/kv/range` and so on).
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub enable_grpc_gateway: bool,
    /// Streams on one client connection, at most.
    #[arg(long, default_value_t = u32::MAX)]
    pub max_concurrent_streams: u32,
    /// How often a watch with progress notification is told that nothing happened.
    #[arg(long, alias = "experimental-watch-progress-notify-interval", default_value = "10m")]
    pub watch_progress_notify_interval: String,

    /// How users are recognized after they signed in: `simple` (tokens that members keep in memory),
    /// or `jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m` (signed tokens: RS, PS, HS with
    /// 256, 384 or 512, ES256, ES384, EdDSA; `pub-key` may be left out; of HS `priv-key` is the
    /// secret; without `priv-key` a member checks tokens and makes none).
    #[arg(long, default_value = "simple")]
    pub auth_token: String,
    /// Seconds that a token is valid after its last use.
    #[arg(long, default_value_t = 300)]
    pub auth_token_ttl: u64,
    /// Cost of hashing passwords, between 4 and 31: one more doubles it.
    #[arg(long, default_value_t = 10)]
    pub bcrypt_cost: u32,

    /// `debug`, `info`, `warn` or `error`.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// Accepted for compatibility; logs go to standard error.
    #[arg(long, value_delimiter = ',')]
    pub log_outputs: Vec<String>,
    /// `json` or `console`.
    #[arg(long, default_value = "json")]
    pub log_format: String,
    /// Accepted for compatibility; there is one logger.
    #[arg(long, default_value = "zap")]
    pub logger: String,

    /// Accepted for compatibility: pre-vote is always on.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub pre_vote: bool,
    /// Accepted for compatibility: members are compared all the time.
    #[arg(long, alias = "experimental-initial-corrupt-check", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub initial_corrupt_check: bool,
    /// Refuse a configuration change that would lose the quorum.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub strict_reconfig_check: bool,
}

impl Flags {
    /// Reads the command line, the environment, and the file if one is named. Besides the flags:
    /// what to log about those that have no effect.
    ///
    /// # Errors
    /// When something is not a flag, has an impossible value, or is refused.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        let (flags, notes) = Self::understand(command(true), arguments)?;
        let Some(path) = &flags.config_file else { return Ok((flags, notes)) };
        let said = file::arguments(path)?;
        let arguments = std::iter::once("etcd".to_owned()).chain(said).map(OsString::from);
        Self::understand(command(false), arguments)
    }

    fn understand(
        command: Command,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        let arguments: Vec<_> = arguments.into_iter().map(|arg| dashed(&command, arg)).collect();
        let matches = command.try_get_matches_from(arguments)?;
        let notes = others::settle(&matches)?;
        Ok((Self::from_arg_matches(&matches)?, notes))
    }
}

/// `-name` is `--name`, as etcd's flag library has it.
fn dashed(command: &Command, argument: OsString) -> OsString {
    let name = argument.to_str().and_then(|text| text.strip_prefix('-')?.split('=').next());
    let is_flag = name.is_some_and(|name| {
        name.len() > 1 && command.get_arguments().any(|flag| flag.get_long() == Some(name))
    });
    if !is_flag {
        return argument;
    }
    let mut dashed = OsString::from("-");
    dashed.push(argument);
    dashed
}

/// The command line, with or without the environment.
fn command(with_environment: bool) -> Command {
    let command = others::add(Flags::command());
    match with_environment {
        false => command,
        true => command.mut_args(|arg| match arg.get_long() {
            Some(long) if !["help", "version"].contains(&long) => {
                let name = format!("ETCD_{}", long.to_uppercase().replace('-', "_"));
                arg.env(name).hide_env(true)
            }
            _ => arg,
        }),
    }
}
