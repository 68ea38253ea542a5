//! A client of one tenant's API servers on this host's loopback: JSON over HTTP/1.1.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use provisioner_api::pb;
use serde_json::Value;

use crate::http1::{self, Tls};

/// Largest answer that is read.
const MAX_BODY: usize = 64 * 1024 * 1024;
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// The client. Its user is an administrator of the tenant.
#[derive(Debug)]
pub struct TenantClient {
    tls: Tls,
    ports: Vec<u16>,
    first: AtomicUsize,
}

/// An answer that is not an error of the connection.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The object, or the `Status`.
    pub body: Value,
}

impl Answer {
    /// The object, or the error that the API server gave.
    pub fn ok(self) -> anyhow::Result<Value> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let message = self.body["message"].as_str().unwrap_or("no message");
        bail!("the API server answered {}: {message}", self.status.as_u16())
    }
}

impl TenantClient {
    /// From the desired state.
    pub fn new(bootstrap: &pb::Bootstrap) -> anyhow::Result<Self> {
        let tls = Tls::verified(
            &bootstrap.ca_pem,
            "kubernetes",
            &bootstrap.admin_cert_pem,
            &bootstrap.admin_key_pem,
        )?;
        let ports = bootstrap
            .api_ports
            .iter()
            .map(|port| u16::try_from(*port).context("API server's port"))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { tls, ports, first: AtomicUsize::new(0) })
    }

    /// Sends a request and reads the whole answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        tokio::time::timeout(TIMEOUT, self.call_inner(method, path, body))
            .await
            .with_context(|| format!("{path}: no answer"))?
            .with_context(|| path.to_owned())
    }

    async fn call_inner(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?
            .to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status, body })
    }

    /// Sends a request to the first API server that accepts; its body may go on for long.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Response<Incoming>> {
        let bytes = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body)?),
            None => Bytes::new(),
        };
        let first = self.first.load(Ordering::Relaxed);
        let mut last = anyhow::anyhow!("there is no API server on this host");
        for step in 0..self.ports.len() {
            let at = (first + step) % self.ports.len();
            let request = Request::builder()
                .method(method.clone())
                .uri(path)
                .header("host", "kubernetes")
                .header("user-agent", "marina-agent")
                .header("accept", "application/json")
                .header("content-type", "application/json")
                .body(Full::new(bytes.clone()))?;
            match http1::send(self.ports[at], Some(&self.tls), request).await {
                Ok(response) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
