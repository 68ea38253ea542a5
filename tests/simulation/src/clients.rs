//! What clients do: requests, watches, leases, compactions. All of it is noted in the history.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_api::client::{Client, connect_through};
use etcd_api::pb::authpb::{Permission, UserAddOptions};
use etcd_api::pb::etcdserverpb::auth_client::AuthClient;
use etcd_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::pb::etcdserverpb::request_op::Request as Op;
use etcd_api::pb::etcdserverpb::watch_request::RequestUnion;
use etcd_api::pb::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserDeleteRequest, AuthUserGrantRoleRequest, CompactionRequest, Compare,
    DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
};
use etcd_api::pb::mvccpb::Event;
use hyper_util::rt::TokioIo;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::history::{Call, History, Lease, Message, Moment, Outcome, Shared, Watched};
use crate::model::{Request, Response};
use crate::net::{Address, HostId, Net, Stream};

/// The host that all clients are on.
pub const HOST: HostId = 0;
/// Where members serve clients.
pub const CLIENT_PORT: u16 = 2379;
/// Where members serve each other.
pub const PEER_PORT: u16 = 2380;

const PATIENCE: Duration = Duration::from_secs(4);
const KEYS: u32 = 6;

/// A member's URL. The address is a name: nothing listens there.
pub fn url(host: HostId, port: u16) -> String {
    format!("http://127.0.1.{host}:{port}")
}

/// Whom a URL means.
pub fn host_of(url: &str) -> Option<Address> {
    let (host, port) = url.strip_prefix("http://127.0.1.")?.split_once(':')?;
    Some((host.parse().ok()?, port.trim_end_matches('/').parse().ok()?))
}

/// Dials through the simulated network.
#[derive(Clone)]
pub struct Connector {
    /// The network.
    pub net: Net,
    /// Who dials.
    pub from: HostId,
}

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = std::io::Error;
    type Future = futures::future::BoxFuture<'static, std::io::Result<TokioIo<Stream>>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let Self { net, from } = self.clone();
        Box::pin(async move {
            let to = host_of(&uri.to_string()).ok_or(std::io::ErrorKind::AddrNotAvailable)?;
            Ok(TokioIo::new(net.dial(from, to).await?))
        })
    }
}

/// What all clients share.
#[derive(Clone)]
pub struct World {
    /// The network.
    pub net: Net,
    /// What is noted.
    pub history: Shared,
    /// Members that clients know, by host.
    pub members: Arc<std::sync::Mutex<Vec<HostId>>>,
    /// Whether clients still begin something.
    pub active: Arc<std::sync::atomic::AtomicBool>,
    /// When the clients' clock began.
    pub began: Instant,
}

impl World {
    /// The hosts of the members that clients know.
    pub fn hosts(&self) -> Vec<HostId> {
        self.members.lock().expect("no panic while held").clone()
    }

