//! Bootstrap tokens: Secrets `kube-system/bootstrap-token-<id>` that let a new machine ask for
//! its first certificate. Source: Kubernetes documentation, "Authenticating with bootstrap
//! tokens".

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::{GroupResource, ObjectSource, UserInfo};
use serde_json::Value;

const GROUP: &str = "system:bootstrappers";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Id and secret of a string of the form `[a-z0-9]{6}.[a-z0-9]{16}`.
pub(super) fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

pub(super) fn user(
    source: &dyn ObjectSource,
    id: &str,
    secret: &str,
    now: jiff::Timestamp,
) -> anyhow::Result<UserInfo> {
    let name = format!("bootstrap-token-{id}");
    let object = source
        .get(&GroupResource::new("", "secrets"), "kube-system", &name)
        .context("no such bootstrap token")?;
    ensure!(object["metadata"]["deletionTimestamp"].is_null(), "the token is being deleted");
    ensure!(object["type"] == SECRET_TYPE, "the Secret is not a bootstrap token");
    let data = |key: &str| field(&object, key);
    let expected = data("token-secret").unwrap_or_default();
    ensure!(!expected.is_empty(), "the token has no secret");
    ensure!(same(expected.as_bytes(), secret.as_bytes()), "the secret is wrong");
    ensure!(data("token-id").as_deref() == Some(id), "the token's id is not its name's");
    if let Some(expiration) = data("expiration") {
        let end: jiff::Timestamp = expiration.parse().context("expiration is not a time")?;
        ensure!(now < end, "the token has expired");
    }
    ensure!(
        data("usage-bootstrap-authentication").as_deref() == Some("true"),
        "the token is not for authentication"
    );
    let mut groups = vec![GROUP.to_owned()];
    for group in data("auth-extra-groups").unwrap_or_default().split(',') {
        let group = group.trim();
        if group.is_empty() {
            continue;
        }
        if !is_bootstrap_group(group) {
            bail!("an extra group is not below {GROUP}:");
        }
        groups.push(group.to_owned());
    }
    Ok(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

/// `system:bootstrappers:` and then `[a-z0-9:-]{0,255}[a-z0-9]`.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-';
    rest.len() <= 256
        && rest.bytes().all(allowed)
        && rest.bytes().last().is_some_and(|b| b != b':' && b != b'-')
}

fn field(secret: &Value, key: &str) -> Option<String> {
    let encoded = secret["data"][key].as_str()?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

/// Compares without giving away by time how much of the secret was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}
