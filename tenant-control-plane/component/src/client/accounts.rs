//! Clients that act as ServiceAccounts, with tokens that the API server issues (TokenRequest).
//!
//! ```text
//!  Keeper (one task per account) ──TokenRequest──► API server, as the component itself
//!     │ token, renewed at four fifths of its life          ▲
//!     ▼                                                    │ Authorization: Bearer …
//!  Tokens ──────────► client of the account ───────────────┘ (no client certificate)
//!     ▲                     │ 401: the account was deleted, say
//!     └──── refused ◄───────┘ the keeper asks anew, the request is sent once more
//! ```
//!
//! All accounts share one connection; no client certificate is ever offered on it, so that a request
//! without a token is nobody's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use kube::Client;
use kube::client::{Body, ConfigExt};
use kube::config::AuthInfo;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service, ServiceBuilder};

use super::Transport;
use super::tokens::{Keeper, Tokens};

/// Life of a token that is asked for, as upstream's. A server may grant less.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The ServiceAccounts of one namespace that a component acts as.
pub struct Accounts {
    namespace: String,
    issuer: Client,
    /// Where the API server is, without credentials.
    config: kube::Config,
    transport: Transport,
    lifetime: Duration,
    shutdown: CancellationToken,
    known: Mutex<HashMap<String, Account>>,
    /// Set by the first account that has to wait, so that the log says so once.
    waiting: Arc<std::sync::atomic::AtomicBool>,
}

impl Accounts {
    /// Accounts in `namespace` at the API server of `config`. `issuer`, the component's own client,
    /// must be allowed to create tokens of ServiceAccounts, and ServiceAccounts. Renewal ends with
    /// `shutdown`.
    ///
    /// # Errors
    /// When the CA certificate in the configuration cannot be used.
    pub fn new(
        config: &kube::Config,
        component: &str,
        namespace: &str,
        issuer: Client,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut config = config.clone();
        config.auth_info = AuthInfo::default();
        Ok(Self {
            namespace: namespace.to_owned(),
            issuer,
            transport: Transport::new(&config, component)?,
            config,
            lifetime: LIFETIME,
            shutdown,
            known: Mutex::default(),
            waiting: Arc::default(),
        })
    }

    /// Asks for tokens of this life instead of an hour.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// An account. When it is first asked for, a task starts that gets its token and renews it; the
    /// ServiceAccount is created if there is none.
    pub fn get(&self, name: &str) -> Account {
        let mut known = self.known.lock().expect("no code panics while it holds this lock");
        if let Some(account) = known.get(name) {
            return account.clone();
        }
        let tokens = Arc::new(Tokens::new(&self.namespace, name));
        let keeper = Keeper {
            issuer: self.issuer.clone(),
            lifetime: self.lifetime,
            tokens: tokens.clone(),
            waiting: self.waiting.clone(),
        };
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { () = shutdown.cancelled() => {}, () = keeper.run() => {} }
        });
        let transport = named(self.transport.clone(), name);
        let account = Account { tokens, transport, config: self.config.clone() };
        known.insert(name.to_owned(), account.clone());
        account
    }
}

/// Names the account in User-Agent, for whoever reads the server's logs.
fn named(mut transport: Transport, name: &str) -> Transport {
    let agent = [transport.agent.as_bytes(), b"/", name.as_bytes()].concat();
    if let Ok(agent) = HeaderValue::from_bytes(&agent) {
        transport.agent = agent;
    }
    transport
}

/// One ServiceAccount's access to the API.
#[derive(Clone)]
pub struct Account {
    tokens: Arc<Tokens>,
    transport: Transport,
    config: kube::Config,
}

impl Account {
    /// A client over the connection that all accounts share. Requests wait a few seconds for a token
    /// and fail when none comes.
    pub fn client(&self) -> Client {
        self.client_over(self.transport.clone())
    }

    /// A client over a connection of its own, for bulk work.
    pub fn separate_client(&self) -> Client {
        self.client_over(self.transport.separate())
    }

    fn client_over(&self, transport: Transport) -> Client {
        let service = ServiceBuilder::new()
            .layer(self.config.base_uri_layer())
            .service(Authenticated { transport, tokens: self.tokens.clone() });
        Client::new(service, self.config.default_namespace.clone())
    }

    /// Waits, for as long as it takes, until the account has a token.
    pub async fn ready(&self) {
        self.tokens.ready().await;
    }
}

/// Sends requests with the account's token.
#[derive(Clone)]
struct Authenticated {
    transport: Transport,
    tokens: Arc<Tokens>,
}

impl Service<Request<Body>> for Authenticated {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.transport.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut transport, tokens) = (self.transport.clone(), self.tokens.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let again = body.try_clone().map(|body| Request::from_parts(parts.clone(), body));
            let mut send = |mut request: Request<Body>, token: HeaderValue| {
                request.headers_mut().insert(header::AUTHORIZATION, token);
                transport.call(request)
            };
            let token = tokens.usable().await?;
            let answer = send(Request::from_parts(parts, body), token.header).await?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            // The request was not carried out, so it may be sent once more.
            tokens.refuse(token.number);
            match (again, tokens.usable().await) {
                (Some(request), Ok(fresh)) => send(request, fresh.header).await,
                _ => Ok(answer),
            }
        })
    }
}
