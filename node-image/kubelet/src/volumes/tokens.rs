//! ServiceAccount tokens for projected volumes: asked for, kept, and asked for again before
//! they expire.

use std::collections::HashMap;
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::Api;
use kube::api::PostParams;

use crate::node::Node;
use crate::spec::{containers, security};

#[derive(Clone)]
struct Token {
    text: String,
    issued: Timestamp,
    expires: Timestamp,
}

impl Token {
    /// After 80 % of its life, or a day, a token is replaced.
    fn is_due(&self, now: Timestamp) -> bool {
        let age = now.duration_since(self.issued);
        let life = self.expires.duration_since(self.issued);
        age > SignedDuration::from_hours(24) || age.as_secs() * 5 >= life.as_secs() * 4
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    audience: Option<String>,
    seconds: i64,
}

/// The tokens of all pods on this node, in memory only.
#[derive(Default)]
pub struct Tokens {
    held: Mutex<HashMap<Key, Token>>,
}

/// A token's file: only its owner may read it, unless another mode is asked for or the pod has
/// an fsGroup. Containers that do not run as root need to read it too.
pub fn file_mode(pod: &Pod, mode: u32) -> u32 {
    let group = containers::spec(pod).security_context.as_ref().and_then(|c| c.fs_group);
    let users = containers::app(pod).iter().filter_map(|c| security::run_as_user(pod, c));
    match group {
        Some(_) => 0o640,
        None if users.count() == 0 => mode,
        None => mode | 0o044,
    }
}

impl Tokens {
    /// A valid token for the pod.
    ///
    /// # Errors
    /// When the API server gives none and the one at hand has expired.
    pub async fn get(
        &self,
        node: &Node,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let seconds = source.expiration_seconds.unwrap_or(3600);
        let pod_uid = containers::uid(pod).to_owned();
        let key = Key { pod_uid, audience: source.audience.clone(), seconds };
        let now = Timestamp::now();
        let held = self.held.lock().expect("no holder panics").get(&key).cloned();
        if let Some(token) = held.as_ref().filter(|t| !t.is_due(now)) {
            return Ok(token.text.clone());
        }
        match request(node, pod, source, seconds).await {
            Ok(token) => {
                let text = token.text.clone();
                self.held.lock().expect("no holder panics").insert(key, token);
                Ok(text)
            }
            // Better the old one than none while the API server is away.
            Err(error) => match held.filter(|t| t.expires > now) {
                Some(token) => {
                    tracing::warn!(
                        pod.name = containers::name(pod),
                        "keeping the old token: {error}"
                    );
                    Ok(token.text)
                }
                None => Err(error),
            },
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.held.lock().expect("no holder panics").retain(|key, _| key.pod_uid != pod_uid);
    }
}

async fn request(
    node: &Node,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
    seconds: i64,
) -> Result<Token, String> {
    let account = containers::spec(pod).service_account_name.as_deref().unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(node.client.clone(), containers::namespace(pod));
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    let spec = TokenRequestSpec {
        audiences: source.audience.clone().filter(|a| !a.is_empty()).into_iter().collect(),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(seconds),
    };
    let request = TokenRequest { spec, ..Default::default() };
    let issued = Timestamp::now();
    let answer = api
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .map_err(|e| format!("failed to fetch token: {e}"))?;
    let status = answer.status.ok_or("failed to fetch token: the answer has none")?;
    Ok(Token { text: status.token, issued, expires: status.expiration_timestamp.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_in_time() {
        let issued = Timestamp::from_second(1_000_000).unwrap();
        let at = |seconds: i64| issued + SignedDuration::from_secs(seconds);
        let hour = Token { text: String::new(), issued, expires: at(3600) };
        assert!(!hour.is_due(at(2879)) && hour.is_due(at(2880)));
        let year = Token { expires: at(365 * 86400), ..hour };
        assert!(!year.is_due(at(86400)) && year.is_due(at(86401)));
    }
}
