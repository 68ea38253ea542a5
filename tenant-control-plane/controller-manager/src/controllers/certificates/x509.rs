//! Reads PKCS #10 requests and writes X.509 certificates (RFC 2986, RFC 5280).
//!
//! The certificate takes the subject and public key from the request byte for byte: an encoder that
//! models names could drop what it does not know, such as a second organization.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use jiff::{Timestamp, tz::TimeZone};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, Tag};

/// The parts of a request that decisions rest on.
#[derive(Debug, Default, Clone)]
pub(super) struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: usize,
    pub ips: usize,
    pub emails: usize,
    pub uris: usize,
    pub(super) subject: Vec<u8>,
    pub(super) public_key: Vec<u8>,
    /// DER of the subject alternative names extension's value.
    pub(super) names: Option<Vec<u8>>,
}

impl Request {
    pub(super) fn has_names(&self) -> bool {
        self.dns_names + self.ips + self.emails + self.uris > 0
    }

    /// Parses a PEM request and checks its signature.
    pub(super) fn from_pem(pem: &[u8]) -> anyhow::Result<Self> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).context("the request is not PEM")?;
        if pem.label != "CERTIFICATE REQUEST" && pem.label != "NEW CERTIFICATE REQUEST" {
            bail!("PEM block type must be CERTIFICATE REQUEST");
        }
        // rcgen checks that the requester holds the key.
        rcgen::CertificateSigningRequestParams::from_der(&pem.contents.as_slice().into())
            .map(|_| ())
            .or_else(|error| match error {
                // Extensions that it cannot model are none of its business here.
                rcgen::Error::UnsupportedExtension => Ok(()),
                other => Err(anyhow!("the request is not usable: {other}")),
            })?;
        let (rest, csr) = X509CertificationRequest::from_der(&pem.contents)
            .context("the request is not PKCS #10")?;
        if !rest.is_empty() {
            bail!("there is something after the request");
        }
        let info = &csr.certification_request_info;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            value.as_str().map(str::to_owned).unwrap_or_default()
        };
        let mut request = Self {
            common_name: info.subject.iter_common_name().last().map(text).unwrap_or_default(),
            organizations: info.subject.iter_organization().map(text).collect(),
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        for extension in csr.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                request.count(&names.general_names);
            }
        }
        if request.has_names() {
            request.names = Some(names_der(&csr)?);
        }
        Ok(request)
    }

    fn count(&mut self, names: &[GeneralName<'_>]) {
        for name in names {
            match name {
                GeneralName::DNSName(_) => self.dns_names += 1,
                GeneralName::IPAddress(_) => self.ips += 1,
                GeneralName::RFC822Name(_) => self.emails += 1,
                _ => self.uris += 1,
            }
        }
    }
}

/// Encodes the request's alternative names again.
fn names_der(csr: &X509CertificationRequest<'_>) -> anyhow::Result<Vec<u8>> {
    let mut names = Vec::new();
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(found) = extension else { continue };
        for name in &found.general_names {
            // Context tags of GeneralName, RFC 5280 section 4.2.1.6.
            names.push(match name {
                GeneralName::RFC822Name(text) => (1, text.as_bytes().to_vec()),
                GeneralName::DNSName(text) => (2, text.as_bytes().to_vec()),
                GeneralName::URI(text) => (6, text.as_bytes().to_vec()),
                GeneralName::IPAddress(bytes) => (7, bytes.to_vec()),
                _ => bail!("only DNS, IP, e-mail and URI names are supported"),
            });
        }
    }
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence_of(|writer| {
            for (tag, bytes) in &names {
                writer.next().write_tagged_implicit(Tag::context(*tag), |w| w.write_bytes(bytes));
            }
        });
    }))
}

/// A CA that signs requests.
pub(super) struct Authority {
    key: KeyPair,
    subject: Vec<u8>,
    key_id: Vec<u8>,
    not_after: i64,
}

/// Certificates are valid from a little before now, for clients whose clock is late.
const BACKDATE: Duration = Duration::from_secs(300);

impl Authority {
    /// Reads a CA from PEM texts.
    pub(super) fn from_pem(cert: &str, key: &str) -> anyhow::Result<Self> {
        let key = super::key::from_pem(key).context("reading the CA's key")?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(cert.as_bytes())
            .context("the CA's certificate is not PEM")?;
        let (_, parsed) = X509Certificate::from_der(&pem.contents)
            .context("the CA's certificate is not X.509")?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            bail!("the CA's key does not belong to its certificate");
        }
        let key_id = parsed.extensions().iter().find_map(|ext| match ext.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(Self {
            subject: parsed.subject().as_raw().to_vec(),
            key_id: key_id.unwrap_or_default(),
            not_after: parsed.validity().not_after.timestamp(),
            key,
        })
    }

