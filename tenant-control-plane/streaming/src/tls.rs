//! TLS towards kubelets and proxied backends.

use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

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

/// How the API server proves itself to extension API servers.
#[derive(Debug)]
pub struct ProxyClient {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ProxyClient {
    /// From `--proxy-client-cert-file` and `--proxy-client-key-file`, both PEM.
    ///
    /// # Errors
    /// When a file holds nothing usable, or the key is not the certificate's; the text names the
    /// option.
    pub fn new(certificate_pem: &[u8], key_pem: &[u8]) -> anyhow::Result<Self> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem)
            .collect::<Result<_, _>>()
            .context("proxy-client-cert-file")?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).context("proxy-client-key-file")?;
        let client = Self { chain, key };
        extension_config(Some(&client), &[], true)?;
        Ok(client)
    }
}

type Verified = ConfigBuilder<ClientConfig, WantsClientCert>;

/// A configuration for a server whose certificate one of these authorities (PEM) has signed, or is
/// among them itself; without any, one that this machine trusts (`SSL_CERT_FILE`, or the system's
/// bundle).
fn verifying(authorities: &[u8]) -> anyhow::Result<Verified> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("TLS versions")?;
    let mut roots = RootCertStore::empty();
    if authorities.is_empty() {
        let system = system_bundle();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&system).flatten());
        return Ok(builder.with_root_certificates(roots));
    }
    let verifier = Arc::new(BundleVerifier::new(authorities)?);
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

/// The TLS configuration for a webhook, whose certificate must be one of these authorities' (PEM;
/// none: those that this machine trusts).
///
/// # Errors
/// When there is a PEM and no certificate in it.
pub fn verifying_config(authorities: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    Ok(Arc::new(verifying(authorities)?.with_no_client_auth()))
}

/// The TLS configuration for an extension API server: `authorities` as for a webhook, or `any`
/// serving certificate.
///
/// # Errors
/// When there is a PEM and no certificate in it, or the client's key is not its certificate's.
pub fn extension_config(
    client: Option<&ProxyClient>,
    authorities: &[u8],
    any: bool,
) -> anyhow::Result<Arc<ClientConfig>> {
    let builder = match any {
        true => ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider()))),
        false => verifying(authorities)?,
    };
    Ok(Arc::new(match client {
        Some(client) => builder
            .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
            .context("proxy-client-cert-file and proxy-client-key-file")?,
        None => builder.with_no_client_auth(),
    }))
}

/// Accepts what a bundle's certificates have signed, and these themselves: a server's self-signed
/// certificate may say that it is an authority, and is none in the eyes of webpki then.
#[derive(Debug)]
struct BundleVerifier {
    bundle: Vec<CertificateDer<'static>>,
    signed: Arc<WebPkiServerVerifier>,
}

impl BundleVerifier {
    fn new(pem: &[u8]) -> anyhow::Result<Self> {
        let bundle: Vec<_> = CertificateDer::pem_slice_iter(pem).flatten().collect();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(bundle.iter().cloned());
        let signed = WebPkiServerVerifier::builder_with_provider(roots.into(), provider())
            .build()
            .context("caBundle")?;
        Ok(Self { bundle, signed })
    }
}

/// Whether a certificate that is trusted as it is may serve under a name at a time.
fn may_serve(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    let fault = if now < validity.not_before.timestamp() {
        Some(CertificateError::NotValidYet)
    } else if now > validity.not_after.timestamp() {
        Some(CertificateError::Expired)
    } else {
        let usage = parsed.extended_key_usage().ok().flatten();
        let serves = usage.is_none_or(|usage| usage.value.server_auth || usage.value.any);
        (!serves).then_some(CertificateError::InvalidPurpose)
    };
    match fault {
        Some(fault) => Err(rustls::Error::InvalidCertificate(fault)),
        None => verify_server_name(&ParsedCertificate::try_from(certificate)?, name),
    }
}

impl ServerCertVerifier for BundleVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.bundle.iter().any(|trusted| trusted == end_entity) {
            may_serve(end_entity, server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        let signed = &self.signed;
        signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

fn system_bundle() -> Vec<u8> {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let usual = SYSTEM_BUNDLES.iter().map(std::path::PathBuf::from);
    named.into_iter().chain(usual).find_map(|path| std::fs::read(path).ok()).unwrap_or_default()
}

/// A failed handshake in the words that people look for.
pub(crate) fn tls_text(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(fault)) = inner else {
        return format!("tls: {error}");
    };
    let why = match fault {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "certificate is not valid for this name".to_owned()
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {why}")
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
    };

    use super::*;

    /// A self-signed certificate that says that it is an authority, for the year 2030.
    fn authority(name: &str, usage: &[ExtendedKeyUsagePurpose]) -> rcgen::Certificate {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = usage.to_vec();
        params.not_before = date_time_ymd(2030, 1, 1);
        params.not_after = date_time_ymd(2031, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    fn year(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600 + 2_000_000))
    }

    fn verify(
        bundle: &BundleVerifier,
        served: &rcgen::Certificate,
        name: &str,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        bundle.verify_server_cert(served.der(), &[], &name, &[], now).map(|_| ())
    }

    #[test]
    fn a_certificate_in_the_bundle_may_serve_itself() {
        let served = authority("hook.ns.svc", &[]);
        let other = authority("hook.ns.svc", &[ExtendedKeyUsagePurpose::ClientAuth]);
        let pem = format!("{}{}", served.pem(), other.pem());
        let bundle = BundleVerifier::new(pem.as_bytes()).unwrap();
        let refused = |served: &rcgen::Certificate, name: &str, now: u64| {
            verify(&bundle, served, name, year(now)).unwrap_err()
        };
        verify(&bundle, &served, "hook.ns.svc", year(2030)).unwrap();
        let invalid = rustls::Error::InvalidCertificate;
        assert_eq!(refused(&served, "hook.ns.svc", 2029), invalid(CertificateError::NotValidYet));
        assert_eq!(refused(&served, "hook.ns.svc", 2032), invalid(CertificateError::Expired));
        assert_eq!(refused(&other, "hook.ns.svc", 2030), invalid(CertificateError::InvalidPurpose));
        refused(&served, "other.ns.svc", 2030);
        refused(&authority("hook.ns.svc", &[]), "hook.ns.svc", 2030);
    }

    #[test]
    fn a_bundle_needs_one_certificate_and_may_hold_more() {
        let good = authority("hook.ns.svc", &[]).pem();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        verifying_config(format!("{broken}{good}").as_bytes()).unwrap();
        assert!(verifying_config(broken.as_bytes()).is_err());
        assert!(verifying_config(b"no PEM").is_err());
        verifying_config(b"").unwrap();
    }
}
