//! Signing and verifying keys, for all JWS algorithms of public keys (RFC 7518, RFC 8037) but ES512.

use anyhow::{Context, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::der;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    /// The `AlgorithmIdentifier` of such keys.
    fn identifier(self) -> &'static [u8] {
        match self {
            Kind::Rsa => der::RSA,
            Kind::P256 => der::P256,
            Kind::P384 => der::P384,
            Kind::Ed25519 => der::ED25519,
        }
    }

    /// The algorithm that such keys sign with unless told otherwise.
    fn usual(self) -> Algorithm {
        let usual = ALGORITHMS.iter().find(|algorithm| algorithm.kind == self);
        *usual.expect("every kind has one")
    }
}

/// One way of signing with one kind of key.
#[derive(Clone, Copy)]
struct Algorithm {
    name: &'static str,
    kind: Kind,
    verify: &'static dyn signature::VerificationAlgorithm,
    /// How RSA keys do it; of the others there is one way.
    rsa: Option<&'static dyn signature::RsaEncoding>,
}

const fn rsa(
    name: &'static str,
    verify: &'static dyn signature::VerificationAlgorithm,
    encoding: &'static dyn signature::RsaEncoding,
) -> Algorithm {
    Algorithm { name, kind: Kind::Rsa, verify, rsa: Some(encoding) }
}

const fn curve(
    name: &'static str,
    kind: Kind,
    verify: &'static dyn signature::VerificationAlgorithm,
) -> Algorithm {
    Algorithm { name, kind, verify, rsa: None }
}

/// Of each kind, the usual one first.
static ALGORITHMS: [Algorithm; 9] = [
    rsa("RS256", &signature::RSA_PKCS1_2048_8192_SHA256, &signature::RSA_PKCS1_SHA256),
    rsa("RS384", &signature::RSA_PKCS1_2048_8192_SHA384, &signature::RSA_PKCS1_SHA384),
    rsa("RS512", &signature::RSA_PKCS1_2048_8192_SHA512, &signature::RSA_PKCS1_SHA512),
    rsa("PS256", &signature::RSA_PSS_2048_8192_SHA256, &signature::RSA_PSS_SHA256),
    rsa("PS384", &signature::RSA_PSS_2048_8192_SHA384, &signature::RSA_PSS_SHA384),
    rsa("PS512", &signature::RSA_PSS_2048_8192_SHA512, &signature::RSA_PSS_SHA512),
    curve("ES256", Kind::P256, &signature::ECDSA_P256_SHA256_FIXED),
    curve("ES384", Kind::P384, &signature::ECDSA_P384_SHA384_FIXED),
    curve("EdDSA", Kind::Ed25519, &signature::ED25519),
];

/// A public key that checks tokens.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    id: String,
    kind: Kind,
    /// Uncompressed point, `RSAPublicKey`, or the 32 bytes of an Ed25519 key.
    key: Vec<u8>,
}

impl VerifyingKey {
    fn new(kind: Kind, key: Vec<u8>) -> Self {
        let info = der::public_key_info(kind.identifier(), &key);
        Self { id: URL_SAFE_NO_PAD.encode(Sha256::digest(&info)), kind, key }
    }

    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> anyhow::Result<Self> {
        let key = info.subject_public_key.data.to_vec();
        match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => Ok(Self::new(Kind::Rsa, key)),
            "1.2.840.10045.2.1" if key.len() == 65 => Ok(Self::new(Kind::P256, key)),
            "1.2.840.10045.2.1" if key.len() == 97 => Ok(Self::new(Kind::P384, key)),
            "1.3.101.112" => Ok(Self::new(Kind::Ed25519, key)),
            other => bail!(
                "keys of algorithm {other} are not supported (RSA, P-256, P-384 and Ed25519 are)"
            ),
        }
    }

    /// `kid`: SHA-256 of the key's `SubjectPublicKeyInfo`, in URL-safe base 64.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the named algorithm is one for this key.
    pub fn can(&self, algorithm: &str) -> bool {
        self.algorithm(algorithm).is_some()
    }

    fn algorithm(&self, name: &str) -> Option<&'static Algorithm> {
        ALGORITHMS.iter().find(|known| known.kind == self.kind && known.name == name)
    }

    /// Checks a signature made with the named algorithm.
    pub fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        self.algorithm(algorithm).is_some_and(|known| {
            UnparsedPublicKey::new(known.verify, &self.key).verify(message, signature).is_ok()
        })
    }

    /// The key as a JSON Web Key (RFC 7517).
    pub fn to_jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |name| {
            let (x, y) = self.key[1..].split_at(self.key.len() / 2);
            json!({"kty": "EC", "crv": name, "x": text(x), "y": text(y)})
        };
        let mut jwk = match self.kind {
            Kind::P256 => point("P-256"),
            Kind::P384 => point("P-384"),
            Kind::Ed25519 => json!({"kty": "OKP", "crv": "Ed25519", "x": text(&self.key)}),
            Kind::Rsa => {
                let (n, e) = der::rsa_public_key(&self.key).unwrap_or_default();
                json!({"kty": "RSA", "n": text(n), "e": text(e)})
            }
        };
        jwk["use"] = "sig".into();
        jwk["kid"] = self.id.as_str().into();
        jwk["alg"] = self.kind.usual().name.into();
        jwk
    }
}