    /// Signs the request for the usages, for at most `life`. Returns PEM.
    pub(super) fn sign(
        &self,
        request: &Request,
        usages: &[String],
        life: Duration,
        now: Timestamp,
    ) -> anyhow::Result<String> {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        // A short life is not shortened further by the backdating.
        let lost = if life >= BACKDATE * 8 { seconds(BACKDATE) } else { 0 };
        let from = now.as_second() - seconds(BACKDATE);
        let until = now.as_second().saturating_add(seconds(life)) - lost;
        let until = until.min(self.not_after);
        if until <= now.as_second() {
            bail!("the CA's certificate has expired");
        }
        let algorithm = signature_algorithm(&self.key)?;
        let extensions = extensions(request, usages, &self.key_id)?;
        let serial: [u8; 16] = rand::random();
        let body = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged(Tag::context(0), |w| w.write_i8(2));
                // Positive, and not of minimal length by chance.
                let serial: Vec<u8> = std::iter::once(0x40 | serial[0] & 0x3f)
                    .chain(serial[1..].iter().copied())
                    .collect();
                writer.next().write_bigint_bytes(&serial, true);
                writer.next().write_der(&algorithm);
                writer.next().write_der(&self.subject);
                writer.next().write_sequence(|writer| {
                    write_time(writer.next(), from);
                    write_time(writer.next(), until);
                });
                writer.next().write_der(&request.subject);
                writer.next().write_der(&request.public_key);
                writer.next().write_tagged(Tag::context(3), |w| w.write_der(&extensions));
            });
        });
        let signature = self.key.sign(&body).context("signing")?;
        let der = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                writer.next().write_der(&algorithm);
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem_text(&der))
    }
}

fn pem_text(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// UTCTime until 2049, GeneralizedTime after, as RFC 5280 section 4.1.2.5 asks.
fn write_time(writer: DERWriter<'_>, second: i64) {
    let time = Timestamp::from_second(second).unwrap_or(Timestamp::MAX).to_zoned(TimeZone::UTC);
    if time.year() < 2050 {
        let text = time.strftime("%y%m%d%H%M%SZ").to_string();
        let time = UTCTime::parse(text.as_bytes()).expect("the format above is UTCTime");
        writer.write_utctime(&time);
    } else {
        let text = time.strftime("%Y%m%d%H%M%SZ").to_string();
        let time = GeneralizedTime::parse(text.as_bytes()).expect("the format above is valid");
        writer.write_generalized_time(&time);
    }
}

fn oid(parts: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(parts)
}

/// The AlgorithmIdentifier of what the key signs with.
fn signature_algorithm(key: &KeyPair) -> anyhow::Result<Vec<u8>> {
    let algorithm = key.algorithm();
    let (parts, null): (&[u64], bool) = if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
        (&[1, 2, 840, 10045, 4, 3, 2], false)
    } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
        (&[1, 2, 840, 10045, 4, 3, 3], false)
    } else if algorithm == &rcgen::PKCS_ED25519 {
        (&[1, 3, 101, 112], false)
    } else if algorithm == &rcgen::PKCS_RSA_SHA256 {
        (&[1, 2, 840, 113_549, 1, 1, 11], true)
    } else {
        bail!("the CA's key is of a kind that cannot sign certificates here");
    };
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&oid(parts));
            if null {
                writer.next().write_null();
            }
        });
    }))
}

/// Key usage bit or extended key usage of a usage's name in the API.
enum Usage {
    Bit(u8),
    Purpose(u64),
    AnyPurpose,
}

fn usage(name: &str) -> Option<Usage> {
    Some(match name {
        "signing" | "digital signature" => Usage::Bit(0),
        "content commitment" => Usage::Bit(1),
        "key encipherment" => Usage::Bit(2),
        "data encipherment" => Usage::Bit(3),
        "key agreement" => Usage::Bit(4),
        "cert sign" => Usage::Bit(5),
        "crl sign" => Usage::Bit(6),
        "encipher only" => Usage::Bit(7),
        "decipher only" => Usage::Bit(8),
        "any" => Usage::AnyPurpose,
        "server auth" => Usage::Purpose(1),
        "client auth" => Usage::Purpose(2),
        "code signing" => Usage::Purpose(3),
        "email protection" | "s/mime" => Usage::Purpose(4),
        "ipsec end system" => Usage::Purpose(5),
        "ipsec tunnel" => Usage::Purpose(6),
        "ipsec user" => Usage::Purpose(7),
        "timestamping" => Usage::Purpose(8),
        "ocsp signing" => Usage::Purpose(9),
        _ => return None,
    })
}

