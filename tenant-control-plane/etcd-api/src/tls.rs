//! rustls configurations, for both ends of an etcd connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain (leaf first) with its private key (PKCS#8, PKCS#1 or SEC1), from two PEM
/// files. When the files change, connections that are made from then on have the new certificate;
/// files that do not fit together are not taken.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Files>);

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    stamp: Stamp,
    certified: Arc<CertifiedKey>,
}

/// When the files were last written, and how long they were.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read, or are no certificate and its key.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        // The stamp comes first: what is written meanwhile is read again.
        let stamp = stamp(cert, key);
        let certified = load(cert, key)?;
        let loaded = Mutex::new(Loaded { stamp, certified });
        Ok(Self(Arc::new(Files { cert: cert.to_owned(), key: key.to_owned(), loaded })))
    }
}

impl Files {
    fn current(&self) -> Arc<CertifiedKey> {
        let stamp = stamp(&self.cert, &self.key);
        let mut loaded = self.loaded.lock().expect("no panic while held");
        if stamp != loaded.stamp
            && let Ok(certified) = load(&self.cert, &self.key)
        {
            *loaded = Loaded { stamp, certified };
        }
        Arc::clone(&loaded.certified)
    }
}

fn stamp(cert: &Path, key: &Path) -> Stamp {
    [cert, key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn load(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
    };
    let chain = certificates("certificate", &read(cert)?)?;
    let key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|source| TlsError::Pem { what: "private key", source })?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Files {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
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
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
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

/// A client that verifies the server's name and chain. ALPN is `h2`.
pub fn client_config(tls: &ClientTls) -> Result<ClientConfig, TlsError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(&tls.ca_pem)?, provider()).build()?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(verifier);
    let mut config = match &tls.identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::clone(&identity.0) as _),
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
    let mut config = builder.with_cert_resolver(Arc::clone(&identity.0) as _);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
