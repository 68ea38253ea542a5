//! The flags, checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use etcd_api::tls::{ClientTls, Identity};
use http::Uri;
use sha2::{Digest, Sha256};

use crate::access::jwt::Jwt;
use crate::flags::Flags;
use crate::raft::Timing;

/// etcd's, for 0.
const DEFAULT_TOKEN_TTL: Duration = Duration::from_secs(300);
/// etcd's default quota.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `http` and `https`.
    Tcp(SocketAddr),
    /// `unix` and `unixs`: the path of the socket.
    Unix(PathBuf),
}

/// A socket to listen on.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The URL as given.
    pub url: String,
    /// Its address.
    pub address: Address,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// TLS of one kind of traffic.
#[derive(Clone)]
pub struct ServerTls {
    /// Our certificate.
    pub identity: Identity,
    /// Authorities of those who connect, if they must show a certificate.
    pub client_ca_pem: Option<Vec<u8>>,
}

/// When to compact without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// Keep this much time.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// `--name`.
    pub name: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// Client sockets.
    pub clients: Vec<Listen>,
    /// Peer sockets.
    pub peers: Vec<Listen>,
    /// Metrics sockets.
    pub metrics: Vec<Listen>,
    /// What clients are told.
    pub advertise_client_urls: Vec<String>,
    /// What members are told.
    pub advertise_peer_urls: Vec<String>,
    /// First members: name to peer URLs.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// Whether to join instead of beginning.
    pub existing: bool,
    /// `--initial-cluster-token`.
    pub token: String,
    /// TLS towards clients.
    pub client_tls: Option<ServerTls>,
    /// Whether the common name of a client's certificate is the name of a user.
    pub client_cert_auth: bool,
    /// TLS from other members.
    pub peer_tls: Option<ServerTls>,
    /// TLS to other members.
    pub peer_client_tls: Option<ClientTls>,
    /// Raft's timing.
    pub timing: Timing,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// Bytes.
    pub quota: u64,
    /// Automatic compaction.
    pub auto_compaction: AutoCompaction,
    /// `--max-learners`.
    pub max_learners: usize,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--max-concurrent-streams`.
    pub max_concurrent_streams: u32,
    /// `--enable-grpc-gateway`.
    pub gateway: bool,
    /// `--watch-progress-notify-interval`.
    pub progress_interval: Duration,
    /// How long a token is valid after its last use.
    pub token_ttl: Duration,
    /// Tokens that no member remembers, in place of those that have to be.
    pub jwt: Option<Arc<Jwt>>,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
}

impl Config {
    /// Checks the flags and reads the files that they name.
    pub fn from_flags(f: Flags) -> anyhow::Result<Self> {
        check_numbers(&f)?;
        let existing = match f.initial_cluster_state.as_str() {
            "new" => false,
            "existing" => true,
            other => bail!("--initial-cluster-state {other:?}: must be new or existing"),
        };
        let or_listen = |urls: Vec<String>, listen: &[String]| {
            if urls.is_empty() { listen.to_vec() } else { urls }
        };
        let advertise_client_urls = or_listen(f.advertise_client_urls, &f.listen_client_urls);
        let advertise_peer_urls = or_listen(f.initial_advertise_peer_urls, &f.listen_peer_urls);
        let initial_cluster = parse_cluster(&f.initial_cluster, &f.name, &advertise_peer_urls)?;
        let client_tls =
            server_tls("", f.cert_file, f.key_file, f.trusted_ca_file, f.client_cert_auth)?;
        let peer_ca = f.peer_trusted_ca_file.clone();
        let peer_tls = server_tls(
            "peer-",
            f.peer_cert_file,
            f.peer_key_file,
            f.peer_trusted_ca_file,
            f.peer_client_cert_auth,
        )?;
        let peer_client_tls = match &peer_ca {
            Some(path) => Some(ClientTls {
                ca_pem: read(path)?,
                identity: peer_tls.as_ref().map(|t| t.identity.clone()),
            }),
            None => None,
        };
        let quota = u64::try_from(f.quota_backend_bytes).unwrap_or(u64::MAX);
        Ok(Self {
            data_dir: f.data_dir.unwrap_or_else(|| PathBuf::from(format!("{}.etcd", f.name))),
            clients: listen(&f.listen_client_urls, client_tls.is_some())?,
            peers: listen(&f.listen_peer_urls, peer_tls.is_some())?,
            metrics: listen(&f.listen_metrics_urls, client_tls.is_some())?,
            advertise_client_urls,
            advertise_peer_urls,
            initial_cluster,
            existing,
            token: f.initial_cluster_token,
            client_tls,
            client_cert_auth: f.client_cert_auth,
            peer_tls,
            peer_client_tls,
            timing: Timing {
                heartbeat: Duration::from_millis(f.heartbeat_interval),
                election: Duration::from_millis(f.election_timeout),
                catchup_entries: f.snapshot_catchup_entries,
            },
            snapshot_count: f.snapshot_count.max(1),
            quota: if quota == 0 { DEFAULT_QUOTA } else { quota },
            auto_compaction: auto_compaction(
                &f.auto_compaction_mode,
                &f.auto_compaction_retention,
            )?,
            max_learners: f.max_learners,
            max_txn_ops: f.max_txn_ops,
            max_request_bytes: f.max_request_bytes,
            max_concurrent_streams: f.max_concurrent_streams,
            gateway: f.enable_grpc_gateway,
            progress_interval: parse_duration(&f.watch_progress_notify_interval)
                .context("--watch-progress-notify-interval")?
                .max(Duration::from_millis(100)),
            token_ttl: token_ttl(f.auth_token_ttl),
            jwt: jwt(&f.auth_token)?,
            bcrypt_cost: f.bcrypt_cost,
            name: f.name,
        })
    }

    /// The id of a member with these peer URLs in this cluster.
    pub fn member_id(&self, peer_urls: &[String]) -> u64 {
        member_id(peer_urls, &self.token)
    }

    /// Ids of the first members with their peer URLs.
    pub fn initial_members(&self) -> BTreeMap<u64, (String, Vec<String>)> {
        self.initial_cluster
            .iter()
            .map(|(name, urls)| (self.member_id(urls), (name.clone(), urls.clone())))
            .collect()
    }
}

/// As upstream's: `simple`, or `jwt` with its options.
fn jwt(auth_token: &str) -> anyhow::Result<Option<Arc<Jwt>>> {
    let jwt = match auth_token.split_once(',').unwrap_or((auth_token, "")) {
        ("simple", "") => return Ok(None),
        ("jwt", options) => Jwt::from_options(options),
        _ => bail!("--auth-token {auth_token:?}: neither \"simple\" nor \"jwt,sign-method=…\""),
    };
    Ok(Some(Arc::new(jwt.context("--auth-token")?)))
}

/// As with upstream's, 0 is the default.
fn token_ttl(seconds: u64) -> Duration {
    if seconds == 0 { DEFAULT_TOKEN_TTL } else { Duration::from_secs(seconds) }
}

fn check_numbers(f: &Flags) -> anyhow::Result<()> {
    ensure!(
        f.heartbeat_interval > 0 && f.election_timeout >= 5 * f.heartbeat_interval,
        "--election-timeout ({} ms) must be at least 5 times --heartbeat-interval ({} ms)",
        f.election_timeout,
        f.heartbeat_interval
    );
    ensure!((4..=31).contains(&f.bcrypt_cost), "--bcrypt-cost must be between 4 and 31");
    ensure!(f.election_timeout <= 50_000, "--election-timeout is too long");
    ensure!(
        (1024..=1 << 30).contains(&f.max_request_bytes),
        "--max-request-bytes must be between 1024 and 1 GiB"
    );
    Ok(())
}

/// The id of a member that has these peer URLs: the same wherever it is computed.
pub fn member_id(peer_urls: &[String], salt: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    hash_id(&[urls.join(",").as_bytes(), salt.as_bytes()])
}

/// The id of a cluster that begins with these members.
pub fn cluster_id(members: impl Iterator<Item = u64>, token: &str) -> u64 {
    let ids: Vec<u8> = members.flat_map(u64::to_be_bytes).collect();
    hash_id(&[&ids, token.as_bytes()])
}

fn hash_id(parts: &[&[u8]]) -> u64 {
    let mut h = Sha256::new();
    for part in parts {
        h.update((part.len() as u64).to_be_bytes());
        h.update(part);
    }
    let id = u64::from_be_bytes(h.finalize()[..8].try_into().expect("eight bytes"));
    // 0 stands for nobody.
    id.max(1)
}

fn parse_cluster(
    text: &str,
    name: &str,
    own_urls: &[String],
) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if text.is_empty() {
        members.insert(name.to_owned(), own_urls.to_vec());
        return Ok(members);
    }
    for pair in text.split(',') {
        let (name, url) = pair
            .split_once('=')
            .with_context(|| format!("--initial-cluster: {pair:?} is not name=url"))?;
        parse_url(url).context("--initial-cluster")?;
        members.entry(name.to_owned()).or_default().push(url.to_owned());
    }
    let own = members
        .get(name)
        .with_context(|| format!("--initial-cluster has no member named {name:?} (--name)"))?;
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort_unstable();
        urls
    };
    ensure!(
        sorted(own) == sorted(own_urls),
        "--initial-cluster has {own:?} for {name:?}, but --initial-advertise-peer-urls is {own_urls:?}"
    );
    Ok(members)
}

fn parse_url(url: &str) -> anyhow::Result<Uri> {
    let uri: Uri = url.parse().with_context(|| format!("URL {url:?}"))?;
    ensure!(
        matches!(uri.scheme_str(), Some("http" | "https")),
        "URL {url:?}: the scheme must be http or https"
    );
    ensure!(uri.port_u16().is_some(), "URL {url:?} has no port");
    Ok(uri)
}

fn listen(urls: &[String], have_tls: bool) -> anyhow::Result<Vec<Listen>> {
    urls.iter()
        .map(|url| {
            let of_path =
                ["unix://", "unixs://"].iter().find_map(|scheme| url.strip_prefix(scheme));
            let tls = url.starts_with("https:") || url.starts_with("unixs:");
            ensure!(!tls || have_tls, "URL {url:?}: no certificate and key are given");
            if let Some(path) = of_path {
                ensure!(!path.is_empty(), "URL {url:?} has no path");
                let address = Address::Unix(path.into());
                return Ok(Listen { url: url.clone(), address, tls });
            }
            let uri = parse_url(url)?;
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let host = if host == "localhost" { "127.0.0.1" } else { host };
            let ip = host
                .parse()
                .with_context(|| format!("URL {url:?}: the host must be an IP address"))?;
            let port = uri.port_u16().unwrap_or_default();
            Ok(Listen { url: url.clone(), address: Address::Tcp(SocketAddr::new(ip, port)), tls })
        })
        .collect()
}

fn read(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn server_tls(
    prefix: &str,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    demand_cert: bool,
) -> anyhow::Result<Option<ServerTls>> {
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return Ok(None),
        _ => bail!("--{prefix}cert-file and --{prefix}key-file go together"),
    };
    let ca = ca.as_ref().map(read).transpose()?;
    ensure!(
        !demand_cert || ca.is_some(),
        "--{prefix}client-cert-auth needs --{prefix}trusted-ca-file"
    );
    // As in etcd, a trusted authority alone also demands certificates.
    Ok(Some(ServerTls { identity: Identity::from_files(&cert, &key)?, client_ca_pem: ca }))
}

fn auto_compaction(mode: &str, retention: &str) -> anyhow::Result<AutoCompaction> {
    let flag = "--auto-compaction-retention";
    match mode {
        _ if retention == "0" || retention.is_empty() => Ok(AutoCompaction::Off),
        "revision" => Ok(AutoCompaction::Revision(
            retention.parse().with_context(|| format!("{flag} {retention:?}: must be a number"))?,
        )),
        "periodic" => Ok(AutoCompaction::Periodic(match retention.parse::<u64>() {
            Ok(hours) => Duration::from_secs(hours * 3600),
            Err(_) => parse_duration(retention).context(flag)?,
        })),
        other => bail!("--auto-compaction-mode {other:?}: must be periodic or revision"),
    }
}

/// Go's notation: numbers with units, such as 1h30m, 250ms, 1.5s.
pub fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .with_context(|| format!("{text:?}: a unit is missing"))?;
        let number: f64 =
            rest[..digits].parse().with_context(|| format!("{text:?} is not a duration"))?;
        let unit_len =
            rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let unit = match &rest[digits..digits + unit_len] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => bail!("{text:?}: {other:?} is not a unit"),
        };
        total += number * unit;
        rest = &rest[digits + unit_len..];
    }
    Duration::try_from_secs_f64(total).with_context(|| format!("{text:?} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn config(args: &[&str]) -> anyhow::Result<Config> {
        let args = std::iter::once("etcd").chain(args.iter().copied());
        Config::from_flags(Flags::try_parse_from(args)?)
    }

    #[test]
    fn defaults_are_etcds() {
        let c = config(&[]).unwrap();
        assert_eq!(c.clients[0].address, Address::Tcp("127.0.0.1:2379".parse().unwrap()));
        assert_eq!(c.initial_cluster["default"], ["http://localhost:2380"]);
        assert_eq!(c.quota, 2 << 30);
        assert_eq!(c.auto_compaction, AutoCompaction::Off);
        assert_eq!(c.progress_interval, Duration::from_secs(600));
    }

    #[test]
    fn mistakes_name_the_flag() {
        for (args, flag) in [
            (&["--election-timeout=200"][..], "--election-timeout"),
            (&["--initial-cluster=a=http://127.0.0.1:1"], "--name"),
            (&["--initial-cluster=x"], "--initial-cluster"),
            (&["--initial-cluster-state=old"], "--initial-cluster-state"),
            (&["--cert-file=x"], "--cert-file"),
            (&["--listen-client-urls=https://127.0.0.1:1"], "https"),
            (&["--listen-client-urls=127.0.0.1:1"], "127.0.0.1:1"),
            (&["--listen-client-urls=unixs:///a"], "unixs:///a"),
            (&["--listen-client-urls=unix://"], "unix://"),
            (&["--auto-compaction-retention=5x"], "--auto-compaction-retention"),
        ] {
            let e = format!("{:#}", config(args).err().expect(flag));
            assert!(e.contains(flag), "{e}");
        }
        assert!(config(&["--no-such-flag"]).is_err());
    }

    #[test]
    fn durations_are_gos() {
        let d = |s: &str| parse_duration(s).unwrap();
        assert_eq!(d("1h30m"), Duration::from_secs(5400));
        assert_eq!(d("250ms"), Duration::from_millis(250));
        assert_eq!(d("1.5s"), Duration::from_millis(1500));
        assert!(parse_duration("5").is_err() && parse_duration("5x").is_err());
    }

    #[test]
    fn ids_depend_on_urls_and_token_and_not_on_order() {
        let urls = |u: &[&str]| u.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let a = member_id(&urls(&["http://a:1", "http://b:1"]), "t");
        assert_eq!(a, member_id(&urls(&["http://b:1", "http://a:1"]), "t"));
        assert_ne!(a, member_id(&urls(&["http://b:1", "http://a:1"]), "u"));
        assert_ne!(a, member_id(&urls(&["http://b:1"]), "t"));
    }
}
