//! One run: a cluster, its clients, what goes wrong, and whether all was well in the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_api::pb::etcdserverpb::{AlarmRequest, LeaseLeasesRequest, MemberListRequest, PutRequest};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::check;
use crate::clients::{self, Caller, World};
use crate::cluster::Cluster;
use crate::history::{Outcome, Shared};
use crate::host::Process;
use crate::interpose;
use crate::member::Start;
use crate::net::{HostId, Net};
use crate::operator::{Operator, Order, Orders};

/// Members do things within this time when nothing is wrong.
const HEALING: Duration = Duration::from_secs(60);
/// What a leader change may add to a lease, and some more.
const LEASES_END: Duration = Duration::from_secs(100);

/// What a run was like.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Simulated.
    pub time: Duration,
    /// Requests with an answer, and without.
    pub answered: usize,
    /// Requests whose outcome is not known.
    pub unknown: usize,
    /// Revisions.
    pub revisions: usize,
    /// Watches.
    pub watches: usize,
    /// Leases.
    pub leases: usize,
    /// Changes of the membership.
    pub changes: u64,
    /// What was done to members.
    pub faults: BTreeMap<String, u64>,
    /// A number that is the same when two runs were.
    pub fingerprint: u64,
    /// What was wrong.
    pub violations: Vec<String>,
}

/// Runs one; must be the first that its process does. Returns what clients saw, too.
pub fn run(seed: u64, time: Duration) -> (Report, Vec<String>) {
    interpose::begin(seed);
    let mut run = Run::begin(seed);
    let result = run.all(time);
    run.report(result)
}

struct Run {
    random: StdRng,
    net: Net,
    cluster: Cluster,
    world: World,
    clients: Process,
    orders: Orders,
    changes: Arc<Mutex<u64>>,
    now: Duration,
    busy: bool,
    archived: Vec<HostId>,
    mended: Option<Duration>,
    starts: Start,
}

impl Run {
    fn begin(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let net = Net::new(random.next_u64());
        let mut cluster = Cluster::new(random.next_u64(), net.clone());
        let size = [3, 3, 3, 5, 1][random.random_range(0..5)];
        let hosts: Vec<HostId> = (1..=size).collect();
        let starts = Start {
            host: 1,
            initial: hosts.clone(),
            existing: false,
            snapshot_count: random.random_range(10..300),
            catchup_entries: random.random_range(0..50),
        };
        for host in &hosts {
            cluster.add(Start { host: *host, ..starts.clone() });
        }
        let orders = Orders::default();
        let changes = Arc::default();
        let (clients, world) =
            start_clients(&mut random, &net, hosts, Arc::clone(&orders), Arc::clone(&changes));
        Self {
            random,
            net,
            cluster,
            world,
            clients,
            orders,
            changes,
            now: Duration::ZERO,
            busy: true,
            archived: Vec::new(),
            mended: None,
            starts,
        }
    }

    fn all(&mut self, time: Duration) -> Result<(), String> {
        let mut harm_at = Duration::from_secs(3);
        let calm = self.random.random_range(500..15_000);
        while self.now < time {
            if self.now >= harm_at {
                self.cluster.harm();
                let pause = self.random.random_range(0..calm);
                harm_at = self.now + Duration::from_millis(pause);
                let mended =
                    self.now + Duration::from_millis(self.random.random_range(100..20_000));
                self.mended.get_or_insert(mended);
                if self.random.random_bool(0.1) {
                    self.cluster.skew();
                }
            }
            if self.mended.is_some_and(|at| at <= self.now) {
                self.mended = None;
                self.cluster.mend();
            }
            self.step()?;
        }
        self.cluster.heal();
        self.world.active.store(false, Ordering::Relaxed);
        self.the_end()
    }

    /// A few milliseconds.
    fn step(&mut self) -> Result<(), String> {
        let most = if self.busy { 1 } else { 5 };
        let time = Duration::from_millis(self.random.random_range(1..=most));
        self.now += time;
        interpose::set_clock(self.now);
        self.carry_out();
        self.cluster.step(time)?;
        self.clients.step(time);
        if let Some(panic) = crate::panics::take() {
            return Err(format!("the clients: {panic}"));
        }
        self.busy = self.net.advance(self.now);
        Ok(())
    }

    fn carry_out(&mut self) {
        let orders = std::mem::take(&mut *self.orders.lock().expect("no panic while held"));
        for order in orders {
            match order {
                Order::Add(host, initial) => {
                    let start = Start { host, initial, existing: true, ..self.starts.clone() };
                    self.cluster.add(start);
                }
                Order::Destroy(host) => self.cluster.destroy(host),
            }
        }
        for host in self.world.hosts() {
            if !self.archived.contains(&host) {
                self.archived.push(host);
                self.clients.spawn(clients::archive(self.world.clone(), host));
            }
        }
    }

    /// Lets everything come to rest, and looks whether it is as it should be.
    fn the_end(&mut self) -> Result<(), String> {
        let world = self.world.clone();
        let end = self.clients.spawn(async move { settle(&world).await });
        let until = self.now + HEALING * 3 + LEASES_END;
        while !end.is_finished() {
            if self.now > until {
                return Err("the end does not come".into());
            }
            self.step()?;
        }
        let revision = self.clients.wait(end).map_err(|e| e.to_string())??;
        for host in self.world.hosts() {
            let told = self.world.history.lock().told.get(&host).copied().unwrap_or_default();
            if told < revision {
                let about = format!("revision {told}, but it is {revision}");
                return Err(format!("a watch at member {host} has told up to {about}"));
            }
        }
        self.agree()
    }

