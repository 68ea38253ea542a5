//! Signing and verifying keys, ES256 and RS256 (RFC 7518).

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::der;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Rs256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }
}

/// A public key that checks tokens.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    id: String,
    algorithm: Algorithm,
    /// Uncompressed point, or `RSAPublicKey`.
    key: Vec<u8>,
}

impl VerifyingKey {
    fn new(algorithm: Algorithm, key: Vec<u8>) -> Self {
        let identifier = match algorithm {
            Algorithm::Es256 => der::P256,
            Algorithm::Rs256 => der::RSA,
        };
        let info = der::public_key_info(identifier, &key);
        Self { id: URL_SAFE_NO_PAD.encode(Sha256::digest(&info)), algorithm, key }
    }

    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> anyhow::Result<Self> {
        let key = info.subject_public_key.data.to_vec();
        match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => Ok(Self::new(Algorithm::Rs256, key)),
            "1.2.840.10045.2.1" if key.len() == 65 => Ok(Self::new(Algorithm::Es256, key)),
            other => bail!("keys of algorithm {other} are not supported (RSA and P-256 are)"),
        }
    }

    /// `kid`: SHA-256 of the key's `SubjectPublicKeyInfo`, in URL-safe base 64.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Checks a signature made with the named algorithm.
    pub fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if algorithm != self.algorithm.name() {
            return false;
        }
        let key: &dyn ring::signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(key, &self.key).verify(message, signature).is_ok()
    }

    /// The key as a JSON Web Key (RFC 7517).
    pub fn to_jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self.algorithm {
            Algorithm::Es256 => json!({
                "kty": "EC", "crv": "P-256",
                "x": text(&self.key[1..33]), "y": text(&self.key[33..65]),
            }),
            Algorithm::Rs256 => {
                let (n, e) = der::rsa_public_key(&self.key).unwrap_or_default();
                json!({"kty": "RSA", "n": text(n), "e": text(e)})
            }
        };
        jwk["use"] = "sig".into();
        jwk["kid"] = self.id.as_str().into();
        jwk["alg"] = self.algorithm.name().into();
        jwk
    }
}

/// The private key that signs new tokens.
pub struct SigningKey {
    pair: Pair,
    public: VerifyingKey,
}

enum Pair {
    Es256(Box<EcdsaKeyPair>),
    Rs256(Box<RsaKeyPair>),
}

impl SigningKey {
    /// Reads the first private key of a PEM file: PKCS#8, SEC1 or PKCS#1.
    ///
    /// # Errors
    /// When there is none, or it is neither RSA (2048 bits or more) nor P-256.
    pub fn from_pem(pem: &[u8]) -> anyhow::Result<Self> {
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, bytes) = section.map_err(|e| anyhow!("not PEM: {e}"))?;
            if let Some(key) = Self::from_section(kind, &bytes)? {
                return Ok(key);
            }
        }
        bail!("no private key in the file")
    }

    fn from_section(kind: SectionKind, bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        let random = SystemRandom::new();
        let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = match kind {
            SectionKind::PrivateKey => match EcdsaKeyPair::from_pkcs8(signing, bytes, &random) {
                Ok(pair) => Pair::Es256(Box::new(pair)),
                Err(_) => Pair::Rs256(Box::new(
                    RsaKeyPair::from_pkcs8(bytes)
                        .map_err(|e| anyhow!("neither a P-256 nor a usable RSA key: {e}"))?,
                )),
            },
            SectionKind::EcPrivateKey => {
                let (private, public) =
                    der::ec_private_key(bytes).context("not an EC private key")?;
                Pair::Es256(Box::new(
                    EcdsaKeyPair::from_private_key_and_public_key(
                        signing, private, public, &random,
                    )
                    .map_err(|e| anyhow!("not a P-256 key: {e}"))?,
                ))
            }
            SectionKind::RsaPrivateKey => Pair::Rs256(Box::new(
                RsaKeyPair::from_der(bytes).map_err(|e| anyhow!("not a usable RSA key: {e}"))?,
            )),
            _ => return Ok(None),
        };
        let public = match &pair {
            Pair::Es256(p) => VerifyingKey::new(Algorithm::Es256, p.public_key().as_ref().to_vec()),
            Pair::Rs256(p) => VerifyingKey::new(Algorithm::Rs256, p.public_key().as_ref().to_vec()),
        };
        Ok(Some(Self { pair, public }))
    }

    /// The public half.
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// The JWS algorithm of this key's signatures.
    pub fn algorithm(&self) -> &'static str {
        self.public.algorithm.name()
    }

    /// Signs a message.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Es256(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| anyhow!("cannot sign"))?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| anyhow!("cannot sign"))?;
                Ok(signature)
            }
        }
    }
}

/// All keys whose tokens are believed.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
}

impl KeySet {
    /// Reads PEM files, each with any number of public keys, certificates or private keys (of
    /// which the public half is taken).
    ///
    /// # Errors
    /// When a file holds no key, or one of an unsupported algorithm.
    pub fn from_pems<P: AsRef<[u8]>>(files: impl IntoIterator<Item = P>) -> anyhow::Result<Self> {
        let mut set = Self::default();
        for file in files {
            let mut found = false;
            for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(file.as_ref()) {
                let (kind, bytes) = section.map_err(|e| anyhow!("not PEM: {e}"))?;
                match kind {
                    SectionKind::PublicKey => {
                        let (_, info) =
                            SubjectPublicKeyInfo::from_der(&bytes).context("not a public key")?;
                        set.add(VerifyingKey::from_info(&info)?);
                        found = true;
                    }
                    SectionKind::Certificate => {
                        let (_, certificate) =
                            X509Certificate::from_der(&bytes).context("not a certificate")?;
                        set.add(VerifyingKey::from_info(certificate.public_key())?);
                        found = true;
                    }
                    _ => {
                        if let Some(key) = SigningKey::from_section(kind, &bytes)? {
                            set.add(key.public);
                            found = true;
                        }
                    }
                }
            }
            if !found {
                bail!("the file holds no key");
            }
        }
        Ok(set)
    }

    /// Adds a key, once.
    pub fn add(&mut self, key: VerifyingKey) {
        if !self.keys.iter().any(|k| k.id == key.id) {
            self.keys.push(key);
        }
    }

    /// The keys to try for a token: the named one, or all when it names none or an unknown one.
    pub fn candidates<'a>(&'a self, id: Option<&str>) -> impl Iterator<Item = &'a VerifyingKey> {
        let named = id.and_then(|id| self.keys.iter().position(|key| key.id == id));
        let range = match named {
            Some(at) => at..at + 1,
            None => 0..self.keys.len(),
        };
        self.keys[range].iter()
    }

    /// The JSON Web Key Set (RFC 7517).
    pub fn to_jwks(&self) -> Value {
        json!({"keys": self.keys.iter().map(VerifyingKey::to_jwk).collect::<Vec<_>>()})
    }
}
