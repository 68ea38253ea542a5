//! A client certificate that lives in files and may be rotated.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use kube::config::AuthInfo;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files' modification times are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Certificate and key files named by a kubeconfig.
#[derive(Debug)]
pub(super) struct FileIdentity {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
    generation: AtomicU64,
    checked: Mutex<(Instant, Option<SystemTime>)>,
}

impl FileIdentity {
    /// The identity, if the kubeconfig names it by path.
    pub(super) fn from_auth(auth: &AuthInfo) -> anyhow::Result<Option<Arc<Self>>> {
        let (Some(cert), Some(key)) = (&auth.client_certificate, &auth.client_key) else {
            return Ok(None);
        };
        let (cert, key) = (PathBuf::from(cert), PathBuf::from(key));
        let current = load(&cert, &key)?;
        let checked = Mutex::new((Instant::now(), modified(&cert)));
        let generation = AtomicU64::new(0);
        let current = RwLock::new(Arc::new(current));
        Ok(Some(Arc::new(Self { cert, key, current, generation, checked })))
    }

    /// Reads the files again if they changed, and returns a number that grows when they did. A pair
    /// that cannot be used (half-written, say) is left for the next look.
    pub(super) fn refresh(&self) -> u64 {
        let mut checked = self.checked.lock().expect("no code panics while it holds this lock");
        if checked.0.elapsed() >= CHECK_INTERVAL {
            checked.0 = Instant::now();
            let now = modified(&self.cert);
            if now != checked.1 {
                match load(&self.cert, &self.key) {
                    Ok(fresh) => {
                        checked.1 = now;
                        *self.current.write().expect("no code panics while it holds this lock") =
                            Arc::new(fresh);
                        self.generation.fetch_add(1, Ordering::Relaxed);
                        tracing::info!(path = %self.cert.display(), "the client certificate was rotated");
                    }
                    Err(error) => tracing::warn!("keeping the old client certificate: {error:#}"),
                }
            }
        }
        self.generation.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for FileIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().expect("no code panics while it holds this lock").clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn load(cert: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("reading the client certificate {}", cert.display()))?;
    let key_der = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("reading the client key {}", key.display()))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key_der)
        .with_context(|| format!("using the client key {}", key.display()))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().context("the client key does not belong to the certificate")?;
    Ok(certified)
}