    /// Whether clients still begin something.
    pub fn is_active(&self) -> bool {
        self.active.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The next moment.
    pub fn moment(&self) -> Moment {
        let mut history = self.history.lock();
        history.now = self.began.elapsed();
        history.moment()
    }

    /// A client of one member.
    pub fn client(&self, host: HostId) -> Client {
        let connector = Connector { net: self.net.clone(), from: HOST };
        connect_through(&[url(host, CLIENT_PORT)], connector).expect("the URL is valid")
    }

    fn any(&self, random: &mut StdRng) -> HostId {
        let hosts = self.hosts();
        hosts[random.random_range(0..hosts.len())]
    }
}

/// A client that does one thing after the other.
pub struct Caller {
    /// What all share.
    pub world: World,
    /// What it will do.
    pub random: StdRng,
    /// Its number.
    pub number: u32,
    /// How many values it has put.
    pub values: u32,
}

impl Caller {
    /// Does things until it is told to stop.
    pub async fn run(mut self) {
        let mut host = self.world.any(&mut self.random);
        let mut client = self.world.client(host);
        while self.world.is_active() {
            let well = self.one(&client, host).await;
            if !well || self.random.random_bool(0.05) || !self.world.hosts().contains(&host) {
                host = self.world.any(&mut self.random);
                client = self.world.client(host);
            }
            let pause = self.random.random_range(0..120);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    fn key(&mut self) -> Bytes {
        format!("k{}", self.random.random_range(0..KEYS)).into()
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        let padding = if self.random.random_bool(0.1) { 4000 } else { 10 };
        format!("{}.{}{:>padding$}", self.number, self.values, "").into()
    }

    async fn one(&mut self, client: &Client, host: HostId) -> bool {
        let request = match self.random.random_range(0..100) {
            0..30 => Request::Put(PutRequest {
                key: self.key(),
                value: self.value(),
                prev_kv: self.random.random_bool(0.3),
                ..Default::default()
            }),
            30..38 => Request::Delete(self.deletion()),
            38..60 => self.txn(client, host).await,
            _ => Request::Range(self.range()),
        };
        self.call(client, host, request).await.is_some()
    }

    fn deletion(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        let range_end = if self.random.random_bool(0.2) { "k9".into() } else { Bytes::new() };
        DeleteRangeRequest { key, range_end, prev_kv: self.random.random_bool(0.3) }
    }

    fn range(&mut self) -> RangeRequest {
        let all = self.random.random_bool(0.4);
        let old = self.random.random_bool(0.1);
        let archived = self.world.history.lock().archived();
        RangeRequest {
            key: if all { "k".into() } else { self.key() },
            range_end: if all { "l".into() } else { Bytes::new() },
            serializable: self.random.random_bool(0.2),
            limit: if self.random.random_bool(0.2) { 2 } else { 0 },
            keys_only: self.random.random_bool(0.1),
            count_only: self.random.random_bool(0.1),
            revision: if old { (archived - self.random.random_range(0..20)).max(1) } else { 0 },
            ..Default::default()
        }
    }

    /// Read, then write if nobody else has; what Kubernetes does all day.
    async fn txn(&mut self, client: &Client, host: HostId) -> Request {
        let key = self.key();
        let get = RangeRequest { key: key.clone(), ..Default::default() };
        let answer = self.call(client, host, Request::Range(get.clone())).await;
        let known = match answer {
            Some(Response::Range(r)) => r.kvs.first().map_or(0, |kv| kv.mod_revision),
            _ => 0,
        };
        let put = |key: &Bytes, value| {
            let put = PutRequest { key: key.clone(), value, prev_kv: true, ..Default::default() };
            RequestOp { request: Some(Op::RequestPut(put)) }
        };
        let read = || RequestOp { request: Some(Op::RequestRange(get.clone())) };
        let mut success = vec![put(&key, self.value())];
        if self.random.random_bool(0.3) {
            let other: Bytes = format!("{}b", String::from_utf8_lossy(&key)).into();
            success.push(put(&other, self.value()));
        }
        if self.random.random_bool(0.3) {
            success.push(read());
        }
        if self.random.random_bool(0.2) {
            // It may have been compacted: then nothing of the transaction may happen.
            let archived = self.world.history.lock().archived();
            let revision = (archived - self.random.random_range(0..60)).max(1);
            let old =
                RangeRequest { key: "k".into(), range_end: "l".into(), revision, ..get.clone() };
            success.push(RequestOp { request: Some(Op::RequestRange(old)) });
        }
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key,
            target_union: Some(TargetUnion::ModRevision(known)),
            ..Default::default()
        };
        Request::Txn(TxnRequest { compare: vec![compare], success, failure: vec![read()] })
    }

    async fn call(&mut self, client: &Client, host: HostId, request: Request) -> Option<Response> {
        call(&self.world, client, host, request).await
    }
}

/// Makes a request, and notes it.
pub async fn call(
    world: &World,
    client: &Client,
    host: HostId,
    request: Request,
) -> Option<Response> {
    let serializable = matches!(&request, Request::Range(r) if r.serializable || r.revision > 0);
    let index = {
        let invoked = world.moment();
        let mut history = world.history.lock();
        history.calls.push(Call {
            request: request.clone(),
            serializable,
            invoked,
            returned: None,
            outcome: Outcome::Unknown,
            member: host,
        });
        history.calls.len() - 1
    };
    let answer = timeout(PATIENCE, send(client, request)).await;
    let returned = world.moment();
    let outcome = match answer {
        Ok(Ok(mut response)) => Outcome::Done(response.take_header(), response),
        Ok(Err(status)) if is_refusal(&status) => Outcome::Refused,
        _ => Outcome::Unknown,
    };
    let mut history = world.history.lock();
    let call = &mut history.calls[index];
    call.returned = Some(returned);
    call.outcome = outcome;
    match &call.outcome {
        Outcome::Done(_, response) => Some(response.clone()),
        _ => None,
    }
}

async fn send(client: &Client, request: Request) -> Result<Response, Status> {
    let mut kv = client.kv();
    Ok(match request {
        Request::Range(r) => Response::Range(kv.range(r).await?.into_inner()),
        Request::Put(r) => Response::Put(kv.put(r).await?.into_inner()),
        Request::Delete(r) => Response::Delete(kv.delete_range(r).await?.into_inner()),
        Request::Txn(r) => Response::Txn(kv.txn(r).await?.into_inner()),
    })
}

/// Whether an error says that nothing was done.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::AlreadyExists
    )
}

