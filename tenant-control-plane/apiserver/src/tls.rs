//! The serving side's TLS configuration.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// Certificates from a PEM bundle.
pub fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    found.with_context(|| format!("certificates in {}", path.display()))
}

/// Takes every client certificate whose key the peer holds. It names nobody yet: the authenticator
/// verifies chain, validity and usage, and answers 401, where a handshake could only break.
#[derive(Debug)]
struct AnyClient {
    /// Authorities whose certificates are worth sending.
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Serves with a certificate, and asks for (without requiring) client certificates of authorities.
/// What comes is **not verified**: see [`AnyClient`].
pub fn server(cert: &Path, key: &Path, client_cas: &[&Path]) -> anyhow::Result<ServerConfig> {
    let chain = certificates(cert)?;
    let pem = std::fs::read(key).with_context(|| format!("reading {}", key.display()))?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .with_context(|| format!("private key in {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("TLS versions")?;
    let mut roots = RootCertStore::empty();
    for path in client_cas {
        for certificate in certificates(path)? {
            roots.add(certificate).with_context(|| format!("authority in {}", path.display()))?;
        }
    }
    let builder = if roots.is_empty() {
        builder.with_no_client_auth()
    } else {
        let algorithms = provider.signature_verification_algorithms;
        let verifier = AnyClient { hints: roots.subjects(), algorithms };
        builder.with_client_cert_verifier(Arc::new(verifier))
    };
    let mut config = builder.with_single_cert(chain, key).context("serving certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::client::ResolvesClientCert;
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, SupportedProtocolVersion, version};
    use rustls_pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn self_signed() -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap(), key)
    }

    /// Sends a certificate and signs with whatever key it has.
    #[derive(Debug)]
    struct Sends(Arc<CertifiedKey>);

    impl ResolvesClientCert for Sends {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    /// What the server thinks of a handshake.
    async fn shake(
        server: &ServerConfig,
        version: &'static SupportedProtocolVersion,
        root: &rcgen::Certificate,
        (certificate, key): (&rcgen::Certificate, &KeyPair),
    ) -> std::io::Result<usize> {
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = provider.key_provider.load_private_key(der).unwrap();
        let sent = CertifiedKey::new(vec![certificate.der().clone()], key);
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(Sends(Arc::new(sent))));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(Arc::new(client)).connect(name, near);
        let accepting = TlsAcceptor::from(Arc::new(server.clone())).accept(far);
        let (_client, stream) = tokio::join!(connecting, accepting);
        Ok(stream?.get_ref().1.peer_certificates().map_or(0, <[_]>::len))
    }

    #[tokio::test]
    async fn whoever_does_not_hold_the_key_of_his_certificate_is_sent_away() {
        let dir = tempfile::tempdir().unwrap();
        let (serving, key) = self_signed();
        let paths = ["crt", "key"].map(|name| dir.path().join(name));
        std::fs::write(&paths[0], serving.pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        let server = server(&paths[0], &paths[1], &[&paths[0]]).unwrap();
        let (foreign, own) = self_signed();
        let (_, other) = self_signed();
        for version in [&version::TLS12, &version::TLS13] {
            let held = shake(&server, version, &serving, (&foreign, &own)).await;
            assert_eq!(held.unwrap(), 1, "its authority is the authenticator's question");
            assert!(shake(&server, version, &serving, (&foreign, &other)).await.is_err());
        }
    }
}
