//! Identity headers of a trusted front proxy (`--requestheader-*`).
//!
//! Headers are believed only from a peer whose certificate was issued by the front proxies' own
//! authority, and (when names are configured) carries one of them. Source: Kubernetes
//! documentation, "Configure the aggregation layer: authenticating proxy".

use http::HeaderMap;
use machinery::UserInfo;
use rustls_pki_types::CertificateDer;

use super::x509::{ClientAuthority, subject};

/// How to read the front proxy's headers.
#[derive(Clone, Debug, Default)]
pub struct RequestHeaderConfig {
    /// `--requestheader-client-ca-file`, PEM.
    pub client_ca_pem: Vec<u8>,
    /// `--requestheader-allowed-names`: common names; empty allows any.
    pub allowed_names: Vec<String>,
    /// `--requestheader-username-headers`, such as `X-Remote-User`.
    pub username_headers: Vec<String>,
    /// `--requestheader-uid-headers`.
    pub uid_headers: Vec<String>,
    /// `--requestheader-group-headers`, such as `X-Remote-Group`.
    pub group_headers: Vec<String>,
    /// `--requestheader-extra-headers-prefix`, such as `X-Remote-Extra-`.
    pub extra_header_prefixes: Vec<String>,
}

pub(super) struct RequestHeader {
    authority: ClientAuthority,
    config: RequestHeaderConfig,
}

impl RequestHeader {
    pub(super) fn new(config: RequestHeaderConfig) -> anyhow::Result<Self> {
        let authority = ClientAuthority::new(&config.client_ca_pem)
            .map_err(|e| e.context("request-header client CA file"))?;
        Ok(Self { authority, config })
    }

    pub(super) fn user(
        &self,
        headers: &HeaderMap,
        chain: &[CertificateDer<'_>],
    ) -> Option<UserInfo> {
        let name = first(headers, &self.config.username_headers)?;
        self.authority.verify(chain).ok()?;
        let (proxy, _) = subject(chain.first()?).ok()?;
        let allowed = &self.config.allowed_names;
        if !allowed.is_empty() && !allowed.contains(&proxy.name) {
            return None;
        }
        let mut user = UserInfo {
            name,
            uid: first(headers, &self.config.uid_headers).unwrap_or_default(),
            groups: self.config.group_headers.iter().flat_map(|h| all(headers, h)).collect(),
            ..UserInfo::default()
        };
        for prefix in &self.config.extra_header_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for name in headers.keys() {
                if let Some(key) = name.as_str().strip_prefix(&prefix) {
                    let key = crate::impersonation::unescape_key(key);
                    user.extra.entry(key).or_default().extend(all(headers, name.as_str()));
                }
            }
        }
        Some(user)
    }
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names.iter().find_map(|name| all(headers, name).into_iter().find(|value| !value.is_empty()))
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values.filter_map(|v| std::str::from_utf8(v.as_bytes()).ok()).map(str::to_owned).collect()
}