    /// All members have the same state after the same entry.
    fn agree(&mut self) -> Result<(), String> {
        let deadline = self.now + HEALING;
        let mut differ = String::new();
        while self.now < deadline {
            let mut states = BTreeMap::new();
            for host in self.world.hosts() {
                let window = self.cluster.window(host).ok_or("a member without a host")?;
                let window = window.lock().expect("no panic while held");
                let Some(node) = window.as_ref() else { continue };
                let state = node.machine.read();
                states.insert(host, (state.applied, state.digest, state.store.revision));
            }
            let all = states.len() == self.world.hosts().len();
            let mut values = states.values();
            let first = values.next();
            if all && values.all(|state| Some(state) == first) {
                return Ok(());
            }
            differ = format!("{states:?}");
            self.step()?;
        }
        Err(format!("members do not agree: {differ}"))
    }

    fn report(self, result: Result<(), String>) -> (Report, Vec<String>) {
        let history = self.world.history.lock();
        let mut violations = check::violations(&history);
        violations.extend(result.err());
        let done = |call: &&crate::history::Call| matches!(call.outcome, Outcome::Done(..));
        let unknown = |call: &&crate::history::Call| matches!(call.outcome, Outcome::Unknown);
        let report = Report {
            time: self.now,
            answered: history.calls.iter().filter(done).count(),
            unknown: history.calls.iter().filter(unknown).count(),
            revisions: history.archive.len(),
            watches: history.watches.len(),
            leases: history.leases.len(),
            changes: *self.changes.lock().expect("no panic while held"),
            faults: self.cluster.faults.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            fingerprint: fingerprint(&history, self.net.delivered()),
            violations,
        };
        (report, history.story())
    }
}

/// Of everything that clients saw.
fn fingerprint(history: &crate::history::History, delivered: u64) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hash = DefaultHasher::new();
    hash.write_u64(delivered);
    for call in &history.calls {
        hash.write(format!("{call:?}").as_bytes());
    }
    for (revision, story) in &history.archive {
        hash.write(format!("{revision}{story:?}").as_bytes());
    }
    hash.write(format!("{:?}{:?}", history.watches, history.leases).as_bytes());
    hash.finish()
}

fn start_clients(
    random: &mut StdRng,
    net: &Net,
    hosts: Vec<HostId>,
    orders: Orders,
    changes: Arc<Mutex<u64>>,
) -> (Process, World) {
    let clients = Process::start(std::future::pending());
    let world = World {
        net: net.clone(),
        history: Shared::default(),
        active: Arc::new(AtomicBool::new(true)),
        began: clients.started(),
        members: Arc::new(Mutex::new(hosts.clone())),
    };
    let mut seed = || StdRng::seed_from_u64(random.next_u64());
    for number in 0..6 {
        let caller = Caller { world: world.clone(), random: seed(), number, values: 0 };
        clients.spawn(caller.run());
    }
    for number in 0..3 {
        clients.spawn(clients::watcher(world.clone(), seed()));
        clients.spawn(clients::holder(world.clone(), seed(), number));
    }
    clients.spawn(clients::compactor(world.clone(), seed()));
    clients.spawn(clients::administrator(world.clone(), seed()));
    // A single member stays alone.
    if hosts.len() > 1 {
        let next = hosts.len() + 1;
        let operator = Operator { world: world.clone(), random: seed(), orders, next, changes };
        clients.spawn(operator.run());
    }
    (clients, world)
}

/// When nothing is wrong any more: every member serves, leases end, nobody is called corrupt.
/// Returns the last revision.
async fn settle(world: &World) -> Result<i64, String> {
    for host in world.hosts() {
        let until = Instant::now() + HEALING;
        let mut attempt = 0;
        while let Err(e) = serves(world, host, attempt).await {
            attempt += 1;
            if Instant::now() > until {
                return Err(format!("member {host} does not serve again: {e}"));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
    sleep(LEASES_END).await;
    let hosts = world.hosts();
    let client = world.client(hosts[0]);
    let failed = |e: tonic::Status| format!("in the end: {e}");
    let leases = client.lease().lease_leases(LeaseLeasesRequest {}).await.map_err(failed)?;
    if let Some(lease) = leases.get_ref().leases.first() {
        return Err(format!("lease {:x} does not end", lease.id));
    }
    let alarms = client.maintenance().alarm(AlarmRequest::default()).await.map_err(failed)?;
    if let Some(alarm) = alarms.get_ref().alarms.first() {
        return Err(format!("an alarm: {alarm:?}"));
    }
    // After the first of them nothing breaks any more: each watch has to tell the second.
    for value in ["nearly the end", "the end"] {
        let put = PutRequest { key: "k0".into(), value: value.into(), ..Default::default() };
        let call = clients::call(world, &client, hosts[0], crate::model::Request::Put(put));
        call.await.ok_or("the last put has failed")?;
        sleep(Duration::from_secs(10)).await;
    }
    let mut list = client.cluster();
    let list = list.member_list(MemberListRequest { linearizable: true });
    let list = list.await.map_err(failed)?.into_inner();
    Ok(list.header.map_or(0, |header| header.revision))
}

async fn serves(world: &World, host: HostId, attempt: u64) -> Result<(), String> {
    let client = world.client(host);
    let value = format!("{host} serves, attempt {attempt}").into();
    let put = PutRequest { key: "well".into(), value, ..Default::default() };
    let put = clients::call(world, &client, host, crate::model::Request::Put(put));
    put.await.map(drop).ok_or_else(|| "a put has failed".into())
}
