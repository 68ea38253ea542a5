//! Client certificates: common name → user, organizations → groups.
//!
//! The TLS layer has verified that the peer holds the leaf's key, and nothing else: chain, validity
//! period and usage are verified here, before anything in the certificate is believed. Source:
//! Kubernetes documentation, "Authenticating: X509 client certificates".

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use machinery::UserInfo;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How many verified chains are remembered. One entry is a hash and a user.
const REMEMBERED: usize = 4096;

/// A certificate authority whose certificates are trusted for TLS clients.
pub(super) struct ClientAuthority(Arc<dyn ClientCertVerifier>);

impl ClientAuthority {
    pub(super) fn new(pem: &[u8]) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.context("not a PEM certificate")?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .context("no certificate authority")?;
        Ok(Self(verifier))
    }

    /// Checks signature chain, validity period and the client-authentication usage.
    pub(super) fn verify(&self, chain: &[CertificateDer<'_>]) -> anyhow::Result<()> {
        let (leaf, intermediates) = chain.split_first().context("no certificate")?;
        let intermediates: Vec<_> = intermediates.iter().map(|c| c.clone().into_owned()).collect();
        self.0.verify_client_cert(leaf, &intermediates, UnixTime::now())?;
        Ok(())
    }
}

/// A user, and when his certificate ends (Unix seconds).
type Verified = (Arc<UserInfo>, i64);

/// Users named by certificates of the cluster's client authority.
pub(super) struct ClientCertificates {
    authority: ClientAuthority,
    /// By SHA-256 of the leaf. Verifying costs two signature checks; a client sends the same
    /// certificate with every request.
    verified: Mutex<HashMap<[u8; 32], Verified>>,
}

impl ClientCertificates {
    pub(super) fn new(pem: &[u8]) -> anyhow::Result<Self> {
        let authority = ClientAuthority::new(pem).context("client CA file")?;
        Ok(Self { authority, verified: Mutex::new(HashMap::new()) })
    }

    pub(super) fn user(&self, chain: &[CertificateDer<'_>]) -> anyhow::Result<UserInfo> {
        let leaf = chain.first().context("no certificate")?;
        let key: [u8; 32] = Sha256::digest(leaf).into();
        let now = jiff::Timestamp::now().as_second();
        let remembered =
            self.verified.lock().expect("no holder of this lock panics").get(&key).cloned();
        if let Some((user, not_after)) = remembered
            && now <= not_after
        {
            return Ok((*user).clone());
        }
        self.authority.verify(chain)?;
        let (user, not_after) = subject(leaf)?;
        let mut verified = self.verified.lock().expect("no holder of this lock panics");
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(key, (Arc::new(user.clone()), not_after));
        Ok(user)
    }
}

/// The user that a certificate's subject names, and when the certificate ends.
pub(super) fn subject(leaf: &CertificateDer<'_>) -> anyhow::Result<(UserInfo, i64)> {
    let (_, certificate) = X509Certificate::from_der(leaf).context("not an X.509 certificate")?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .last()
        .and_then(|cn| cn.as_str().ok())
        .filter(|cn| !cn.is_empty());
    let Some(name) = name else { bail!("the subject has no common name") };
    let groups =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    let fingerprint: String =
        Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect();
    let extra = [(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("X509SHA256={fingerprint}")],
    )];
    let user =
        UserInfo { name: name.to_owned(), groups, extra: extra.into(), ..Default::default() };
    Ok((user, certificate.validity().not_after.timestamp()))
}
