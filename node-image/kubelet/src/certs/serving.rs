//! The certificate of the kubelet's server: given by files, or self-signed and kept.

use std::fs;
use std::net::IpAddr;

use anyhow::Context as _;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::client::write_private;
use crate::config::Config;

/// A certificate chain with its key.
pub type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads the serving certificate, making a self-signed one for the node's name and address when
/// none is configured.
///
/// # Errors
/// When a file cannot be read, used or written.
pub fn load(config: &Config, ip: IpAddr) -> anyhow::Result<Pair> {
    let (cert, key) = match &config.serving_cert {
        Some((cert, key)) => (cert.clone(), key.clone()),
        None => {
            let paths = (config.cert_dir.join("kubelet.crt"), config.cert_dir.join("kubelet.key"));
            fs::create_dir_all(&config.cert_dir)
                .with_context(|| format!("making {}", config.cert_dir.display()))?;
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
            let mut params = CertificateParams::new(vec![config.node_name.clone(), ip.to_string()])
                .context("naming the serving certificate")?;
            let mut name = DistinguishedName::new();
            name.push(DnType::CommonName, format!("system:node:{}", config.node_name));
            params.distinguished_name = name;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let made = params.self_signed(&key).context("signing the serving certificate")?;
            write_private(&paths.0, &made.pem())?;
            write_private(&paths.1, &key.serialize_pem())?;
            paths
        }
    };
    let chain = CertificateDer::pem_file_iter(&cert)
        .and_then(Iterator::collect)
        .map_err(|e| anyhow::anyhow!("reading the serving certificate {}: {e}", cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&key)
        .map_err(|e| anyhow::anyhow!("reading the serving key {}: {e}", key.display()))?;
    Ok((chain, key))
}
