use std::ffi::OsString;

use super::*;

/// Every flag of etcd 3.7.3 (`etcd --help`).
const UPSTREAM: &str = "name data-dir wal-dir snapshot-count heartbeat-interval election-timeout
    initial-election-tick-advance listen-peer-urls listen-client-urls listen-client-http-urls
    max-snapshots max-wals memory-mlock quota-backend-bytes backend-bbolt-freelist-type
    backend-batch-interval backend-batch-limit max-txn-ops max-request-bytes max-concurrent-streams
    grpc-keepalive-min-time grpc-keepalive-interval grpc-keepalive-timeout socket-reuse-port
    socket-reuse-address enable-grpc-gateway raft-read-timeout raft-write-timeout feature-gates
    initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token
    advertise-client-urls discovery discovery-token discovery-endpoints discovery-dial-timeout
    discovery-request-timeout discovery-keepalive-time discovery-keepalive-timeout
    discovery-insecure-transport discovery-insecure-skip-tls-verify discovery-cert discovery-key
    discovery-cacert discovery-user discovery-password discovery-fallback discovery-proxy
    discovery-srv discovery-srv-name strict-reconfig-check pre-vote auto-compaction-retention
    auto-compaction-mode v2-deprecation cert-file key-file client-cert-auth client-cert-file
    client-key-file client-crl-file client-cert-allowed-hostname trusted-ca-file auto-tls
    peer-cert-file peer-key-file peer-client-cert-auth peer-client-cert-file peer-client-key-file
    peer-trusted-ca-file peer-cert-allowed-cn peer-cert-allowed-hostname peer-auto-tls
    self-signed-cert-validity peer-crl-file cipher-suites cors host-whitelist tls-min-version
    tls-max-version auth-token bcrypt-cost auth-token-ttl enable-pprof metrics listen-metrics-urls
    logger log-outputs log-level log-format enable-log-rotation log-rotation-config-json
    warning-unary-request-duration enable-distributed-tracing distributed-tracing-address
    distributed-tracing-service-name distributed-tracing-instance-id
    distributed-tracing-sampling-rate corrupt-check-time compact-hash-check-time
    compaction-batch-limit peer-skip-client-san-verification watch-progress-notify-interval
    warning-apply-duration bootstrap-defrag-threshold-megabytes max-learners
    compaction-sleep-interval downgrade-check-time snapshot-catchup-entries force-new-cluster
    unsafe-no-fsync config-file";

fn read(arguments: &[&str]) -> anyhow::Result<(Flags, Vec<String>)> {
    Flags::read(std::iter::once(&"etcd").chain(arguments).map(OsString::from))
}

#[test]
fn every_flag_of_upstreams_is_known_and_none_is_two_things() {
    let command = command(true);
    let known: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    let missing: Vec<&str> =
        UPSTREAM.split_whitespace().filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    command.debug_assert();
}

#[test]
fn one_dash_will_do() {
    let (flags, _) = read(&["-name", "m1", "-log-level=warn", "--max-txn-ops", "9"]).unwrap();
    assert_eq!((flags.name.as_str(), flags.log_level.as_str()), ("m1", "warn"));
    assert_eq!(flags.max_txn_ops, 9);
    assert!(read(&["-no-such-flag"]).is_err());
}

#[test]
fn flags_without_effect_are_said_or_refused() {
    let (_, notes) = read(&["--max-wals=9", "--enable-pprof", "--cors", "*"]).unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with("--max-wals=9 has no effect: "));
    for refused in ["--unsafe-no-fsync", "--force-new-cluster=true", "--wal-dir=/x"] {
        let why = read(&[refused]).unwrap_err().to_string();
        assert!(why.contains(" cannot be done: "), "{why}");
    }
    assert!(read(&["--unsafe-no-fsync=false", "--tls-min-version=TLS1.2"]).unwrap().1.is_empty());
    assert!(read(&["--no-such-flag"]).is_err());
}

#[test]
fn a_file_says_what_flags_say() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "name: from-file
snapshot-count: 77
max-txn-ops:
client-transport-security:
  client-cert-auth: true
  cert-file: /c.crt
peer-transport-security:
  trusted-ca-file: /p.crt
log-outputs: [stderr, stdout]
max-wals: 3
";
    std::fs::write(file.path(), text).unwrap();
    let path = format!("--config-file={}", file.path().display());
    let (flags, notes) = read(&[&path, "--name=ignored"]).unwrap();
    assert_eq!((&flags.name[..], flags.snapshot_count, flags.max_txn_ops), ("from-file", 77, 128));
    assert!(flags.client_cert_auth && !flags.peer_client_cert_auth);
    assert_eq!(flags.cert_file.unwrap().to_str(), Some("/c.crt"));
    assert_eq!(flags.peer_trusted_ca_file.unwrap().to_str(), Some("/p.crt"));
    assert_eq!(flags.log_outputs, ["stderr", "stdout"]);
    assert_eq!(notes.len(), 1);
    for wrong in
        ["no-such-flag: 1", "- list", "peer-transport-security: {allowed-cn: x}", "name: {}"]
    {
        std::fs::write(file.path(), wrong).unwrap();
        assert!(read(&[&path]).is_err(), "{wrong}");
    }
}

#[test]
fn the_environment_stands_behind_the_command_line() {
    let command = command(true);
    let env = |long: &str| {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(long)).unwrap();
        arg.get_env().map(|name| name.to_string_lossy().into_owned())
    };
    assert_eq!(env("initial-cluster-token").as_deref(), Some("ETCD_INITIAL_CLUSTER_TOKEN"));
    assert_eq!(env("wal-dir").as_deref(), Some("ETCD_WAL_DIR"));
}
