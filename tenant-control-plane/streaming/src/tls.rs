//! TLS towards kubelets and proxied backends.

use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// How the API server proves itself to kubelets, and how they prove themselves to it.
#[derive(Clone, Debug, Default)]
pub struct KubeletTls {
    /// `--kubelet-client-certificate`, PEM.
    pub client_certificate_pem: Vec<u8>,
    /// `--kubelet-client-key`, PEM.
    pub client_key_pem: Vec<u8>,
    /// `--kubelet-certificate-authority`, PEM. With `None` any serving certificate is accepted,
    /// as upstream does: kubelets start with self-signed ones.
    pub certificate_authority_pem: Option<Vec<u8>>,
}

/// The TLS configuration for connections to kubelets.
///
/// # Errors
/// When a PEM file holds nothing usable; the text names the option.
pub fn kubelet_config(files: &KubeletTls) -> anyhow::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("TLS versions")?;
    let builder = match &files.certificate_authority_pem {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.context("kubelet-certificate-authority")?)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider()))),
    };
    if files.client_certificate_pem.is_empty() {
        return Ok(Arc::new(builder.with_no_client_auth()));
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&files.client_certificate_pem)
        .collect::<Result<_, _>>()
        .context("kubelet-client-certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&files.client_key_pem).context("kubelet-client-key")?;
    let config = builder.with_client_auth_cert(chain, key).context("kubelet-client-certificate")?;
    Ok(Arc::new(config))
}

/// The TLS configuration for `https:` pod and service proxies: no client certificate, any serving
/// certificate.
pub fn anonymous_config() -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the ring provider supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        .with_no_client_auth();
    Arc::new(config)
}

/// Where systems keep the authorities that they trust; the first one that is there counts.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The TLS configuration for a server whose certificate one of these authorities (PEM) has signed;
/// without any, one that this machine trusts (`SSL_CERT_FILE`, or the system's bundle).
///
/// # Errors
/// When the PEM holds something that is not a certificate.
pub fn verifying_config(authorities: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let system = if authorities.is_empty() { system_bundle() } else { Vec::new() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        roots.add(certificate.context("caBundle")?).context("caBundle")?;
    }
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&system).flatten());
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn system_bundle() -> Vec<u8> {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let usual = SYSTEM_BUNDLES.iter().map(std::path::PathBuf::from);
    named.into_iter().chain(usual).find_map(|path| std::fs::read(path).ok()).unwrap_or_default()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Accepts every certificate; signatures are still checked, so the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
