//! Registry credentials out of `imagePullSecrets` (`.dockerconfigjson` and `.dockercfg`).

use std::collections::BTreeMap;

use base64::Engine as _;
use cri::pb::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

/// The registry's host and the repository path of an image reference.
fn split(image: &str) -> (&str, &str) {
    match image.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => ("docker.io", image),
    }
}

fn matches(server: &str, image: &str) -> bool {
    let server = server.trim_start_matches("https://").trim_start_matches("http://");
    let (host, prefix) = server.split_once('/').unwrap_or((server, ""));
    let host = if host == "index.docker.io" || host == "registry-1.docker.io" {
        "docker.io"
    } else {
        host
    };
    let prefix = prefix.trim_end_matches('/');
    let (image_host, path) = split(image);
    let host_fits = match host.strip_prefix("*.") {
        Some(domain) => image_host.strip_suffix(domain).is_some_and(|h| h.ends_with('.')),
        None => host == image_host,
    };
    let versioned = matches!(prefix, "v1" | "v2" | "");
    host_fits && (versioned || path.starts_with(prefix))
}

/// Credentials from one secret for an image, most specific first.
pub fn credentials(secret: &Secret, image: &str) -> Vec<AuthConfig> {
    let data = secret.data.as_ref();
    let get = |key: &str| data.and_then(|d| d.get(key)).map(|b| b.0.as_slice());
    let auths = match (get(".dockerconfigjson"), get(".dockercfg")) {
        (Some(text), _) => {
            serde_json::from_slice::<DockerConfig>(text).map(|c| c.auths).unwrap_or_default()
        }
        (None, Some(text)) => serde_json::from_slice(text).unwrap_or_default(),
        (None, None) => BTreeMap::new(),
    };
    let mut found: Vec<_> =
        auths.into_iter().filter(|(server, _)| matches(server, image)).collect();
    found.sort_by_key(|(server, _)| std::cmp::Reverse(server.len()));
    found.into_iter().map(|(server, entry)| auth(server, entry)).collect()
}

fn auth(server: String, entry: Entry) -> AuthConfig {
    let decoded = base64::engine::general_purpose::STANDARD.decode(&entry.auth).unwrap_or_default();
    let decoded = String::from_utf8_lossy(&decoded).into_owned();
    let (user, password) = decoded.split_once(':').unwrap_or_default();
    let or = |own: String, other: &str| if own.is_empty() { other.to_owned() } else { own };
    AuthConfig {
        username: or(entry.username, user),
        password: or(entry.password, password),
        server_address: server,
        identity_token: entry.identitytoken,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_registry_is_used() {
        let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"},
            "reg.example:5000": {"username": "a", "password": "b"}}}"#;
        let data = BTreeMap::from([(
            ".dockerconfigjson".to_owned(),
            k8s_openapi::ByteString(config.into()),
        )]);
        let secret = Secret { data: Some(data), ..Default::default() };
        let found = credentials(&secret, "busybox:1");
        assert_eq!((found[0].username.as_str(), found[0].password.as_str()), ("u", "p"));
        assert_eq!(credentials(&secret, "reg.example:5000/x/y:1")[0].username, "a");
        assert!(credentials(&secret, "quay.io/x/y").is_empty());
    }
}
