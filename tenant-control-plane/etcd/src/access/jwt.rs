//! JSON Web Tokens (RFC 7519) that stand for a user: whoever has the key can check them, and no member
//! has to remember them.
//!
//! As with upstream's, a token names the revision of users and roles at which it was made, and ends
//! with any change of them, or when its time is over.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use auth::token::{self, KeySet, SigningKey};
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::json;

const DEFAULT_TTL: Duration = Duration::from_secs(5 * 60);

/// What `--auth-token=jwt,…` says.
pub struct Jwt {
    method: String,
    keys: Keys,
    ttl: Duration,
}

enum Keys {
    Secret(hmac::Key),
    /// Without a private key, tokens are checked only.
    Pair(KeySet, Option<SigningKey>),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    username: String,
    revision: u64,
    /// Seconds since 1970.
    exp: u64,
}

impl Jwt {
    /// Reads the options behind `jwt,` and the files that they name.
    pub fn from_options(options: &str) -> anyhow::Result<Self> {
        let (mut method, mut public, mut private, mut ttl) = (None, None, None, DEFAULT_TTL);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option
                .split_once('=')
                .with_context(|| format!("{option:?} is not of the form name=value"))?;
            let read = || fs::read(value).with_context(|| format!("{name}={value}"));
            match name {
                "sign-method" => method = Some(value),
                "pub-key" => public = Some(read()?),
                "priv-key" => private = Some(read()?),
                "ttl" => ttl = crate::config::parse_duration(value).context("ttl")?,
                _ => bail!("{name:?} is none of sign-method, pub-key, priv-key and ttl"),
            }
        }
        let method = method.context("sign-method is missing, such as sign-method=RS256")?;
        ensure!(!ttl.is_zero(), "ttl must be above 0");
        let keys = match method {
            "HS256" | "HS384" | "HS512" => {
                let secret = private.context("priv-key, a file with the secret, is missing")?;
                ensure!(!secret.is_empty(), "the secret in priv-key is empty");
                Keys::Secret(hmac::Key::new(hash(method), &secret))
            }
            _ => pair(method, public, private)?,
        };
        Ok(Self { method: method.to_owned(), keys, ttl })
    }

    /// A token for a user, as of a revision of users and roles.
    pub fn sign(&self, username: String, revision: u64) -> anyhow::Result<String> {
        let claims = Claims { username, revision, exp: now().saturating_add(self.ttl).as_secs() };
        let header = json!({"alg": self.method, "typ": "JWT"});
        token::write(&header, &serde_json::to_value(claims)?, |message| match &self.keys {
            Keys::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Keys::Pair(_, Some(key)) => key.sign(message),
            Keys::Pair(_, None) => bail!("auth: token signing attempted with verify-only key"),
        })
    }

    /// The user and the revision that a token names; none if it is not one of ours, or over.
    pub fn verify(&self, token: &str) -> Option<(String, u64)> {
        let claims = token::read(token, |header, message, signature| {
            // The method is ours to choose, not the token's.
            header["alg"] == self.method.as_str()
                && match &self.keys {
                    Keys::Secret(key) => hmac::verify(key, message, signature).is_ok(),
                    Keys::Pair(keys, _) => keys
                        .candidates(None)
                        .any(|key| key.verifies(&self.method, message, signature)),
                }
        });
        let claims: Claims = serde_json::from_value(claims.ok()?).ok()?;
        (now().as_secs() < claims.exp).then_some((claims.username, claims.revision))
    }
}

fn pair(method: &str, public: Option<Vec<u8>>, private: Option<Vec<u8>>) -> anyhow::Result<Keys> {
    ensure!(public.is_some() || private.is_some(), "neither pub-key nor priv-key is given");
    let signing = private.map(|pem| SigningKey::from_pem(&pem)?.with_algorithm(method));
    let signing = signing.transpose().context("priv-key")?;
    let mut keys = KeySet::default();
    match (public, &signing) {
        (Some(pem), _) => keys = KeySet::from_pems([pem]).context("pub-key")?,
        (None, Some(signing)) => keys.add(signing.public().clone()),
        (None, None) => {}
    }
    if let Some(signing) = &signing {
        let fits = keys.candidates(None).any(|key| key.id() == signing.public().id());
        ensure!(fits, "pub-key does not belong to priv-key");
    }
    let can = keys.candidates(None).all(|key| key.can(method));
    ensure!(can, "sign-method {method} is not known, or is for another kind of key");
    Ok(Keys::Pair(keys, signing))
}

