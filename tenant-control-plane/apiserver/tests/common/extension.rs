//! An extension API server in a network that is reached through an egress proxy only.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Where the test says that the server is.
pub const ADDRESS: &str = "198.51.100.7";
pub const GROUP: &str = "example.org";

/// A cluster whose API server reaches everything in the cluster's network through a proxy, behind
/// which there is one extension API server.
pub struct Extension {
    pub cluster: Cluster,
    files: tempfile::TempDir,
    ca_bundle: String,
    /// `host:port` of each connection.
    dialed: Arc<Mutex<Vec<String>>>,
}

impl Extension {
    pub async fn start() -> Self {
        let authority = Authority::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let egress = json!({
            "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
            "egressSelections": [{"name": "cluster", "connection": {"proxyProtocol": "HTTPConnect",
                "transport": {"tcp": {"url": format!("http://{}", listener.local_addr().unwrap())}}}}],
        });
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let proxy = authority.leaf("front-proxy", "", false);
        let flags = [
            ("egress-selector-config-file", write("egress.yaml", &egress.to_string())),
            ("proxy-client-cert-file", write("proxy.crt", &proxy.cert_pem)),
            ("proxy-client-key-file", write("proxy.key", &proxy.key_pem)),
        ];
        let flags = flags.map(|(name, value)| format!("--{name}={value}")).to_vec();
        let tls = tls(&authority);
        let ca_bundle = STANDARD.encode(authority.cert.pem());
        let cluster = Cluster::start_with(authority, flags).await;
        let dialed: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = dialed.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(stream, tls.clone(), seen.clone()));
            }
        });
        Self { cluster, files, ca_bundle, dialed }
    }

    /// The Service and its endpoints.
    pub async fn publish(&self, c: &Client) {
        let services = "/api/v1/namespaces/default/services";
        let service =
            json!({"metadata": {"name": "ext"}, "spec": {"ports": [{"name": "api", "port": 443}]}});
        c.post(services, &service).await.expect(201);
        let slice = json!({
            "metadata": {"name": "ext-1", "labels": {"kubernetes.io/service-name": "ext"}},
            "addressType": "IPv4", "ports": [{"name": "api", "port": 8443}],
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": true}}],
        });
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        c.post(slices, &slice).await.expect(201);
    }

    /// The APIService of the server.
    pub fn api_service(&self) -> Value {
        json!({
            "metadata": {"name": format!("v1.{GROUP}")},
            "spec": {
                "group": GROUP, "version": "v1", "groupPriorityMinimum": 2000,
                "versionPriority": 10, "caBundle": self.ca_bundle,
                "service": {"namespace": "default", "name": "ext"},
            },
        })
    }

    pub fn dialed(&self) -> Vec<String> {
        self.dialed.lock().unwrap().clone()
    }
}

/// TLS of the server: it wants a client certificate.
fn tls(authority: &Authority) -> tokio_rustls::TlsAcceptor {
    let params = CertificateParams::new(vec!["ext.default.svc".into()]).unwrap();
    let leaf = authority.sign(params);
    let cert = CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![cert], key)
        .unwrap();
    Arc::new(config).into()
}

/// A CONNECT proxy that leads to the server whatever it is asked for.
async fn tunnel(
    mut stream: tokio::net::TcpStream,
    tls: tokio_rustls::TlsAcceptor,
    dialed: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    dialed.lock().unwrap().push(head.split(' ').nth(1).unwrap().to_owned());
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let Ok(stream) = tls.accept(stream).await else { return };
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let api = format!("/apis/{GROUP}/v1");
    let all = |name: &str| -> Vec<&str> {
        parts.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect()
    };
    let answer = match parts.uri.path() {
        path if path == api => {
            json!({"kind": "APIResourceList", "groupVersion": format!("{GROUP}/v1"),
            "resources": [{"name": "things", "singularName": "thing", "kind": "Thing",
                "namespaced": true, "verbs": ["create", "get", "list"]}]})
        }
        "/openapi/v3" => json!({"paths": {format!("apis/{GROUP}/v1"): {
            "serverRelativeURL": format!("/openapi/v3/apis/{GROUP}/v1?hash=A1")}}}),
        path if path == format!("/openapi/v3{api}") => json!({"openapi": "3.0.0"}),
        _ => json!({
            "method": parts.method.as_str(), "uri": parts.uri.to_string(),
            "user": all("x-remote-user"), "groups": all("x-remote-group"),
            "extra": all("x-remote-extra-why"), "authorization": all("authorization"),
            "body": String::from_utf8_lossy(&body),
        }),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}
