//! A real etcd and a real kube-apiserver on loopback, and a small HTTPS client.
//!
//! `MARINA_TEST_ETCD` names the etcd binary; by default ours if it was built, else Debian's.
#![allow(dead_code, clippy::unwrap_used)]

pub mod extension;
pub mod webhook;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

pub const DEADLINE: Duration = Duration::from_secs(20);

/// Kills a process when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Authority {
    pub cert: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

pub struct Leaf {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        let cert = params.self_signed(&key).unwrap();
        Self { cert, issuer: Issuer::new(params, key) }
    }

    pub fn leaf(&self, name: &str, group: &str, server: bool) -> Leaf {
        let mut params =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![match server {
            true => ExtendedKeyUsagePurpose::ServerAuth,
            false => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        self.sign(params)
    }

    pub fn sign(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { cert_pem: cert.pem(), key_pem: key.serialize_pem() }
    }
}

pub struct Etcd {
    pub process: Option<Process>,
    pub port: u16,
    dir: PathBuf,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn etcd_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("MARINA_TEST_ETCD") {
        return path.into();
    }
    let ours = Path::new(env!("CARGO_BIN_EXE_kube-apiserver")).with_file_name("etcd");
    if ours.exists() { ours } else { "/usr/bin/etcd".into() }
}

impl Etcd {
    fn start(dir: &Path) -> Self {
        let mut etcd = Self { process: None, port: free_port(), dir: dir.join("etcd") };
        etcd.run();
        etcd
    }

    pub fn run(&mut self) {
        let client = format!("http://127.0.0.1:{}", self.port);
        let peer = format!("http://127.0.0.1:{}", free_port());
        let child = Command::new(etcd_binary())
            .args(["--name", "m0", "--data-dir"])
            .arg(&self.dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m0={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        self.process = Some(Process(child));
    }

    pub fn kill(&mut self) {
        self.process = None;
    }
}

pub struct Server {
    pub process: Process,
    pub port: u16,
}

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub etcd: Etcd,
    pub servers: Vec<Server>,
    pub authority: Authority,
    /// Flags of the servers beside the usual ones.
    flags: Vec<String>,
}

impl Cluster {
    /// Starts etcd and one API server that is ready.
    pub async fn start() -> Self {
        Self::start_with(Authority::new(), Vec::new()).await
    }

    /// As [`start`](Self::start), with flags beside the usual ones.
    pub async fn start_with(authority: Authority, flags: Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("ca.crt", &authority.cert.pem());
        let serving = authority.leaf("kube-apiserver", "", true);
        write("tls.crt", &serving.cert_pem);
        write("tls.key", &serving.key_pem);
        let sa = KeyPair::generate().unwrap();
        write("sa.key", &sa.serialize_pem());
        write("sa.pub", &sa.public_key_pem());
        write("tokens.csv", "ops-token,olga,7,\"system:masters,ops\"\n");
        let etcd = Etcd::start(dir.path());
        let mut cluster = Self { dir, etcd, servers: Vec::new(), authority, flags };
        cluster.add_server().await;
        cluster
    }

    /// Starts another replica and waits until it is ready.
    pub async fn add_server(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_kube-apiserver"))
            .args(["--bind-address", "127.0.0.1", "--secure-port", "0"])
            .args(["--advertise-address", "192.0.2.1"])
            .args(["--etcd-servers", &format!("http://127.0.0.1:{}", self.etcd.port)])
            .arg("--client-ca-file")
            .arg(path("ca.crt"))
            .arg("--token-auth-file")
            .arg(path("tokens.csv"))
            .arg("--tls-cert-file")
            .arg(path("tls.crt"))
            .arg("--tls-private-key-file")
            .arg(path("tls.key"))
            .arg("--service-account-key-file")
            .arg(path("sa.pub"))
            .arg("--service-account-signing-key-file")
            .arg(path("sa.key"))
            .args(["--service-account-issuer", "https://kubernetes.default.svc.cluster.local"])
            .args(["--service-cluster-ip-range", "10.96.0.0/24"])
            .args(["--service-node-port-range", "30000-30015"])
            .args(["--authorization-mode", "Node,RBAC"])
            .args(["--enable-admission-plugins", "NodeRestriction"])
            .args(["--enable-bootstrap-token-auth", "--allow-privileged"])
            .args(&self.flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let process = Process(child);
        let (send, port) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut send = Some(send);
            for line in log.lines().map_while(Result::ok) {
                if std::env::var_os("SHOW_LOG").is_some() {
                    eprintln!("{line}");
                }
                let port = line
                    .split_once("serving address=")
                    .and_then(|(_, a)| a.rsplit(':').next()?.trim().parse::<u16>().ok());
                if let (Some(port), Some(send)) = (port, send.take_if(|_| port.is_some())) {
                    let _ = send.send(port);
                }
            }
        });
        let port =
            tokio::time::timeout(DEADLINE, port).await.expect("serves in time").expect("serves");
        self.servers.push(Server { process, port });
        let client = self.client_of(self.servers.len() - 1, "admin", "system:masters");
        wait("the server is ready", async || client.get("/readyz").await.code == 200).await;
    }

    /// A client of the first server.
    pub fn client(&self, name: &str, group: &str) -> Client {
        self.client_of(0, name, group)
    }

    /// Starts one in which objects can be made: the server makes the default namespace soon after
    /// its start.
    pub async fn with_default_namespace() -> (Self, Client) {
        let cluster = Self::start().await;
        let client = cluster.default_namespace().await;
        (cluster, client)
    }

    /// An administrator, as soon as the default namespace is there.
    pub async fn default_namespace(&self) -> Client {
        let client = self.admin();
        wait("the default namespace is there", async || {
            client.get("/api/v1/namespaces/default").await.code == 200
        })
        .await;
        client
    }

    pub fn admin(&self) -> Client {
        self.client("admin", "system:masters")
    }

    pub fn client_of(&self, server: usize, name: &str, group: &str) -> Client {
        let leaf = (!name.is_empty()).then(|| self.authority.leaf(name, group, false));
        Client::new(self.servers[server].port, self.authority.cert.der(), leaf.as_ref())
    }
}

/// Waits on a level, with a deadline.
pub async fn wait(what: &str, mut level: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !level().await {
        assert!(start.elapsed() < DEADLINE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[derive(Clone)]
pub struct Client {
    port: u16,
    tls: tokio_rustls::TlsConnector,
    pub token: Option<String>,
}

pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Asserts the code and returns the body.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

impl Client {
    pub fn new(port: u16, ca: &CertificateDer<'_>, leaf: Option<&Leaf>) -> Self {
        use rustls_pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.clone().into_owned()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let cert = CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        Self { port, tls: Arc::new(config).into(), token: None }
    }

    /// Sends a request; the body streams.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = self.tls.connect(name, tcp).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let headers = request.headers_mut();
        headers.insert("host", "localhost".parse().unwrap());
        if let Some(token) = &self.token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        sender.send_request(request).await.unwrap()
    }

    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request.body(Full::new(body.into())).unwrap()).await;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(DEADLINE, body.collect()).await.expect("an answer in time");
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: body.unwrap().to_bytes(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.request("PUT", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        let kind = [("content-type", "application/merge-patch+json")];
        self.request("PATCH", path, &kind, body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], "").await
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        let request = Request::get(path).body(Full::default()).unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status().as_u16(), 200);
        Watch { body: response.into_body(), buffer: Vec::new() }
    }
}

pub struct Watch {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame =
                tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("an event in time");
            self.buffer.extend_from_slice(frame?.ok()?.data_ref()?);
        }
    }

    /// The next event as `TYPE name`.
    pub async fn line(&mut self) -> String {
        let event = self.next().await.expect("the watch goes on");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        format!("{} {}", text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

pub fn config_map(name: &str, value: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"v": value}}, "data": {"v": value},
    })
}