fn extensions(request: &Request, usages: &[String], authority: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut bits = [0_u8; 2];
    let mut purposes = Vec::new();
    for name in usages {
        match usage(name).with_context(|| format!("unrecognized usage {name:?}"))? {
            Usage::Bit(bit) => bits[usize::from(bit / 8)] |= 0x80 >> (bit % 8),
            Usage::Purpose(last) => purposes.push(oid(&[1, 3, 6, 1, 5, 5, 7, 3, last])),
            Usage::AnyPurpose => purposes.push(oid(&[2, 5, 29, 37, 0])),
        }
    }
    let used = if bits[1] != 0 { 9 } else { 8 - bits[0].trailing_zeros().min(8) as usize };
    let key_usage = (bits != [0, 0])
        .then(|| yasna::construct_der(|w| w.write_bitvec_bytes(&bits[..used.div_ceil(8)], used)));
    let extended = (!purposes.is_empty()).then(|| {
        yasna::construct_der(|w| {
            w.write_sequence_of(|w| purposes.iter().for_each(|p| w.next().write_oid(p)));
        })
    });
    let constraints = yasna::construct_der(|w| w.write_sequence(|_| {}));
    let own_id = &Sha256::digest(&request.public_key)[..20];
    let own_id = yasna::construct_der(|w| w.write_bytes(own_id));
    let issuer_id = (!authority.is_empty()).then(|| {
        yasna::construct_der(|w| {
            w.write_sequence(|w| {
                w.next().write_tagged_implicit(Tag::context(0), |w| w.write_bytes(authority));
            });
        })
    });
    let empty_subject = request.subject == [0x30, 0];
    // Arcs below 2.5.29, criticality, value.
    let all = [
        (15, true, key_usage),
        (37, false, extended),
        (19, true, Some(constraints)),
        (14, false, Some(own_id)),
        (35, false, issuer_id),
        (17, empty_subject, request.names.clone()),
    ];
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence_of(|writer| {
            for (arc, critical, value) in all {
                let Some(value) = value else { continue };
                writer.next().write_sequence(|writer| {
                    writer.next().write_oid(&oid(&[2, 5, 29, arc]));
                    if critical {
                        writer.next().write_bool(true);
                    }
                    writer.next().write_bytes(&value);
                });
            }
        });
    }))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, SanType};

    use super::*;

    fn authority() -> (Authority, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        let authority = Authority::from_pem(&cert.pem(), &key.serialize_pem()).unwrap();
        (authority, cert.der().to_vec())
    }

    fn request(names: Vec<SanType>) -> Request {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:w1");
        params.subject_alt_names = names;
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        Request::from_pem(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_signed_certificate_verifies_and_keeps_the_subject() {
        let (authority, ca_der) = authority();
        let request = request(vec![SanType::DnsName("w1".try_into().unwrap())]);
        assert_eq!(request.common_name, "system:node:w1");
        assert_eq!(request.organizations, ["system:nodes"]);
        assert_eq!(request.dns_names, 1);
        let usages = ["digital signature", "client auth"].map(str::to_owned);
        let day = Duration::from_secs(86400);
        let pem = authority.sign(&request, &usages, day, Timestamp::now()).unwrap();

        let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let cert = parsed.parse_x509().unwrap();
        let (_, ca) = X509Certificate::from_der(&ca_der).unwrap();
        assert_eq!(cert.issuer(), ca.subject());
        assert_eq!(
            cert.subject().iter_common_name().next().unwrap().as_str().unwrap(),
            "system:node:w1"
        );
        let eku = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(eku.client_auth && !eku.server_auth);
        assert!(cert.key_usage().unwrap().unwrap().value.digital_signature());
        assert!(!cert.is_ca());
        let left = cert.validity().time_to_expiration().unwrap().whole_seconds();
        assert!((86000..86400).contains(&left), "{left}");
        verify_with_rustls(&ca_der, cert.as_ref());
    }

    /// A second opinion on the encoding: the verifier that the API server uses.
    fn verify_with_rustls(ca: &[u8], cert: &[u8]) {
        use rustls_pki_types::{CertificateDer, UnixTime};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(ca.to_vec())).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .unwrap();
        verifier
            .verify_client_cert(&CertificateDer::from(cert.to_vec()), &[], UnixTime::now())
            .unwrap();
    }

    #[test]
    fn a_broken_request_is_refused() {
        assert!(Request::from_pem(b"nonsense").is_err());
        let (authority, _) = authority();
        let usages = ["juggling".to_owned()];
        let day = Duration::from_secs(86400);
        assert!(authority.sign(&request(vec![]), &usages, day, Timestamp::now()).is_err());
    }
}
