//! rustls configurations from PEM bytes, for both ends of an etcd connection.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain with its private key, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// Leaf first, then intermediates.
    pub cert_pem: Vec<u8>,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key_pem: Vec<u8>,
}

/// What a client presents and whom it believes.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// Certificate authorities of the servers, PEM bundle.
    pub ca_pem: Vec<u8>,
    /// Client certificate for mTLS.
    pub identity: Option<Identity>,
}

/// Why TLS material was refused.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM text does not parse or holds no item of the kind.
    #[error("{what}: {source}")]
    Pem {
        /// Which input.
        what: &'static str,
        /// The parser's reason.
        source: rustls_pki_types::pem::Error,
    },
    /// A bundle without a certificate.
    #[error("{0}: no certificate found")]
    Empty(&'static str),
    /// rustls refused the material.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    /// The set of trusted authorities cannot be used for verification.
    #[error("certificate authorities: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if certs.is_empty() {
        return Err(TlsError::Empty(what));
    }
    Ok(certs)
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for cert in certificates("CA bundle", pem)? {
        store.add(cert)?;
    }
    Ok(Arc::new(store))
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|source| TlsError::Pem { what: "private key", source })
}

/// A client that verifies the server's name and chain. ALPN is `h2`.
pub fn client_config(tls: &ClientTls) -> Result<ClientConfig, TlsError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(&tls.ca_pem)?, provider()).build()?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(verifier);
    let mut config = match &tls.identity {
        Some(id) => builder.with_client_auth_cert(
            certificates("client certificate", &id.cert_pem)?,
            key(&id.key_pem)?,
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A server; with `client_ca_pem` every client must present a certificate of that authority.
/// ALPN offers `h2` and `http/1.1`.
pub fn server_config(
    identity: &Identity,
    client_ca_pem: Option<&[u8]>,
) -> Result<ServerConfig, TlsError> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match client_ca_pem {
        Some(pem) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots(pem)?, provider()).build()?,
        ),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(
        certificates("server certificate", &identity.cert_pem)?,
        key(&identity.key_pem)?,
    )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
