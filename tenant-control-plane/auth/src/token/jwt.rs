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
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let message = format!("{}.{}", part(&header), part(claims));
    let signature = key.sign(message.as_bytes())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
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
    ensure!(token.len() <= LONGEST, "the token is too long");
    let (message, signature) = token.rsplit_once('.').context("not a JWT")?;
    let (header, payload) = message.split_once('.').context("not a JWT")?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    ensure!(header.get("crit").is_none(), "the token has critical extensions");
    let algorithm = header["alg"].as_str().context("the token names no algorithm")?;
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    for key in keys.candidates(header["kid"].as_str()) {
        if key.verifies(algorithm, message.as_bytes(), &signature) {
            return Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?);
        }
    }
    bail!("no known key signed the token")
}