/// Watches all keys through one member, for the archive, for as long as the member is known.
pub async fn archive(world: World, host: HostId) {
    while world.hosts().contains(&host) {
        let start = world.history.lock().archived() + 1;
        let create = WatchCreateRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            start_revision: start,
            prev_kv: true,
            progress_notify: true,
            ..Default::default()
        };
        watch(&world, host, create, None).await;
        sleep(Duration::from_millis(200)).await;
    }
}

/// Watches this and that for a while.
pub async fn watcher(world: World, mut random: StdRng) {
    while world.is_active() {
        let host = world.any(&mut random);
        let archived = world.history.lock().archived();
        let back = random.random_range(0..60);
        let start = if random.random_bool(0.3) { 0 } else { (archived + 20 - back).max(1) };
        let one = random.random_bool(0.5);
        let create = WatchCreateRequest {
            key: format!("k{}", random.random_range(0..KEYS)).into(),
            range_end: if one { Bytes::new() } else { "l".into() },
            start_revision: start,
            prev_kv: true,
            progress_notify: random.random_bool(0.5),
            ..Default::default()
        };
        let time = Duration::from_millis(random.random_range(100..20_000));
        watch(&world, host, create, Some(time)).await;
    }
}

/// One watch until it breaks, or the time is over.
async fn watch(world: &World, host: HostId, create: WatchCreateRequest, time: Option<Duration>) {
    let is_archive = time.is_none();
    let mut told = Watched {
        key: create.key.clone(),
        range_end: create.range_end.clone(),
        start: create.start_revision,
        created: (0, world.moment()),
        messages: Vec::new(),
        compacted: None,
        member: host,
    };
    let client = world.client(host);
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (asks, requests) = mpsc::channel(1);
    asks.try_send(request).expect("there is room for one");
    // Whether a client might still ask for something makes no difference.
    let _asks = is_archive.then_some(asks);
    let requests = ReceiverStream::new(requests);
    let opened = timeout(PATIENCE, client.watch().watch(requests)).await;
    let Ok(Ok(stream)) = opened else { return };
    let mut stream = stream.into_inner();
    let until = Instant::now() + time.unwrap_or(Duration::from_secs(3600));
    let mut index = None;
    loop {
        let next = tokio::select! {
            next = stream.message() => next,
            () = tokio::time::sleep_until(until) => return,
        };
        let Ok(Some(message)) = next else { return };
        let at = world.moment();
        let revision = message.header.as_ref().map_or(0, |header| header.revision);
        let mut history = world.history.lock();
        let Some(index) = index else {
            // The first message says that the watch has been created.
            told.created = (revision, at);
            if is_archive {
                let before = history.told.entry(host).or_default();
                *before = (told.start - 1).max(*before);
            }
            history.watches.push(told.clone());
            index = Some(history.watches.len() - 1);
            continue;
        };
        if message.canceled {
            history.watches[index].compacted = Some((message.compact_revision, at));
            return;
        }
        if is_archive {
            note(&mut history, host, &message.events, at);
        }
        history.watches[index].messages.push(Message {
            at,
            revision,
            is_progress: message.events.is_empty(),
            events: message.events,
        });
    }
}

fn note(history: &mut History, host: HostId, events: &[Event], at: Moment) {
    let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    if let Some(last) = events.last() {
        let told = history.told.entry(host).or_default();
        *told = revision(last).max(*told);
    }
    for events in events.chunk_by(|a, b| revision(a) == revision(b)) {
        history.archive(revision(&events[0]), events.to_vec(), at);
    }
}

/// Holds a lease for a while, again and again.
pub async fn holder(world: World, mut random: StdRng, number: u32) {
    let mut held = 0;
    while world.is_active() {
        held += 1;
        let host = world.any(&mut random);
        let client = world.client(host);
        hold(&world, &mut random, &client, host, format!("lease/{number}/{held}").into()).await;
        sleep(Duration::from_millis(random.random_range(100..3000))).await;
    }
}

