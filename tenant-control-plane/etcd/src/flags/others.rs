//! Upstream's flags that this server has no use for: accepted and without effect where nothing is
//! lost by it, refused where somebody would rely on what does not happen.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has no effect; the reason is logged.
    Ignored,
    /// The server does not start with it, unless its value is upstream's default.
    Refused,
}
use Verdict::{Ignored, Refused};

/// A flag that is upstream's and not ours.
pub struct Other {
    /// Its name.
    pub name: &'static str,
    /// What becomes of it.
    pub verdict: Verdict,
    /// With this value it asks for nothing.
    pub default: &'static str,
    /// Why.
    pub why: &'static str,
}

const fn other(
    name: &'static str,
    verdict: Verdict,
    default: &'static str,
    why: &'static str,
) -> Other {
    Other { name, verdict, default, why }
}

const NO_BBOLT: &str = "values are stored in the log";
const NO_DISCOVERY: &str = "members are named by --initial-cluster";
const NO_TRACES: &str = "no traces are exported";
const OWN_KEEPALIVE: &str = "idle connections are looked after every 60 s";
const SUITES: &str = "TLS 1.2 and 1.3 with their modern cipher suites are offered, nothing else";

/// All of them.
pub const OTHERS: &[Other] = &[
    other("wal-dir", Refused, "", "log and data are one, in --data-dir"),
    other("initial-election-tick-advance", Ignored, "true", "elections are not sped up"),
    other("listen-client-http-urls", Refused, "", "HTTP is served on --listen-client-urls too"),
    other("max-snapshots", Ignored, "5", "files are deleted once nothing needs them"),
    other("max-wals", Ignored, "5", "files are deleted once nothing needs them"),
    other("memory-mlock", Refused, "false", "memory is not locked"),
    other("backend-bbolt-freelist-type", Ignored, "map", NO_BBOLT),
    other("backend-batch-interval", Ignored, "", NO_BBOLT),
    other("backend-batch-limit", Ignored, "0", NO_BBOLT),
    other("grpc-keepalive-min-time", Ignored, "5s", OWN_KEEPALIVE),
    other("grpc-keepalive-interval", Ignored, "2h", OWN_KEEPALIVE),
    other("grpc-keepalive-timeout", Ignored, "20s", OWN_KEEPALIVE),
    other("socket-reuse-port", Refused, "false", "a port belongs to one process"),
    other("socket-reuse-address", Ignored, "false", "addresses are always reused"),
    other("raft-read-timeout", Ignored, "5s", "the election timeout decides"),
    other("raft-write-timeout", Ignored, "5s", "the election timeout decides"),
    other("feature-gates", Refused, "", "there are no gates"),
    other("discovery", Refused, "", NO_DISCOVERY),
    other("discovery-token", Refused, "", NO_DISCOVERY),
    other("discovery-endpoints", Refused, "", NO_DISCOVERY),
    other("discovery-dial-timeout", Ignored, "2s", NO_DISCOVERY),
    other("discovery-request-timeout", Ignored, "5s", NO_DISCOVERY),
    other("discovery-keepalive-time", Ignored, "2s", NO_DISCOVERY),
    other("discovery-keepalive-timeout", Ignored, "6s", NO_DISCOVERY),
    other("discovery-insecure-transport", Ignored, "true", NO_DISCOVERY),
    other("discovery-insecure-skip-tls-verify", Ignored, "false", NO_DISCOVERY),
    other("discovery-cert", Ignored, "", NO_DISCOVERY),
    other("discovery-key", Ignored, "", NO_DISCOVERY),
    other("discovery-cacert", Ignored, "", NO_DISCOVERY),
    other("discovery-user", Ignored, "", NO_DISCOVERY),
    other("discovery-password", Ignored, "", NO_DISCOVERY),
    other("discovery-fallback", Ignored, "exit", NO_DISCOVERY),
    other("discovery-proxy", Ignored, "", NO_DISCOVERY),
    other("discovery-srv", Refused, "", NO_DISCOVERY),
    other("discovery-srv-name", Refused, "", NO_DISCOVERY),
    other("v2-deprecation", Ignored, "write-only", "there is no v2 store"),
    other("client-cert-file", Refused, "", "--cert-file is shown"),
    other("client-key-file", Refused, "", "--key-file is used"),
    other("client-crl-file", Refused, "", "revocation lists are not read"),
    other("client-cert-allowed-hostname", Refused, "", "names of clients are not compared"),
    other("auto-tls", Refused, "false", "certificates are given, not made"),
    other("peer-auto-tls", Refused, "false", "certificates are given, not made"),
    other("self-signed-cert-validity", Ignored, "1", "certificates are given, not made"),
    other("peer-client-cert-file", Refused, "", "--peer-cert-file is shown"),
    other("peer-client-key-file", Refused, "", "--peer-key-file is used"),
    other("peer-cert-allowed-cn", Refused, "", "names of members are not compared"),
    other("peer-cert-allowed-hostname", Refused, "", "names of members are not compared"),
    other("peer-crl-file", Refused, "", "revocation lists are not read"),
    other(
        "peer-skip-client-san-verification",
        Ignored,
        "false",
        "a client's SANs are not looked at",
    ),
    other("cipher-suites", Refused, "", SUITES),
    other("tls-min-version", Refused, "TLS1.2", SUITES),
    other("tls-max-version", Refused, "", SUITES),
    other("cors", Ignored, "*", "no headers for other origins are sent: browsers refuse them"),
    other("host-whitelist", Refused, "*", "requests for any host are answered"),
    other("enable-pprof", Ignored, "false", "there is no profile of Go's"),
    other("metrics", Ignored, "basic", "there is one set of metrics"),
    other("enable-log-rotation", Refused, "false", "logs go to standard error"),
    other("log-rotation-config-json", Ignored, "", "logs go to standard error"),
    other("warning-unary-request-duration", Ignored, "300ms", "slow requests are not logged"),
    other("warning-apply-duration", Ignored, "100ms", "slow requests are not logged"),
    other("enable-distributed-tracing", Refused, "false", NO_TRACES),
    other("distributed-tracing-address", Ignored, "localhost:4317", NO_TRACES),
    other("distributed-tracing-service-name", Ignored, "etcd", NO_TRACES),
    other("distributed-tracing-instance-id", Ignored, "", NO_TRACES),
    other("distributed-tracing-sampling-rate", Ignored, "0", NO_TRACES),
    other("corrupt-check-time", Ignored, "0s", "members are compared every 5 s"),
    other("compact-hash-check-time", Ignored, "1m", "members are compared every 5 s"),
    other("compaction-batch-limit", Ignored, "1000", "compaction yields by itself"),
    other("compaction-sleep-interval", Ignored, "10ms", "compaction yields by itself"),
    other("bootstrap-defrag-threshold-megabytes", Ignored, "0", NO_BBOLT),
    other("downgrade-check-time", Ignored, "5s", "there is one storage version"),
    other("force-new-cluster", Refused, "false", "restore a snapshot (etcdutl snapshot restore)"),
    other("unsafe-no-fsync", Refused, "false", "what is acknowledged is synced"),
];

/// Adds them to a command, hidden from its help.
pub fn add(command: Command) -> Command {
    command.args(OTHERS.iter().map(|other| {
        // As with upstream's, a value may follow or, for what is on or off, be left out.
        Arg::new(other.name)
            .long(other.name)
            .num_args(0..=1)
            .default_missing_value("true")
            .hide(true)
    }))
}

/// What to log about those that were given.
///
/// # Errors
/// When one of them is refused.
pub fn settle(matches: &ArgMatches) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    for Other { name, verdict, default, why } in OTHERS {
        let is_given = matches.value_source(name).is_some_and(|s| s != ValueSource::DefaultValue);
        let value = matches.get_one::<String>(name).map_or("", String::as_str);
        if !is_given || value == *default || value.is_empty() {
            continue;
        }
        match verdict {
            Refused => anyhow::bail!("--{name}={value} cannot be done: {why}"),
            Ignored => notes.push(format!("--{name}={value} has no effect: {why}")),
        }
    }
    Ok(notes)
}
