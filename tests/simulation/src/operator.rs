//! Who adds and removes members.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_api::pb::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MoveLeaderRequest, StatusRequest,
};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use crate::clients::{PEER_PORT, World, host_of, url};
use crate::net::HostId;

const PATIENCE: Duration = Duration::from_secs(5);
/// Members, at most.
const MOST: usize = 5;

/// What the operator has done to hosts.
pub enum Order {
    /// A host with a member that joins these.
    Add(HostId, Vec<HostId>),
    /// A host goes.
    Destroy(HostId),
}

/// What is still to be done to hosts.
pub type Orders = Arc<Mutex<VecDeque<Order>>>;

/// Changes the membership from time to time.
pub struct Operator {
    /// What all share.
    pub world: World,
    /// What it does.
    pub random: StdRng,
    /// What is done to hosts.
    pub orders: Orders,
    /// The next new host.
    pub next: HostId,
    /// How often it changed something.
    pub changes: Arc<Mutex<u64>>,
}

impl Operator {
    /// Works until it is told to stop.
    pub async fn run(mut self) {
        while self.world.is_active() {
            sleep(Duration::from_millis(self.random.random_range(3000..25_000))).await;
            let hosts = self.world.hosts();
            let host = hosts[self.random.random_range(0..hosts.len())];
            // What fails is seen, and put right, in the next round.
            if self.round(host).await.is_some() {
                *self.changes.lock().expect("no panic while held") += 1;
            }
        }
    }

    async fn round(&mut self, host: HostId) -> Option<()> {
        let client = self.world.client(host);
        let mut cluster = client.cluster();
        let list = cluster.member_list(MemberListRequest { linearizable: true });
        let members = timeout(PATIENCE, list).await.ok()?.ok()?.into_inner().members;
        let known = self.world.hosts();
        let unknown = members.iter().find(|m| host_at(m).is_none_or(|h| !known.contains(&h)));
        if let Some(unknown) = unknown {
            return self.remove(host, unknown).await;
        }
        if let Some(learner) = members.iter().find(|m| m.is_learner) {
            let promote = MemberPromoteRequest { id: learner.id };
            timeout(PATIENCE, client.cluster().member_promote(promote)).await.ok()?.ok()?;
            return Some(());
        }
        match self.random.random_range(0..10) {
            0..3 => self.move_leader(host, &members).await,
            3..7 if members.len() < MOST => self.add(host, &members).await,
            7..10 if members.len() > 3 => {
                let victim = self.random.random_range(0..members.len());
                self.remove(host, &members[victim]).await
            }
            _ => None,
        }
    }

    async fn move_leader(&mut self, host: HostId, members: &[Member]) -> Option<()> {
        let client = self.world.client(host);
        let mut maintenance = client.maintenance();
        let status = timeout(PATIENCE, maintenance.status(StatusRequest {})).await.ok()?.ok()?;
        let leader = members.iter().find(|m| m.id == status.get_ref().leader)?;
        let target = members[self.random.random_range(0..members.len())].id;
        let leader = self.world.client(host_at(leader)?);
        let order = MoveLeaderRequest { target_id: target };
        timeout(PATIENCE, leader.maintenance().move_leader(order)).await.ok()?.ok()?;
        Some(())
    }

    async fn add(&mut self, host: HostId, members: &[Member]) -> Option<()> {
        let new = self.next;
        self.next += 1;
        let request = MemberAddRequest {
            peer_ur_ls: vec![url(new, PEER_PORT)],
            is_learner: self.random.random_bool(0.5),
        };
        let client = self.world.client(host);
        timeout(PATIENCE, client.cluster().member_add(request)).await.ok()?.ok()?;
        let mut all: Vec<HostId> = members.iter().filter_map(host_at).collect();
        all.push(new);
        self.order(Order::Add(new, all));
        self.world.members.lock().expect("no panic while held").push(new);
        Some(())
    }

    async fn remove(&mut self, host: HostId, member: &Member) -> Option<()> {
        let client = self.world.client(host);
        let request = MemberRemoveRequest { id: member.id };
        timeout(PATIENCE, client.cluster().member_remove(request)).await.ok()?.ok()?;
        // It goes on for a while, and must not make trouble.
        sleep(Duration::from_millis(self.random.random_range(1..5000))).await;
        if let Some(gone) = host_at(member) {
            self.world.members.lock().expect("no panic while held").retain(|h| *h != gone);
            self.order(Order::Destroy(gone));
        }
        Some(())
    }

    fn order(&self, order: Order) {
        self.orders.lock().expect("no panic while held").push_back(order);
    }
}

fn host_at(member: &Member) -> Option<HostId> {
    member.peer_ur_ls.first().and_then(|url| host_of(url)).map(|(host, _)| host)
}