async fn hold(world: &World, random: &mut StdRng, client: &Client, host: HostId, key: Bytes) {
    let id = random.random_range(1..i64::MAX);
    let ttl = random.random_range(2..8);
    let asked = world.moment();
    let grant = LeaseGrantRequest { id, ttl };
    let Ok(Ok(granted)) = timeout(PATIENCE, client.lease().lease_grant(grant)).await else {
        return;
    };
    let ttl = Duration::from_secs(granted.get_ref().ttl.unsigned_abs());
    let lease = Lease { ttl, renewals: vec![asked], revoked: None, key: key.clone() };
    world.history.lock().leases.insert(id, lease);
    let value = format!("{}:{host}", String::from_utf8_lossy(&key)).into();
    let put = PutRequest { key, value, lease: id, ..Default::default() };
    call(world, client, host, Request::Put(put)).await;
    for _ in 0..random.random_range(0..8) {
        sleep(ttl.mul_f64(random.random_range(0.1..0.5))).await;
        let asked = world.moment();
        let alive = timeout(PATIENCE, renew(client, id)).await;
        match alive {
            Ok(Ok(left)) if left > 0 => {
                let mut history = world.history.lock();
                let lease = history.leases.get_mut(&id).expect("just granted");
                lease.renewals.push(asked);
            }
            Ok(Ok(_)) => return,
            _ => {}
        }
    }
    if random.random_bool(0.3) {
        let asked = world.moment();
        world.history.lock().leases.get_mut(&id).expect("just granted").revoked = Some(asked);
        // If it is not revoked it ends by itself.
        drop(timeout(PATIENCE, client.lease().lease_revoke(LeaseRevokeRequest { id })).await);
    }
}

async fn renew(client: &Client, id: i64) -> Result<i64, Status> {
    let request = tokio_stream::once(LeaseKeepAliveRequest { id });
    let mut answers = client.lease().lease_keep_alive(request).await?.into_inner();
    let answer = answers.message().await?;
    answer.map(|answer| answer.ttl).ok_or_else(|| Status::unavailable("no answer"))
}

/// Changes users and roles. Nobody is held to them; that all members have the same is seen in the end.
pub async fn administrator(world: World, mut random: StdRng) {
    while world.is_active() {
        sleep(Duration::from_millis(random.random_range(1000..10_000))).await;
        let host = world.any(&mut random);
        let mut auth = AuthClient::new(world.client(host).channel());
        let name = format!("n{}", random.random_range(0..3));
        let key = Bytes::from(format!("k{}", random.random_range(0..KEYS)));
        let options = Some(UserAddOptions { no_password: true });
        let change = async {
            // Half of them fail: what they are about is there already, or is not.
            match random.random_range(0..6) {
                0 => auth
                    .user_add(AuthUserAddRequest { name, options, ..Default::default() })
                    .await
                    .map(drop),
                1 => auth.user_delete(AuthUserDeleteRequest { name }).await.map(drop),
                2 => auth.role_add(AuthRoleAddRequest { name }).await.map(drop),
                3 => auth.role_delete(AuthRoleDeleteRequest { role: name }).await.map(drop),
                4 => {
                    let perm = Some(Permission { key, ..Default::default() });
                    auth.role_grant_permission(AuthRoleGrantPermissionRequest { name, perm })
                        .await
                        .map(drop)
                }
                _ => {
                    let role = format!("n{}", random.random_range(0..3));
                    let grant = AuthUserGrantRoleRequest { user: name, role };
                    auth.user_grant_role(grant).await.map(drop)
                }
            }
        };
        drop(timeout(PATIENCE, change).await);
    }
}

/// Compacts from time to time what has been archived.
pub async fn compactor(world: World, mut random: StdRng) {
    while world.is_active() {
        sleep(Duration::from_millis(random.random_range(1000..15_000))).await;
        let host = world.any(&mut random);
        let archived = world.history.lock().archived();
        let revision = archived - random.random_range(0..40);
        if revision > 1 {
            let physical = random.random_bool(0.3);
            let asked = world.moment();
            world.history.lock().compactions.push((asked, revision));
            let request = CompactionRequest { revision, physical };
            let client = world.client(host);
            // It may have been done already, or be too early for this member.
            drop(timeout(PATIENCE, client.kv().compact(request)).await);
        }
    }
}
