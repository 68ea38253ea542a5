//! A ServiceAccount's token: what requests take, and the task that keeps it fresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderValue, Request};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long a request waits for a token.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one attempt to get a token may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// First and longest delay between attempts.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(5);
/// A token that lived this long before it was refused is no sign of a server that refuses all.
const STEADY: Duration = Duration::from_secs(60);
/// Failures in a row, over half a minute, after which waiting is no longer normal.
const WORRY: u32 = 16;

/// Waits before attempts, doubling.
#[derive(Debug)]
struct Delays(Duration);

impl Delays {
    fn new() -> Self {
        Self(FIRST_DELAY)
    }

    fn pause(&mut self) -> Duration {
        let delay = self.0;
        self.0 = (delay * 2).min(LAST_DELAY);
        delay
    }
}

/// A token as it goes into a request. Its header is marked as sensitive, so that it is never printed.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// Counts this account's tokens, from 1.
    pub(super) number: u64,
    /// Value of `Authorization`.
    pub(super) header: HeaderValue,
}

/// No token came in time.
#[derive(Debug, thiserror::Error)]
#[error("ServiceAccount {account} has no token: {why}")]
pub(super) struct NoToken {
    account: String,
    why: String,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// Number of the latest token that the API server refused.
    refused: u64,
    /// Why the latest attempt to get a token failed.
    trouble: Option<String>,
}

impl State {
    fn usable(&self) -> Option<&Token> {
        self.token.as_ref().filter(|token| token.number > self.refused)
    }
}

/// The present token of one account.
#[derive(Debug)]
pub(super) struct Tokens {
    namespace: String,
    name: String,
    state: watch::Sender<State>,
}

impl Tokens {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        let state = watch::Sender::new(State::default());
        Self { namespace: namespace.to_owned(), name: name.to_owned(), state }
    }

    fn account(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Waits until there is a token.
    pub(super) async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.state.subscribe().wait_for(|state| state.usable().is_some()).await;
    }

    /// The present token, or the next one when there is none that the API server takes.
    pub(super) async fn usable(&self) -> Result<Token, NoToken> {
        self.usable_within(PATIENCE).await
    }

    async fn usable_within(&self, patience: Duration) -> Result<Token, NoToken> {
        let mut state = self.state.subscribe();
        let found = timeout(patience, state.wait_for(|state| state.usable().is_some())).await;
        if let Ok(Ok(state)) = found
            && let Some(token) = state.usable()
        {
            return Ok(token.clone());
        }
        let trouble = self.state.borrow().trouble.clone();
        let why = trouble.unwrap_or_else(|| "the API server has not answered yet".to_owned());
        Err(NoToken { account: self.account(), why })
    }

    /// Says that the API server did not take a token: nobody gets it any more, and the keeper asks
    /// for another.
    pub(super) fn refuse(&self, number: u64) {
        self.state.send_if_modified(|state| {
            let news = number > state.refused;
            state.refused = state.refused.max(number);
            news
        });
    }

    /// Waits until the present token is refused.
    async fn refused(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.usable().is_none()).await;
    }
}

/// Gets an account's tokens. One task per account, so that there is never more than one request.
pub(super) struct Keeper {
    /// The component's own client.
    pub(super) issuer: Client,
    pub(super) lifetime: Duration,
    pub(super) tokens: Arc<Tokens>,
    /// Whether the log already says that tokens are waited for.
    pub(super) waiting: Arc<AtomicBool>,
}

impl Keeper {
    /// Runs for ever.
    pub(super) async fn run(self) {
        let mut delays = Delays::new();
        let mut number = 0;
        loop {
            number += 1;
            let life = self.obtain(number).await;
            let since = Instant::now();
            tokio::select! {
                () = sleep(life * 4 / 5) => continue,
                () = self.tokens.refused() => {}
            }
            let account = self.tokens.account();
            tracing::info!(%account, "the API server refused a ServiceAccount's token, a new one is due");
            if since.elapsed() > STEADY {
                delays = Delays::new();
            }
            sleep(delays.pause()).await;
        }
    }

