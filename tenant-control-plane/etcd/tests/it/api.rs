//! Key-values, leases and the rest through our own client.

use std::time::Duration;

use etcd_api::client::connect;
use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::{
    CompactionRequest, HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, SnapshotRequest,
};
use sha2::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::{Cluster, eventually, get, put};

pub async fn http_get(address: &str, path: &str) -> String {
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut out = String::new();
    tcp.read_to_string(&mut out).await.unwrap();
    out
}

#[tokio::test]
async fn limits_revisions_and_errors_are_etcds() {
    let cluster = Cluster::start(1, &["--max-request-bytes=100000"]);
    let client = cluster.ready(0).await;
    for i in 0..1200 {
        put(&client, &format!("k{i:04}"), "v").await.unwrap();
    }
    let range = |limit, revision| RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        limit,
        revision,
        ..Default::default()
    };
    let all = client.kv().range(range(0, 0)).await.unwrap().into_inner();
    assert_eq!((all.kvs.len(), all.count, all.more), (1200, 1200, false));
    let page = client.kv().range(range(500, 601)).await.unwrap().into_inner();
    assert_eq!((page.kvs.len(), page.count, page.more), (500, 600, true));
    let mut stream = client.kv().range_stream(range(0, 0)).await.unwrap().into_inner();
    let (mut keys, mut last) = (0, None);
    while let Some(piece) = stream.message().await.unwrap() {
        let piece = piece.range_response.unwrap();
        keys += piece.kvs.len();
        last = Some(piece);
    }
    assert_eq!((keys, last.unwrap().count), (1200, 1200));

    let code = |r: Result<_, tonic::Status>| EtcdError::of(&r.err().unwrap());
    let future = client.kv().range(range(0, 99_999)).await;
    assert_eq!(code(future), Some(EtcdError::FutureRevision));
    let compact = CompactionRequest { revision: 1000, physical: true };
    client.kv().compact(compact).await.unwrap();
    let old = client.kv().range(range(0, 999)).await;
    assert_eq!(code(old), Some(EtcdError::Compacted));
    let at = client.kv().range(range(0, 1000)).await.unwrap().into_inner();
    assert_eq!(at.count, 999);
    let big = "x".repeat(200_000);
    let e = put(&client, "big", &big).await.unwrap_err();
    assert_eq!(EtcdError::of(&e), Some(EtcdError::RequestTooLarge));
    let e = put(&client, "", "v").await.unwrap_err();
    assert_eq!(EtcdError::of(&e), Some(EtcdError::EmptyKey));
}

#[tokio::test]
async fn leases_expire_and_take_their_keys_along() {
    let cluster = Cluster::start(1, &["--heartbeat-interval=10", "--election-timeout=100"]);
    let client = cluster.ready(0).await;
    let grant = |ttl, id| LeaseGrantRequest { ttl, id };
    let short = client.lease().lease_grant(grant(1, 0)).await.unwrap().into_inner();
    let long = client.lease().lease_grant(grant(600, 77)).await.unwrap().into_inner();
    assert_eq!((short.ttl, long.id), (1, 77));
    for (key, lease) in [("short", short.id), ("long", long.id)] {
        let r = PutRequest { key: key.into(), lease, ..Default::default() };
        client.kv().put(r).await.unwrap();
    }
    let ask = LeaseTimeToLiveRequest { id: 77, keys: true };
    let time = client.lease().lease_time_to_live(ask).await.unwrap().into_inner();
    assert!(time.ttl > 590 && time.granted_ttl == 600 && time.keys[0] == "long");
    let unknown = LeaseTimeToLiveRequest { id: 78, keys: false };
    let time = client.lease().lease_time_to_live(unknown).await.unwrap();
    assert_eq!(time.into_inner().ttl, -1);
    eventually("the lease expires", async || get(&client, "short").await.is_none().then_some(()))
        .await;
    assert!(get(&client, "long").await.is_some());
    let ids = [LeaseKeepAliveRequest { id: 77 }, LeaseKeepAliveRequest { id: short.id }];
    let requests = tokio_stream::iter(ids);
    let mut answers = client.lease().lease_keep_alive(requests).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl, 600);
    assert_eq!(answers.message().await.unwrap().unwrap().ttl, 0, "expired");
    let missing = PutRequest { key: "x".into(), lease: 12345, ..Default::default() };
    let e = client.kv().put(missing).await.unwrap_err();
    assert_eq!(EtcdError::of(&e), Some(EtcdError::LeaseNotFound));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_turned_away() {
    let cluster = Cluster::start(1, &[]);
    cluster.ready(0).await;
    let anonymous = connect(&[cluster.endpoint(0)], Some(&cluster.pki.anonymous())).unwrap();
    assert!(put(&anonymous, "a", "b").await.is_err());
    let plain = connect(&[cluster.endpoint(0).replace("https", "http")], None).unwrap();
    assert!(put(&plain, "a", "b").await.is_err());
}

