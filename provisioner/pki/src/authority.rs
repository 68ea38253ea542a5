//! One certificate authority and the leaves that it issues.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// How far back a certificate is valid: clocks of hosts and workers may be behind.
const BACKDATE: Duration = Duration::minutes(5);

/// One day, seconds.
pub const DAY_SECS: i64 = 24 * 60 * 60;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The generator refused, for instance a DNS name that is not ASCII.
    #[error("certificate for {subject:?} cannot be made")]
    Generate {
        /// Common name.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A time or lifetime that no certificate can have.
    #[error("certificate for {subject:?}: lifetime of {valid_secs} s is out of range")]
    Lifetime {
        /// Common name.
        subject: String,
        /// What was asked for.
        valid_secs: i64,
    },
    /// Stored keys cannot be read.
    #[error("stored keys cannot be read")]
    Stored(#[from] serde_json::Error),
    /// A certificate cannot be read.
    #[error("certificate cannot be read")]
    Unreadable,
}

/// What a leaf may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// TLS server only.
    Server,
    /// TLS client only.
    Client,
    /// Both: etcd members dial each other, and their own client port, with one certificate.
    ServerAndClient,
}

/// A certificate to be issued.
#[derive(Clone, Debug)]
pub struct Leaf<'a> {
    /// Common name: the user name of a client.
    pub common_name: &'a str,
    /// Organization: the group of a client.
    pub organization: Option<&'a str>,
    /// DNS names that a server answers to.
    pub dns: Vec<String>,
    /// Addresses that a server answers to.
    pub ips: Vec<IpAddr>,
    /// What it may be used for.
    pub usage: Usage,
    /// Lifetime from now, seconds.
    pub valid_secs: i64,
}

impl<'a> Leaf<'a> {
    /// A client certificate: user and group.
    pub fn client(common_name: &'a str, organization: Option<&'a str>, valid_secs: i64) -> Self {
        Self {
            common_name,
            organization,
            dns: Vec::new(),
            ips: Vec::new(),
            usage: Usage::Client,
            valid_secs,
        }
    }
}

/// A certificate with its private key, PEM.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Issued {
    /// Certificate.
    pub cert_pem: String,
    /// Private key, PKCS#8.
    pub key_pem: String,
}

/// A certificate authority with its private key, PEM.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Authority {
    /// Certificate.
    pub cert_pem: String,
    /// Private key, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// A new self-signed authority that is valid for ten years from `now_unix` (seconds).
    pub fn new(common_name: &str, now_unix: i64) -> Result<Self, PkiError> {
        let generate = |source| PkiError::Generate { subject: common_name.to_owned(), source };
        let mut params = validity(common_name, now_unix, 3650 * DAY_SECS)?;
        params.distinguished_name = name(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().map_err(generate)?;
        let cert = params.self_signed(&key).map_err(generate)?;
        Ok(Self { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Issues a leaf with a new key.
    pub fn issue(&self, leaf: &Leaf<'_>, now_unix: i64) -> Result<Issued, PkiError> {
        let generate = |source| PkiError::Generate { subject: leaf.common_name.to_owned(), source };
        let mut params = validity(leaf.common_name, now_unix, leaf.valid_secs)?;
        params.distinguished_name = name(leaf.common_name, leaf.organization);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = match leaf.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::ServerAndClient => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        for dns in &leaf.dns {
            let dns = dns.as_str().try_into().map_err(generate)?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        params.subject_alt_names.extend(leaf.ips.iter().copied().map(SanType::IpAddress));
        let ca_key = KeyPair::from_pem(&self.key_pem).map_err(generate)?;
        let issuer = Issuer::from_ca_cert_pem(&self.cert_pem, ca_key).map_err(generate)?;
        let key = KeyPair::generate().map_err(generate)?;
        let cert = params.signed_by(&key, &issuer).map_err(generate)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

/// A new key pair for signing tokens: private (PKCS#8) and public (SPKI) PEM.
pub fn signing_key(subject: &str) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate()
        .map_err(|source| PkiError::Generate { subject: subject.to_owned(), source })?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// When a certificate ends, Unix seconds.
pub fn not_after_unix(cert_pem: &str) -> Result<i64, PkiError> {
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(cert_pem.as_bytes()).map_err(|_| PkiError::Unreadable)?;
    let cert = pem.parse_x509().map_err(|_| PkiError::Unreadable)?;
    Ok(cert.validity().not_after.timestamp())
}

fn validity(subject: &str, now_unix: i64, valid_secs: i64) -> Result<CertificateParams, PkiError> {
    let lifetime = || PkiError::Lifetime { subject: subject.to_owned(), valid_secs };
    let now = OffsetDateTime::from_unix_timestamp(now_unix).map_err(|_| lifetime())?;
    let end = now.checked_add(Duration::seconds(valid_secs)).ok_or_else(lifetime)?;
    if valid_secs <= 0 {
        return Err(lifetime());
    }
    let mut params = CertificateParams::default();
    params.not_before = now.checked_sub(BACKDATE).ok_or_else(lifetime)?;
    params.not_after = end;
    Ok(params)
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_client_leaf_carries_user_group_and_lifetime() {
        let ca = Authority::new("test", NOW).unwrap();
        let leaf = Leaf::client("marina:admin", Some("system:masters"), 3600);
        let issued = ca.issue(&leaf, NOW).unwrap();
        assert_eq!(not_after_unix(&issued.cert_pem).unwrap(), NOW + 3600);
        assert!(issued.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8");

        let (_, pem) = parse_x509_pem(issued.cert_pem.as_bytes()).unwrap();
        let cert = pem.parse_x509().unwrap();
        let (_, ca_pem) = parse_x509_pem(ca.cert_pem.as_bytes()).unwrap();
        let ca_cert = ca_pem.parse_x509().unwrap();
        cert.verify_signature(Some(ca_cert.public_key())).unwrap();
        assert!(cert.subject().to_string().contains("O=system:masters, CN=marina:admin"));
        let usage = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(!cert.is_ca() && ca_cert.is_ca());
    }

    #[test]
    fn lifetimes_that_make_no_sense_are_errors() {
        let ca = Authority::new("test", NOW).unwrap();
        for valid_secs in [0, -1, i64::MAX] {
            let error = ca.issue(&Leaf::client("x", None, valid_secs), NOW).unwrap_err();
            assert!(matches!(error, PkiError::Lifetime { .. }), "{error}");
        }
        let bad = Leaf { dns: vec!["näme".into()], ..Leaf::client("x", None, 60) };
        assert!(matches!(ca.issue(&bad, NOW), Err(PkiError::Generate { .. })));
    }
}