/// The private key that signs new tokens.
pub struct SigningKey {
    pair: Pair,
    algorithm: Algorithm,
    public: VerifyingKey,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Kind, Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

/// The elliptic curves of `ring`.
const CURVES: [(Kind, &signature::EcdsaSigningAlgorithm); 2] = [
    (Kind::P256, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
    (Kind::P384, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
];

impl Pair {
    fn from_pkcs8(bytes: &[u8], random: &SystemRandom) -> anyhow::Result<Self> {
        for (kind, signing) in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(signing, bytes, random) {
                return Ok(Pair::Ec(kind, Box::new(pair)));
            }
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
            return Ok(Pair::Ed25519(Box::new(pair)));
        }
        let pair = RsaKeyPair::from_pkcs8(bytes);
        let pair = pair.map_err(|e| anyhow!("no P-256, P-384, Ed25519 or usable RSA key: {e}"))?;
        Ok(Pair::Rsa(Box::new(pair)))
    }

    fn from_sec1(bytes: &[u8], random: &SystemRandom) -> anyhow::Result<Self> {
        let (private, public) = der::ec_private_key(bytes).context("not an EC private key")?;
        for (kind, signing) in CURVES {
            let pair = EcdsaKeyPair::from_private_key_and_public_key;
            if let Ok(pair) = pair(signing, private, public, random) {
                return Ok(Pair::Ec(kind, Box::new(pair)));
            }
        }
        bail!("neither a P-256 nor a P-384 key")
    }

    fn public(&self) -> VerifyingKey {
        match self {
            Pair::Rsa(pair) => VerifyingKey::new(Kind::Rsa, pair.public_key().as_ref().to_vec()),
            Pair::Ec(kind, pair) => VerifyingKey::new(*kind, pair.public_key().as_ref().to_vec()),
            Pair::Ed25519(pair) => {
                VerifyingKey::new(Kind::Ed25519, pair.public_key().as_ref().to_vec())
            }
        }
    }
}

impl SigningKey {
    /// Reads the first private key of a PEM file: PKCS#8, SEC1 or PKCS#1.
    ///
    /// # Errors
    /// When there is none, or it is none of RSA (2048 bits or more), P-256, P-384 and Ed25519.
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
        let pair = match kind {
            SectionKind::PrivateKey => Pair::from_pkcs8(bytes, &random)?,
            SectionKind::EcPrivateKey => Pair::from_sec1(bytes, &random)?,
            SectionKind::RsaPrivateKey => Pair::Rsa(Box::new(
                RsaKeyPair::from_der(bytes).map_err(|e| anyhow!("not a usable RSA key: {e}"))?,
            )),
            _ => return Ok(None),
        };
        let public = pair.public();
        Ok(Some(Self { pair, algorithm: public.kind.usual(), public }))
    }

    /// Signs with this algorithm from now on.
    ///
    /// # Errors
    /// When it is not known, or not one for this kind of key.
    pub fn with_algorithm(mut self, name: &str) -> anyhow::Result<Self> {
        let names = ALGORITHMS.map(|known| known.name);
        ensure!(names.contains(&name), "{name:?} is none of {}", names.join(", "));
        let found = self.public.algorithm(name);
        self.algorithm = *found.with_context(|| format!("{name} is for another kind of key"))?;
        Ok(self)
    }

    /// The public half.
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// The JWS algorithm of this key's signatures.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name
    }

    /// Signs a message.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(_, pair) => {
                let signature = pair.sign(&random, message).map_err(|_| anyhow!("cannot sign"))?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let encoding = self.algorithm.rsa.context("an algorithm of another kind")?;
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
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
