//! Authenticators, tried in upstream's order: front proxy, client certificate, bearer token,
//! anonymous.

use std::sync::Arc;

use http::{HeaderMap, header};
use machinery::{ObjectSource, Status, UserInfo};
use rustls_pki_types::CertificateDer;

mod bearer;
mod bootstrap;
mod request_header;
mod service_account;
mod token_file;
mod x509;

pub use request_header::RequestHeaderConfig;
pub use service_account::ServiceAccountConfig;

use request_header::RequestHeader;
use service_account::ServiceAccounts;
use token_file::TokenFile;

/// Group of every user that proved who he is.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of every user that did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of the user without credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// Which ways of proving an identity are on.
#[derive(Default)]
pub struct AuthConfig {
    /// `--anonymous-auth`: requests without credentials run as `system:anonymous`.
    pub anonymous: bool,
    /// `--client-ca-file`, PEM. With `None`, client certificates name nobody.
    pub client_ca_pem: Option<Vec<u8>>,
    /// `--requestheader-*`: identity headers that a trusted front proxy sets.
    pub request_header: Option<RequestHeaderConfig>,
    /// `--token-auth-file`: the text of the file.
    pub token_file: Option<String>,
    /// `--service-account-*`: the tokens of ServiceAccounts.
    pub service_account: Option<ServiceAccountConfig>,
    /// `--enable-bootstrap-token-auth`.
    pub bootstrap_tokens: bool,
}

/// Finds out who sends a request.
pub struct Authenticator {
    anonymous: bool,
    client_certificates: Option<x509::ClientCertificates>,
    request_header: Option<RequestHeader>,
    token_file: Option<TokenFile>,
    service_accounts: Option<ServiceAccounts>,
    bootstrap_tokens: bool,
    source: Arc<dyn ObjectSource>,
}

impl Authenticator {
    /// Reads keys and certificates.
    ///
    /// # Errors
    /// When a PEM file holds nothing usable; the text says which option is at fault.
    pub fn new(config: AuthConfig, source: Arc<dyn ObjectSource>) -> anyhow::Result<Self> {
        Ok(Self {
            anonymous: config.anonymous,
            client_certificates: config
                .client_ca_pem
                .map(|pem| x509::ClientCertificates::new(&pem))
                .transpose()?,
            request_header: config.request_header.map(RequestHeader::new).transpose()?,
            token_file: config.token_file.map(|text| TokenFile::parse(&text)).transpose()?,
            service_accounts: config.service_account.map(ServiceAccounts::new).transpose()?,
            bootstrap_tokens: config.bootstrap_tokens,
            source,
        })
    }

    /// The user behind a request, or `None` when it carries no credentials and anonymous requests
    /// are off (to be answered with 401).
    ///
    /// `peer_certs` is the chain that the peer sent, leaf first; empty without a client certificate.
    /// The TLS layer has verified that the peer holds the leaf's key. Everything else is verified
    /// here.
    ///
    /// # Errors
    /// 401 for credentials that are present but not valid.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        peer_certs: &[CertificateDer<'_>],
    ) -> Result<Option<UserInfo>, Status> {
        let mut refused = false;
        if let Some(front_proxy) = &self.request_header
            && let Some(user) = front_proxy.user(headers, peer_certs)
        {
            return Ok(Some(authenticated(user)));
        }
        if let Some(client_certificates) = &self.client_certificates
            && !peer_certs.is_empty()
        {
            match client_certificates.user(peer_certs) {
                Ok(user) => return Ok(Some(authenticated(user))),
                Err(error) => {
                    tracing::debug!("A client certificate names no user: {error}.");
                    refused = true;
                }
            }
        }
        if let Some(token) = bearer::token(headers) {
            return match self.authenticate_token(&token, &[]) {
                Ok((user, _)) => Ok(Some(user)),
                Err(error) => {
                    tracing::debug!("A bearer token was refused: {error}.");
                    Err(Status::unauthorized())
                }
            };
        }
        if refused {
            return Err(Status::unauthorized());
        }
        Ok(self.anonymous.then(|| UserInfo {
            name: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..UserInfo::default()
        }))
    }

    /// The user whom a bearer token names, and the audiences of `audiences` for which it is good.
    /// With no `audiences`, the API server's own are asked for.
    ///
    /// # Errors
    /// Why the token is refused. Never holds the token.
    pub fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> anyhow::Result<(UserInfo, Vec<String>)> {
        if let Some(user) = self.token_file.as_ref().and_then(|file| file.user(token)) {
            return Ok((authenticated(user), self.default_audiences(audiences)));
        }
        if self.bootstrap_tokens
            && let Some((id, secret)) = bootstrap::split(token)
        {
            let user = bootstrap::user(&*self.source, id, secret, jiff::Timestamp::now())?;
            return Ok((authenticated(user), self.default_audiences(audiences)));
        }
        let Some(service_accounts) = &self.service_accounts else {
            anyhow::bail!("no authenticator accepts bearer tokens");
        };
        let (user, good_for) =
            service_accounts.user(&*self.source, token, audiences, jiff::Timestamp::now())?;
        Ok((authenticated(user), good_for))
    }

    /// The audiences that the API server itself answers to.
    pub fn api_audiences(&self) -> &[String] {
        self.service_accounts.as_ref().map_or(&[], |s| s.audiences())
    }

    fn default_audiences(&self, asked: &[String]) -> Vec<String> {
        let own = self.api_audiences();
        if asked.is_empty() {
            return own.to_vec();
        }
        asked.iter().filter(|a| own.contains(a)).cloned().collect()
    }
}

/// True when the request carries credentials that must not be handed on to a proxied backend.
pub fn is_credential_header(name: &http::HeaderName) -> bool {
    *name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-")
}

fn authenticated(mut user: UserInfo) -> UserInfo {
    if !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}
