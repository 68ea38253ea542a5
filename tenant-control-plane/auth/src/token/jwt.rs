//! Compact JWS serialisation (RFC 7515).

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::keys::{KeySet, SigningKey};

/// Longest token that is looked at, in bytes.
const LONGEST: usize = 16 * 1024;

/// Signs claims.
pub(super) fn sign(key: &SigningKey, claims: &Value) -> anyhow::Result<String> {
    let header = json!({"alg": key.algorithm(), "kid": key.public().id()});
    write(&header, claims, |message| key.sign(message))
}

/// Writes a token that `sign` signs.
///
/// # Errors
/// Those of `sign`.
pub fn write(
    header: &Value,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<String> {
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = sign(message.as_bytes())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The claims of a token whose signature `is_right` believes, from the header, the message and the
/// signature.
///
/// # Errors
/// When the token is malformed, too long, has critical extensions or is not believed.
pub fn read(
    token: &str,
    is_right: impl FnOnce(&Value, &[u8], &[u8]) -> bool,
) -> anyhow::Result<Value> {
    ensure!(token.len() <= LONGEST, "the token is too long");
    let (message, signature) = token.rsplit_once('.').context("not a JWT")?;
    let (header, payload) = message.split_once('.').context("not a JWT")?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    ensure!(header.get("crit").is_none(), "the token has critical extensions");
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    if !is_right(&header, message.as_bytes(), &signature) {
        bail!("no known key signed the token");
    }
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// Who is said to have issued a token, before anything is checked.
pub(crate) fn unverified_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || token.len() > LONGEST {
        return None;
    }
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims["iss"].as_str().map(str::to_owned)
}

/// The claims of a token that one of the keys has signed. Time and audience are for the caller.
///
/// # Errors
/// When the token is malformed, too long or signed by nobody known.
pub fn verify(keys: &KeySet, token: &str) -> anyhow::Result<Value> {
    read(token, |header, message, signature| {
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let mut keys = keys.candidates(header["kid"].as_str());
        keys.any(|key| key.verifies(algorithm, message, signature))
    })
}