fn hash(method: &str) -> hmac::Algorithm {
    match method {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn files() -> (tempfile::TempDir, impl Fn(&str, &str) -> String) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let write = move |name: &str, text: &str| {
            let path = root.join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        (dir, write)
    }

    #[test]
    fn what_was_signed_is_believed_by_who_has_the_key_and_by_nobody_else() {
        let (_dir, write) = files();
        let pair = rcgen::KeyPair::generate().unwrap();
        let private = write("key", &pair.serialize_pem());
        let public = write("pub", &pair.public_key_pem());
        let secret = write("secret", "a secret");
        let jwt = |options: &str| Jwt::from_options(options).unwrap();
        let signing = jwt(&format!("sign-method=ES256,priv-key={private},pub-key={public},ttl=1m"));
        let verifying = jwt(&format!("sign-method=ES256,pub-key={public}"));
        let hmac = jwt(&format!("sign-method=HS256,priv-key={secret}"));
        let token = signing.sign("ada".into(), 7).unwrap();
        assert_eq!(verifying.verify(&token), Some(("ada".into(), 7)));
        assert_eq!(signing.verify(&token), Some(("ada".into(), 7)));
        assert_eq!(hmac.verify(&token), None);
        assert!(verifying.sign("ada".into(), 7).is_err());
        let token = hmac.sign("ada".into(), 7).unwrap();
        assert_eq!(hmac.verify(&token), Some(("ada".into(), 7)));
        assert_eq!(verifying.verify(&token), None);
        let public_as_secret = jwt(&format!("sign-method=HS256,priv-key={public}"));
        let forged = public_as_secret.sign("root".into(), 7).unwrap();
        assert_eq!(verifying.verify(&forged), None);
        for bit in 0..token.len() * 8 {
            let mut bad = token.clone().into_bytes();
            bad[bit / 8] ^= 1 << (bit % 8);
            // The unused last bits of base 64 are refused, too.
            let verified = std::str::from_utf8(&bad).ok().and_then(|bad| hmac.verify(bad));
            assert_eq!(verified, None, "bit {bit}");
        }
        let over = Jwt { ttl: Duration::ZERO, ..hmac };
        assert_eq!(over.verify(&over.sign("ada".into(), 7).unwrap()), None);
    }

    #[test]
    fn wrong_options_say_what_is_wrong() {
        let (_dir, write) = files();
        let pair = rcgen::KeyPair::generate().unwrap();
        let private = write("key", &pair.serialize_pem());
        let other = write("pub", &rcgen::KeyPair::generate().unwrap().public_key_pem());
        for (options, says) in [
            ("", "sign-method is missing"),
            ("sign-method=RS256", "neither pub-key nor priv-key"),
            ("sign-method=HS256", "the secret, is missing"),
            ("nonsense", "name=value"),
            ("colour=red", "none of"),
            ("sign-method=ES256,priv-key=/nowhere", "/nowhere"),
            (&format!("sign-method=RS256,priv-key={private}"), "another kind"),
            (&format!("sign-method=RS256,pub-key={other}"), "another kind"),
            (&format!("sign-method=ES512,priv-key={private}"), "is none of RS256, "),
            (&format!("sign-method=ES256,priv-key={private},pub-key={other}"), "does not belong"),
            (&format!("sign-method=ES256,priv-key={private},ttl=0s"), "above 0"),
        ] {
            let error = format!("{:#}", Jwt::from_options(options).err().unwrap());
            assert!(error.contains(says), "{options}: {error}");
        }
    }
}
