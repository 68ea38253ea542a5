//! ServiceAccount tokens: signature, issuer, audience, time, and that everything the token is
//! bound to still exists under the same uid.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use machinery::{GroupResource, ObjectSource, UserInfo};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::token::{self, BoundObject, Claims, KeySet};

/// `iss` of tokens in Secrets of type `kubernetes.io/service-account-token`.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Seconds after an object's deletion time during which its tokens still work.
const DELETION_LEEWAY_SECONDS: i64 = 60;
/// How many checked tokens are remembered; one is well below a kilobyte.
const REMEMBERED: usize = 4096;
const EXTRA: &str = "authentication.kubernetes.io/";

/// How to check the tokens of ServiceAccounts.
#[derive(Clone, Debug, Default)]
pub struct ServiceAccountConfig {
    /// `--service-account-key-file`s, and the signing key's public half.
    pub keys: KeySet,
    /// `--service-account-issuer`s; the first signs, all are accepted.
    pub issuers: Vec<String>,
    /// `--api-audiences`; empty means the issuers.
    pub audiences: Vec<String>,
}

pub(super) struct ServiceAccounts {
    config: ServiceAccountConfig,
    /// Claims of tokens whose signature has been checked, by SHA-256 of the token. Time, audience
    /// and what they are bound to are checked each time.
    signed: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl ServiceAccounts {
    pub(super) fn new(mut config: ServiceAccountConfig) -> anyhow::Result<Self> {
        ensure!(!config.issuers.is_empty(), "service-account-issuer is required");
        if config.audiences.is_empty() {
            config.audiences = config.issuers.clone();
        }
        Ok(Self { config, signed: Mutex::new(HashMap::new()) })
    }

    pub(super) fn audiences(&self) -> &[String] {
        &self.config.audiences
    }

    /// The user and the asked-for audiences for which the token is good (the API server's own
    /// when none are asked for).
    pub(super) fn user(
        &self,
        source: &dyn ObjectSource,
        token: &str,
        asked: &[String],
        now: jiff::Timestamp,
    ) -> anyhow::Result<(UserInfo, Vec<String>)> {
        let issuer = token::unverified_issuer(token).context("not a JWT")?;
        let asked = if asked.is_empty() { &self.config.audiences } else { asked };
        if issuer == LEGACY_ISSUER {
            let claims = token::verify(&self.config.keys, token)?;
            let good_for: Vec<_> =
                asked.iter().filter(|a| self.config.audiences.contains(a)).cloned().collect();
            ensure!(!good_for.is_empty(), "the token is for another audience");
            return Ok((legacy_user(source, token, &claims, now)?, good_for));
        }
        ensure!(self.config.issuers.contains(&issuer), "the token has an unknown issuer");
        let claims = self.signed(token)?;
        claims.check_time(now.as_second())?;
        let good_for: Vec<_> = asked.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        ensure!(!good_for.is_empty(), "the token is for another audience");
        check_bound(source, &claims, now)?;
        Ok((user(&claims), good_for))
    }
}

impl ServiceAccounts {
    fn signed(&self, token: &str) -> anyhow::Result<Arc<Claims>> {
        let key: [u8; 32] = Sha256::digest(token).into();
        let known = self.signed.lock().expect("no holder of this lock panics").get(&key).cloned();
        if let Some(claims) = known {
            return Ok(claims);
        }
        let claims = Arc::new(Claims::from_value(token::verify(&self.config.keys, token)?)?);
        let mut signed = self.signed.lock().expect("no holder of this lock panics");
        if signed.len() >= REMEMBERED {
            signed.clear();
        }
        signed.insert(key, claims.clone());
        Ok(claims)
    }
}

fn check_bound(
    source: &dyn ObjectSource,
    claims: &Claims,
    now: jiff::Timestamp,
) -> anyhow::Result<()> {
    let k = &claims.kubernetes;
    let namespace = k.namespace.as_str();
    alive(source, "serviceaccounts", namespace, &k.serviceaccount, now)?;
    if let Some(secret) = &k.secret {
        alive(source, "secrets", namespace, secret, now)?;
    }
    if let Some(pod) = &k.pod {
        alive(source, "pods", namespace, pod, now)?;
    } else if let Some(node) = &k.node {
        alive(source, "nodes", "", node, now)?;
    }
    Ok(())
}

fn alive(
    source: &dyn ObjectSource,
    resource: &str,
    namespace: &str,
    bound: &BoundObject,
    now: jiff::Timestamp,
) -> anyhow::Result<()> {
    let object = source
        .get(&GroupResource::new("", resource), namespace, &bound.name)
        .with_context(|| format!("the token is bound to one of {resource} that is gone"))?;
    ensure!(
        object["metadata"]["uid"] == bound.uid.as_str(),
        "the token is bound to one of {resource} that was replaced"
    );
    if let Some(deleted) = object["metadata"]["deletionTimestamp"].as_str() {
        let deleted: jiff::Timestamp = deleted.parse().context("bad deletionTimestamp")?;
        ensure!(
            deleted.as_second() >= now.as_second() - DELETION_LEEWAY_SECONDS,
            "the token is bound to one of {resource} that is deleted"
        );
    }
    Ok(())
}

fn user(claims: &Claims) -> UserInfo {
    let k = &claims.kubernetes;
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("{EXTRA}{key}"), vec![value.to_owned()]);
        }
    };
    if let Some(pod) = &k.pod {
        add("pod-name", &pod.name);
        add("pod-uid", &pod.uid);
    }
    if let Some(node) = &k.node {
        add("node-name", &node.name);
        add("node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        add("credential-id", &format!("JTI={}", claims.jti));
    }
    UserInfo { extra, ..base_user(&k.namespace, &k.serviceaccount.name, &k.serviceaccount.uid) }
}

fn base_user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ],
        extra: BTreeMap::new(),
    }
}

/// Tokens without an end that live in a Secret: good for as long as that Secret holds them.
fn legacy_user(
    source: &dyn ObjectSource,
    token: &str,
    claims: &Value,
    now: jiff::Timestamp,
) -> anyhow::Result<UserInfo> {
    let claim = |key: &str| {
        claims[format!("{LEGACY_ISSUER}/{key}")].as_str().with_context(|| format!("no claim {key}"))
    };
    let (namespace, secret) = (claim("namespace")?, claim("secret.name")?);
    let bound = BoundObject {
        name: claim("service-account.name")?.to_owned(),
        uid: claim("service-account.uid")?.to_owned(),
    };
    let user = base_user(namespace, &bound.name, &bound.uid);
    ensure!(claims["sub"] == user.name.as_str(), "the subject is not the ServiceAccount");
    let object = source
        .get(&GroupResource::new("", "secrets"), namespace, secret)
        .context("the token's Secret is gone")?;
    ensure!(object["metadata"]["deletionTimestamp"].is_null(), "the token's Secret is deleted");
    let kept = object["data"]["token"].as_str().unwrap_or_default();
    let kept = base64::engine::general_purpose::STANDARD.decode(kept).unwrap_or_default();
    if kept != token.as_bytes() {
        bail!("the token is no longer the Secret's");
    }
    alive(source, "serviceaccounts", namespace, &bound, now)?;
    Ok(user)
}