#[tokio::test]
async fn health_version_and_metrics_are_served() {
    let mut cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    put(&client, "a", "b").await.unwrap();
    let address = cluster.metrics_address(0);
    let health = http_get(&address, "/health").await;
    assert!(health.contains(r#""health":"true""#), "{health}");
    assert!(http_get(&address, "/livez").await.ends_with("ok\n"));
    assert!(http_get(&address, "/readyz").await.ends_with("ok\n"));
    assert!(http_get(&address, "/version").await.contains("etcdserver"));
    let metrics = http_get(&address, "/metrics").await;
    assert!(metrics.contains("\netcd_server_has_leader 1\n"), "{metrics}");
    assert!(metrics.contains("\netcd_mvcc_put_total 1\n"), "{metrics}");
    assert!(cluster.stop(0), "SIGTERM is a clean stop");
}

#[tokio::test]
async fn a_snapshot_carries_its_own_checksum() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    for i in 0..300 {
        put(&client, &format!("k{i}"), &"v".repeat(1000)).await.unwrap();
    }
    let mut stream = client.maintenance().snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    let (mut blob, mut remaining) = (Vec::new(), 1);
    while let Some(piece) = stream.message().await.unwrap() {
        blob.extend_from_slice(&piece.blob);
        remaining = piece.remaining_bytes;
    }
    assert_eq!((remaining, blob.len() % 512), (0, 32));
    let (data, hash) = blob.split_at(blob.len() - 32);
    assert_eq!(sha2::Sha256::digest(data)[..], *hash);
    assert!(data.len() > 300_000);
    let hash = |revision| {
        let client = client.clone();
        async move {
            let r = client.maintenance().hash_kv(HashKvRequest { revision }).await;
            r.unwrap().into_inner().hash
        }
    };
    let before = hash(200).await;
    put(&client, "k1", "changed").await.unwrap();
    assert_eq!(hash(200).await, before, "the past has one hash");
    assert_ne!(hash(0).await, before);
    tokio::time::timeout(Duration::from_secs(5), hash(0)).await.unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    let endpoint = cluster.endpoint(0);
    let address = endpoint.strip_prefix("https://").unwrap();
    let ip = address.split(':').next().unwrap();
    let config = etcd_api::tls::client_config(&cluster.pki.client()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let shown = async || {
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = tokio_rustls::rustls::pki_types::ServerName::try_from(ip.to_owned()).unwrap();
        let tls = connector.connect(name, tcp).await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;
    // A half-written pair is not taken.
    let certificate = std::fs::read(cluster.pki.path("server", "crt")).unwrap();
    cluster.pki.issue("server", ip);
    let renewed = std::fs::read(cluster.pki.path("server", "crt")).unwrap();
    std::fs::write(cluster.pki.path("server", "crt"), certificate).unwrap();
    assert!(shown().await == first);
    std::fs::write(cluster.pki.path("server", "crt"), renewed).unwrap();
    assert!(shown().await != first);
    put(&client, "k", "v").await.unwrap();
}
