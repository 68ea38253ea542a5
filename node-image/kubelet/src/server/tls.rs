//! TLS of the kubelet's server: client certificates are asked for, and optional, since callers
//! may have a token instead.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::certs::serving::Pair;

/// The server's TLS settings.
///
/// # Errors
/// When a certificate cannot be read or used.
pub fn config((chain, key): Pair, client_ca: Option<&Path>) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let certs = CertificateDer::pem_file_iter(path)
                .map_err(|e| anyhow::anyhow!("reading clientCAFile {}: {e}", path.display()))?;
            for cert in certs {
                let cert = cert
                    .map_err(|e| anyhow::anyhow!("reading clientCAFile {}: {e}", path.display()))?;
                roots
                    .add(cert)
                    .with_context(|| format!("using clientCAFile {}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_single_cert(chain, key).context("using the serving certificate")?;
    // Streams need connections that can be upgraded: HTTP/1.1 only.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
