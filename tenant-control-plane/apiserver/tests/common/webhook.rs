//! A webhook with TLS on loopback.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

use super::*;

/// What a webhook does with a request (`AdmissionRequest`, or the whole `ConversionReview`).
pub enum Reply {
    /// This `response`; its uid is filled in.
    Answer(Value),
    /// HTTP 500.
    Fail,
    /// Nothing, ever.
    Hang,
}

pub fn allow() -> Reply {
    Reply::Answer(json!({"allowed": true}))
}

pub fn deny(message: &str) -> Reply {
    Reply::Answer(json!({"allowed": false, "status": {"message": message}}))
}

pub fn patch(operations: Value) -> Reply {
    let patch = STANDARD.encode(operations.to_string());
    Reply::Answer(json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

/// A running webhook. It ends with the test's runtime.
pub struct Hook {
    pub port: u16,
    ca_bundle: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Cluster {
    /// Starts a webhook; `decide` gets the path and the request.
    pub async fn hook(
        &self,
        decide: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
    ) -> Hook {
        let leaf = self.authority.leaf("webhook", "", true);
        let cert = CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook = Hook {
            port: listener.local_addr().unwrap().port(),
            ca_bundle: STANDARD.encode(self.authority.cert.pem()),
            seen: Arc::default(),
        };
        let (seen, decide) = (hook.seen.clone(), Arc::new(decide));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, seen, decide) = (tls.clone(), seen.clone(), decide.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service =
                        service_fn(|request| answer(request, seen.clone(), decide.clone()));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        hook
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    decide: Arc<impl Fn(&str, &Value) -> Reply + Send + Sync + 'static>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    let asked = review["request"].clone();
    seen.lock().unwrap().push((path.clone(), asked.clone()));
    let mut response = Response::new(Full::default());
    match decide(&path, &asked) {
        Reply::Hang => std::future::pending().await,
        Reply::Fail => *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR,
        Reply::Answer(mut given) => {
            given["uid"] = asked["uid"].clone();
            review["response"] = given;
            review.as_object_mut().unwrap().remove("request");
            *response.body_mut() = Full::new(Bytes::from(review.to_string()));
        }
    }
    Ok(response)
}

impl Hook {
    /// `clientConfig` for a path.
    pub fn client(&self, path: &str) -> Value {
        json!({
            "url": format!("https://localhost:{}{path}", self.port), "caBundle": self.ca_bundle,
        })
    }

    /// Requests that came to a path.
    pub fn seen(&self, path: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(p, _)| p == path).map(|(_, request)| request.clone()).collect()
    }
}

/// A webhook for a configuration: every operation on a resource of a group. `more` overrides.
pub fn entry(name: &str, client: Value, group: &str, resource: &str, more: Value) -> Value {
    let mut webhook = json!({
        "name": format!("{name}.example.com"),
        "clientConfig": client,
        "rules": [{
            "operations": ["*"], "apiGroups": [group], "apiVersions": ["*"],
            "resources": [resource],
        }],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    });
    for (key, value) in more.as_object().unwrap() {
        webhook[key] = value.clone();
    }
    webhook
}

/// Stores a configuration of `Mutating` or `Validating` webhooks.
pub async fn configure(c: &Client, kind: &str, name: &str, webhooks: Vec<Value>) {
    let plural = format!("{}webhookconfigurations", kind.to_lowercase());
    let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    let body = json!({"metadata": {"name": name}, "webhooks": webhooks});
    c.post(&path, &body).await.expect(201);
}
