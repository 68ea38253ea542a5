//! The node's client certificate on disk: bootstrap, reuse after a restart, rotation.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::config::Kubeconfig;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use x509_parser::pem::Pem;

use super::request::{self, Identity};
use crate::config::Config;

/// How soon a request that failed is repeated.
const RETRY: Duration = Duration::from_secs(2);

/// Start and end of a certificate's validity.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Validity {
    /// Of the first certificate in a PEM text.
    fn read(pem: &[u8]) -> Option<Self> {
        let first = Pem::iter_from_buffer(pem).flatten().find(|p| p.label == "CERTIFICATE")?;
        let cert = first.parse_x509().ok()?;
        let time = |t: x509_parser::time::ASN1Time| Timestamp::from_second(t.timestamp()).ok();
        Some(Self {
            not_before: time(cert.validity().not_before)?,
            not_after: time(cert.validity().not_after)?,
        })
    }

    /// When to ask for the next one: between 70 % and 90 % of its life, spread by `share`
    /// (0.0–1.0) so that nodes do not all come at once.
    fn rotate_at(&self, share: f64) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before).as_secs() as f64;
        self.not_before + SignedDuration::from_secs((life * (0.7 + 0.2 * share)).round() as i64)
    }
}

fn current(config: &Config) -> PathBuf {
    config.cert_dir.join("kubelet-client-current.pem")
}

fn validity(config: &Config) -> Option<Validity> {
    Validity::read(&fs::read(current(config)).ok()?)
}

/// Writes the identity beside the old one and moves the link over.
fn store(config: &Config, identity: &Identity) -> anyhow::Result<()> {
    fs::create_dir_all(&config.cert_dir)
        .with_context(|| format!("making {}", config.cert_dir.display()))?;
    let stamp = jiff::Zoned::now().strftime("%Y-%m-%d-%H-%M-%S").to_string();
    let file = format!("kubelet-client-{stamp}.pem");
    write_private(&config.cert_dir.join(&file), &format!("{}{}", identity.chain, identity.key))?;
    let link = current(config);
    let next = config.cert_dir.join("kubelet-client-next.pem");
    let _ = fs::remove_file(&next);
    symlink(&file, &next).with_context(|| format!("linking {}", next.display()))?;
    fs::rename(&next, &link).with_context(|| format!("linking {}", link.display()))
}

/// Writes a file that only its owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Writes the node's kubeconfig: the cluster of the bootstrap one, the certificate by path.
fn write_kubeconfig(config: &Config, bootstrap: &Path) -> anyhow::Result<()> {
    let given = Kubeconfig::read_from(bootstrap)
        .with_context(|| format!("reading {}", bootstrap.display()))?;
    let cluster =
        given.clusters.into_iter().next().context("the bootstrap kubeconfig names no cluster")?;
    let link = current(config);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "default",
        "clusters": [{"name": "default", "cluster": cluster.cluster}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        "users": [{"name": "default", "user": {"client-certificate": link, "client-key": link}}],
    });
    let text = serde_yaml_ng::to_string(&kubeconfig).context("encoding the kubeconfig")?;
    if let Some(dir) = config.kubeconfig.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let next = config.kubeconfig.with_extension("next");
    write_private(&next, &text)?;
    fs::rename(&next, &config.kubeconfig)
        .with_context(|| format!("writing {}", config.kubeconfig.display()))
}

/// Makes sure that there is a kubeconfig that works: the one at hand, or one made with the
/// bootstrap token, however long that takes.
///
/// # Errors
/// When there is neither a usable kubeconfig nor a bootstrap one.
pub async fn ensure(config: &Config) -> anyhow::Result<()> {
    if config.kubeconfig.exists() {
        let expired = validity(config).is_some_and(|v| v.not_after <= Timestamp::now());
        if !expired || config.bootstrap_kubeconfig.is_none() {
            return Ok(());
        }
        tracing::warn!(
            "the node's client certificate has expired: starting over with the bootstrap token"
        );
    }
    let bootstrap = config.bootstrap_kubeconfig.as_deref().with_context(|| {
        format!(
            "{} does not exist and --bootstrap-kubeconfig is not given",
            config.kubeconfig.display()
        )
    })?;
    loop {
        match bootstrap_once(config, bootstrap).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::warn!("bootstrap: {error:#}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn bootstrap_once(config: &Config, bootstrap: &Path) -> anyhow::Result<()> {
    let client = component::client::from_kubeconfig(bootstrap, "kubelet").await?;
    let identity = request::obtain(client, &config.node_name).await?;
    store(config, &identity)?;
    write_kubeconfig(config, bootstrap)?;
    tracing::info!(path = %config.kubeconfig.display(), "the node has a client certificate");
    Ok(())
}

/// Replaces the client certificate before it expires, until `stop`. The API client notices the
/// new file by itself.
pub async fn rotate(config: Config, client: Client, stop: CancellationToken) {
    let share = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
    loop {
        let Some(validity) = validity(&config) else {
            // The kubeconfig brings its own credentials: nothing to rotate.
            return;
        };
        let wait = validity.rotate_at(share).duration_since(Timestamp::now());
        let wait = Duration::try_from(wait).unwrap_or_default();
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(wait) => {} }
        let outcome = request::obtain(client.clone(), &config.node_name).await;
        match outcome.and_then(|identity| store(&config, &identity)) {
            Ok(()) => tracing::info!("the node's client certificate was renewed"),
            Err(error) => {
                tracing::warn!("renewing the client certificate: {error:#}");
                tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(RETRY * 15) => {} }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_comes_before_the_end() {
        let start = Timestamp::from_second(0).unwrap();
        let validity =
            Validity { not_before: start, not_after: Timestamp::from_second(1000).unwrap() };
        assert_eq!(validity.rotate_at(0.0).as_second(), 700);
        assert_eq!(validity.rotate_at(1.0).as_second(), 900);
    }

    #[test]
    fn a_combined_file_is_read() {
        let made = rcgen::generate_simple_self_signed(vec!["x".into()]).unwrap();
        let text = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem());
        assert!(Validity::read(text.as_bytes()).unwrap().not_after > Timestamp::now());
        assert!(Validity::read(b"nothing").is_none());
    }
}
