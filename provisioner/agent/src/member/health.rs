//! Asks a member whether it is ready.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use provisioner_api::pb;

use crate::http1::{self, Tls};

const TIMEOUT: Duration = Duration::from_secs(3);
const MAX_BODY: usize = 16 * 1024;

/// A member's health endpoint.
#[derive(Debug)]
pub struct Probe {
    port: u16,
    path: String,
    tls: Option<Tls>,
}

impl Probe {
    /// From the desired state; `None` when the member has no endpoint.
    pub fn new(health: Option<&pb::Health>) -> anyhow::Result<Option<Self>> {
        let Some(health) = health else { return Ok(None) };
        let client = (!health.cert_pem.is_empty())
            .then_some((health.cert_pem.as_str(), health.key_pem.as_str()));
        let tls = match health.scheme.as_str() {
            "http" => None,
            "https" => Some(Tls::unverified(client)?),
            other => bail!("health scheme {other:?} is neither http nor https"),
        };
        let port = u16::try_from(health.port).context("health port")?;
        Ok(Some(Self { port, path: health.path.clone(), tls }))
    }

    /// `Ok` when it is ready; otherwise what it said.
    pub async fn ask(&self) -> anyhow::Result<()> {
        tokio::time::timeout(TIMEOUT, self.get()).await.context("no answer")?
    }

    async fn get(&self) -> anyhow::Result<()> {
        let request = Request::get(&self.path)
            .header("host", "localhost")
            .header("user-agent", "marina-agent")
            .body(Full::new(Bytes::new()))?;
        let response = http1::send(self.port, self.tls.as_ref(), request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        if status.is_success() {
            return Ok(());
        }
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("[-]")).collect();
        let said = if failed.is_empty() { text.lines().next().unwrap_or("") } else { failed[0] };
        bail!("{status}: {}", said.chars().take(200).collect::<String>())
    }
}
