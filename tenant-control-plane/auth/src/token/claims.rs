//! What a ServiceAccount token says. Source: KEP-1205 (bound tokens), KEP-4193 (node info).

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name and uid of an object that must still exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundObject {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The claim `kubernetes.io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kubernetes {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// The node that a pod-bound token's pod runs on, or that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// The pod that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    /// The Secret that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    /// The ServiceAccount.
    pub serviceaccount: BoundObject,
    /// When the client should have fetched a newer token (Unix seconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// All claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom the token is for.
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// End of validity (Unix seconds).
    pub exp: i64,
    /// When it was issued (Unix seconds).
    #[serde(default)]
    pub iat: i64,
    /// Who issued it.
    pub iss: String,
    /// Unique identifier.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    /// Start of validity (Unix seconds).
    #[serde(default)]
    pub nbf: i64,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
}

/// Clock difference that is forgiven, in seconds (as in Go's `jwt` package).
const LEEWAY_SECONDS: i64 = 60;

impl Claims {
    /// Reads verified claims.
    ///
    /// # Errors
    /// When a claim is missing or the subject is not the ServiceAccount.
    pub fn from_value(value: Value) -> anyhow::Result<Self> {
        let claims: Self = serde_json::from_value(value).context("not a ServiceAccount's token")?;
        ensure!(claims.sub == claims.user_name(), "the subject is not the ServiceAccount");
        Ok(claims)
    }

    /// The user name that the claims stand for.
    pub fn user_name(&self) -> String {
        let k = &self.kubernetes;
        format!("system:serviceaccount:{}:{}", k.namespace, k.serviceaccount.name)
    }

    /// Checks the period of validity.
    ///
    /// # Errors
    /// When the token is not yet or no longer valid.
    pub fn check_time(&self, now: i64) -> anyhow::Result<()> {
        ensure!(now <= self.exp.saturating_add(LEEWAY_SECONDS), "the token has expired");
        ensure!(now >= self.nbf.saturating_sub(LEEWAY_SECONDS), "the token is not valid yet");
        ensure!(now >= self.iat.saturating_sub(LEEWAY_SECONDS), "the token is from the future");
        Ok(())
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}
