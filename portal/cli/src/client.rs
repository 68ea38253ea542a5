//! Requests to the REST API.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use ureq::http::Request;

use crate::args::Cli;
use crate::config::{self, Config};
use crate::failure::Failure;

/// A portal and how to sign in to it.
pub struct Client {
    agent: ureq::Agent,
    server: String,
    token: Option<String>,
}

impl Client {
    /// For a command of somebody who is signed in.
    pub fn signed_in(cli: &Cli) -> Result<Self, Failure> {
        let (server, token) = credentials(cli.server.clone(), cli.token.clone(), config::load()?)?;
        Ok(Self::new(&server, Some(token)))
    }

    /// With or without a token.
    pub fn new(server: &str, token: Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .user_agent(concat!("marina/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), server: server.trim_end_matches('/').to_owned(), token }
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send("GET", path, None)
    }

    /// Sends a request; the answer is JSON, or null when it has no body.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let text = self.text(method, path, body)?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&text).context("the portal's answer is not JSON")?)
    }

    /// Sends a request; the answer is text.
    pub fn text(&self, method: &str, path: &str, body: Option<&Value>) -> Result<String, Failure> {
        let url = format!("{}/api/v1{path}", self.server);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                body.to_string()
            }
            None => String::new(),
        };
        let request = request.body(body).with_context(|| format!("{url} is no address"))?;
        let answer = self.agent.run(request);
        let mut answer = answer.with_context(|| format!("cannot reach {}", self.server))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().context("the answer broke off")?;
        if status >= 400 {
            let problem = serde_json::from_str(&text).unwrap_or(Value::Null);
            return Err(Failure::Refused { status, problem });
        }
        Ok(text)
    }

    /// Server-sent events: calls `each` with the name and data of every event until it returns false.
    pub fn follow(
        &self,
        path: &str,
        mut each: impl FnMut(&str, &Value) -> bool,
    ) -> Result<(), Failure> {
        let url = format!("{}/api/v1{path}", self.server);
        let token = self.token.as_deref().unwrap_or_default();
        let request = self.agent.get(&url).header("authorization", format!("Bearer {token}"));
        let answer = request.call().with_context(|| format!("cannot reach {}", self.server))?;
        let status = answer.status().as_u16();
        if status >= 400 {
            let text = answer.into_body().read_to_string().context("the answer broke off")?;
            let problem = serde_json::from_str(&text).unwrap_or(Value::Null);
            return Err(Failure::Refused { status, problem });
        }
        let mut name = String::new();
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            let line = line.context("the stream broke off")?;
            if let Some(event) = line.strip_prefix("event:") {
                name = event.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                let data = serde_json::from_str(data).context("an event is not JSON")?;
                if !each(&name, &data) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The portal to talk to and the token for it: what the command line says, else what the last login
/// kept. The kept token goes to the portal that it is of and to no other.
fn credentials(
    server: Option<String>,
    token: Option<String>,
    kept: Config,
) -> Result<(String, String), Failure> {
    let server = server.or_else(|| kept.server.clone()).ok_or(Failure::NotSignedIn(None))?;
    let same = |other: &str| other.trim_end_matches('/') == server.trim_end_matches('/');
    let own = kept.token.filter(|_| kept.server.as_deref().is_some_and(same));
    match token.or(own) {
        Some(token) => Ok((server, token)),
        None => Err(Failure::NotSignedIn(Some(server))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_token_goes_to_its_own_server_only() {
        let kept = || Config {
            server: Some("https://a.example".to_owned()),
            token: Some("kept".to_owned()),
            ..Config::default()
        };
        let of = |server: Option<&str>, token: Option<&str>| {
            credentials(server.map(str::to_owned), token.map(str::to_owned), kept())
        };
        let pair = |server: &str, token: &str| (server.to_owned(), token.to_owned());
        assert_eq!(of(None, None).unwrap(), pair("https://a.example", "kept"));
        assert_eq!(of(Some("https://a.example/"), None).unwrap().1, "kept");
        let other = "https://b.example";
        assert_eq!(of(Some(other), Some("given")).unwrap(), pair(other, "given"));
        let refused = of(Some(other), None).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "not signed in to https://b.example; run `marina login --server https://b.example`"
        );
        assert_eq!(refused.exit_code(), 4);
    }
}