    /// Tries until there is a token, and returns how long it is good for.
    async fn obtain(&self, number: u64) -> Duration {
        let (mut delays, mut failures) = (Delays::new(), 0);
        loop {
            let error = match timeout(ATTEMPT, self.request()).await {
                Ok(Ok((header, life))) => {
                    self.tokens.state.send_modify(|state| {
                        state.token = Some(Token { number, header });
                        state.trouble = None;
                    });
                    let account = self.tokens.account();
                    tracing::debug!(%account, life_seconds = life.as_secs(), "a token was issued");
                    return life;
                }
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("no answer within {} s", ATTEMPT.as_secs()),
            };
            failures += 1;
            self.tell(failures, &error);
            self.tokens.state.send_modify(|state| state.trouble = Some(format!("{error:#}")));
            sleep(delays.pause()).await;
        }
    }

    /// An API server that is only starting is worth one sentence for all accounts together.
    fn tell(&self, failures: u32, error: &anyhow::Error) {
        let account = self.tokens.account();
        if failures >= WORRY && failures.is_power_of_two() {
            tracing::warn!(%account, failures, "a ServiceAccount gets no token: {error:#}");
        } else if !self.waiting.swap(true, Ordering::Relaxed) {
            tracing::info!(%account, "waiting for the API server to issue tokens: {error:#}");
        }
    }

    /// A token and how long it is good for. A missing ServiceAccount is created.
    async fn request(&self) -> anyhow::Result<(HeaderValue, Duration)> {
        let granted = match self.create_token().await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.create_account().await.context("creating the ServiceAccount")?;
                self.create_token().await
            }
            other => other,
        };
        let text = granted.context("asking for a token")?;
        // Neither the text nor a parser's error about it may get into a log.
        let granted: Option<TokenRequest> = serde_json::from_str(&text).ok();
        let status = granted.and_then(|granted| granted.status);
        let status = status.context("the answer to a TokenRequest has no token in it")?;
        let mut header = HeaderValue::try_from(format!("Bearer {}", status.token))
            .ok()
            .context("the token cannot be put into a header")?;
        header.set_sensitive(true);
        Ok((header, self.life(status.expiration_timestamp.0, Timestamp::now())))
    }

    /// How long a token is good for. Clocks may differ: it is never believed to be more than what
    /// was asked for, nor less than a sixth of it (an hour is asked for, and ten minutes are the
    /// least that the API grants).
    fn life(&self, until: Timestamp, now: Timestamp) -> Duration {
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        left.clamp(self.lifetime / 6, self.lifetime)
    }

    async fn create_token(&self) -> Result<String, kube::Error> {
        let path = format!("{}/{}/token", self.path(), self.tokens.name);
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": self.lifetime.as_secs()},
        });
        self.post(&path, &request).await
    }

    async fn create_account(&self) -> Result<(), kube::Error> {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": self.tokens.namespace, "name": self.tokens.name},
        });
        match self.post(&self.path(), &account).await {
            Ok(_) => Ok(()),
            // Another replica was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/serviceaccounts", self.tokens.namespace)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<String, kube::Error> {
        let request = Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        self.issuer.request_text(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> HeaderValue {
        let mut header = HeaderValue::from_static("Bearer secret");
        header.set_sensitive(true);
        header
    }

    #[tokio::test]
    async fn a_refused_token_is_given_to_nobody() {
        let tokens = Tokens::new("kube-system", "a");
        tokens.state.send_modify(|s| s.token = Some(Token { number: 1, header: header() }));
        assert_eq!(tokens.usable().await.unwrap().number, 1);
        tokens.refuse(1);
        tokens.refused().await;
        tokens.state.send_modify(|s| s.token = Some(Token { number: 2, header: header() }));
        // A late answer to a request with the old token says nothing about the new one.
        tokens.refuse(1);
        assert_eq!(tokens.usable().await.unwrap().number, 2);
        assert!(!format!("{tokens:?}").contains("secret"));
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_ever_and_says_why_it_failed() {
        let tokens = Tokens::new("kube-system", "a");
        let failure =
            async || tokens.usable_within(Duration::from_millis(10)).await.unwrap_err().to_string();
        let error = failure().await;
        assert!(error.contains("kube-system/a has no token"), "{error}");
        tokens.state.send_modify(|s| s.trouble = Some("forbidden".to_owned()));
        assert!(failure().await.ends_with("forbidden"));
    }

    #[test]
    fn delays_double_up_to_a_limit() {
        let mut delays = Delays::new();
        let all: Vec<_> = (0..8).map(|_| delays.pause().as_millis()).collect();
        assert_eq!(all, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
