//! Clients that act as ServiceAccounts, against an API server that issues, forgets and refuses
//! tokens: every request gets through with a token that is good at that moment.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use component::client::{Account, Accounts};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "/api/v1/namespaces/kube-system/serviceaccounts";

#[derive(Default)]
struct State {
    accounts: HashSet<String>,
    /// Tokens that are good, with their account and end.
    tokens: HashMap<String, (String, Timestamp)>,
    issued: usize,
    /// Accounts that get no token.
    forbidden: HashSet<String>,
    /// Answers a TokenRequest with half of an answer.
    garbled: bool,
    /// Bodies that came with a good token.
    received: Vec<Value>,
    unauthorized: usize,
    agents: HashSet<String>,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "code": code, "message": format!("the server says {reason}")});
    (code, status)
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let bearer = parts.headers.get(header::AUTHORIZATION).map(|v| v.to_str().unwrap());
        let (code, answer) = match bearer.map(|value| value.strip_prefix("Bearer ").unwrap()) {
            // The component itself: here it needs no credentials.
            None => self.issue(&parts.method, parts.uri.path(), &body),
            Some(token) => {
                let agent = parts.headers[header::USER_AGENT].to_str().unwrap();
                self.state().agents.insert(agent.to_owned());
                self.write(token, body)
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        response
    }

    fn issue(&self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let mut state = self.state();
        assert_eq!(method, Method::POST, "{path}");
        let Some(name) = path.strip_prefix(NAMESPACE) else {
            return refusal(401, "Unauthorized");
        };
        let Some(name) = name.strip_prefix('/').and_then(|name| name.strip_suffix("/token")) else {
            state.accounts.insert(body["metadata"]["name"].as_str().unwrap().to_owned());
            return (201, body.clone());
        };
        if state.forbidden.contains(name) {
            return refusal(403, "Forbidden");
        }
        if !state.accounts.contains(name) {
            return refusal(404, "NotFound");
        }
        state.issued += 1;
        let token = format!("secret-{}", state.issued);
        if state.garbled {
            return (201, json!({"status": {"token": token}}));
        }
        let life = SignedDuration::from_secs(body["spec"]["expirationSeconds"].as_i64().unwrap());
        let until = Timestamp::now() + life;
        state.tokens.insert(token.clone(), (name.to_owned(), until));
        let mut answer = body.clone();
        answer["status"] = json!({"token": token, "expirationTimestamp": until.to_string()});
        (201, answer)
    }

    fn write(&self, token: &str, body: Value) -> (u16, Value) {
        let mut state = self.state();
        let good = state.tokens.get(token).is_some_and(|(_, until)| *until > Timestamp::now());
        if !good {
            state.unauthorized += 1;
            return refusal(401, "Unauthorized");
        }
        state.received.push(body.clone());
        (201, body)
    }

    /// The account is deleted, and its tokens with it.
    fn delete(&self, name: &str) {
        let mut state = self.state();
        state.accounts.remove(name);
        state.tokens.retain(|_, (account, _)| account != name);
    }
}

async fn serve() -> (Server, Config, CancellationToken) {
    let server = Server::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = server.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let server = answering.clone();
            let service = service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            });
            tokio::spawn(async move {
                let http = auto::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(tcp), service).await;
            });
        }
    });
    (server, Config::new(url.parse().unwrap()), CancellationToken::new())
}

fn accounts(config: &Config, stop: &CancellationToken) -> Accounts {
    let issuer = component::client::from_config(config.clone(), "test").unwrap();
    Accounts::new(config, "test", "kube-system", issuer, stop.clone()).unwrap()
}

async fn ready(account: &Account) {
    let waiting = tokio::time::timeout(Duration::from_secs(10), account.ready());
    waiting.await.expect("the account gets its token");
}

async fn write(account: &Account, name: &str) -> Result<ConfigMap, kube::Error> {
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    let api: Api<ConfigMap> = Api::namespaced(account.client(), "ns");
    api.create(&PostParams::default(), &map).await
}

#[tokio::test]
async fn an_account_is_made_and_its_token_is_sent() {
    let (server, config, stop) = serve().await;
    let accounts = accounts(&config, &stop);
    let account = accounts.get("robot");
    // Nobody needs to wait first: the request itself does.
    write(&account, "a").await.unwrap();
    write(&accounts.get("robot"), "b").await.unwrap();
    let bulk: Api<ConfigMap> = Api::namespaced(account.separate_client(), "ns");
    bulk.create(&PostParams::default(), &ConfigMap::default()).await.unwrap();
    let state = server.state();
    assert_eq!(state.accounts, HashSet::from(["robot".to_owned()]));
    assert_eq!((state.issued, state.received.len(), state.unauthorized), (1, 3, 0));
    assert!(state.agents.iter().all(|agent| agent.starts_with("test/")));
    assert!(state.agents.iter().all(|agent| agent.ends_with("/robot")));
    stop.cancel();
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let (server, config, stop) = serve().await;
    let account = accounts(&config, &stop).with_lifetime(Duration::from_secs(1)).get("robot");
    let enough = async {
        while server.state().issued < 4 {
            write(&account, "a").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), enough).await.expect("tokens are renewed");
    assert_eq!(server.state().unauthorized, 0, "no request had a token that was over");
    stop.cancel();
}

#[tokio::test]
async fn a_refused_token_leads_to_one_new_token_and_no_lost_request() {
    let (server, config, stop) = serve().await;
    let account = accounts(&config, &stop).get("robot");
    ready(&account).await;
    server.delete("robot");
    let names: Vec<_> = (0..20).map(|n| format!("map-{n}")).collect();
    let writes = names.iter().map(|name| write(&account, name));
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    let state = server.state();
    assert_eq!(state.issued, 2, "many refusals, one new token");
    assert!(state.accounts.contains("robot"), "the account was made again");
    let received: HashSet<_> =
        state.received.iter().map(|map| map["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(received.len(), names.len(), "each body arrived once more, whole");
    stop.cancel();
}

#[tokio::test]
async fn an_account_without_a_token_holds_up_no_other() {
    let (server, config, stop) = serve().await;
    server.state().forbidden.insert("late".to_owned());
    let accounts = accounts(&config, &stop);
    let (late, fine) = (accounts.get("late"), accounts.get("fine"));
    ready(&fine).await;
    write(&fine, "a").await.unwrap();
    let soon = tokio::time::timeout(Duration::from_millis(500), late.ready()).await;
    assert!(soon.is_err(), "there is no token yet");
    server.state().forbidden.clear();
    ready(&late).await;
    write(&late, "b").await.unwrap();
    stop.cancel();
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_token_gets_into_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // All tasks of this test run on its thread.
    let _guard = tracing::subscriber::set_default(subscriber);
    let (server, config, stop) = serve().await;
    server.state().garbled = true;
    let account = accounts(&config, &stop).get("robot");
    let soon = tokio::time::timeout(Duration::from_millis(500), account.ready()).await;
    assert!(soon.is_err(), "half an answer is none");
    server.state().garbled = false;
    ready(&account).await;
    server.delete("robot");
    write(&account, "a").await.unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("waiting for the API server to issue tokens"), "{text}");
    assert!(text.contains("refused a ServiceAccount's token"), "{text}");
    assert!(!text.contains("secret-"), "{text}");
    stop.cancel();
}
