//! Whether the members agree: the leader asks the others for their digest at a log entry. A member
//! whose digest differs from the majority's has a damaged state. It raises the CORRUPT alarm and
//! serves no clients until an operator has replaced it (`etcdctl member remove`, then `add`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_api::pb::etcdserverpb::alarm_request::AlarmAction;
use etcd_api::pb::etcdserverpb::{AlarmRequest, AlarmType};

use crate::machine::state::Digest;
use crate::node::Node;
use crate::pb;
use crate::pb::digest_response::Kind;
use crate::pb::proposal::Op;

/// How often the leader asks.
const EVERY: Duration = Duration::from_secs(5);
/// How long a member may take to apply the entry that it is asked about.
const PATIENCE: Duration = Duration::from_secs(2);

/// What this member answers.
pub async fn answer(node: &Node, index: u64) -> pb::DigestResponse {
    let mut response = pb::DigestResponse::default();
    // Whether it was in time, the next look says.
    let _ = tokio::time::timeout(PATIENCE, node.machine.wait_applied(index)).await;
    match node.machine.digests.after(index) {
        Some(digest) => response.digest = digest.to_vec().into(),
        None if node.machine.read().digest.is_none() => response.set_kind(Kind::NotBegun),
        None => response.set_kind(Kind::Unknown),
    }
    response
}

/// Compares for as long as this member runs, while it leads.
pub async fn run(node: Arc<Node>) {
    let mut clock = tokio::time::interval(EVERY);
    loop {
        clock.tick().await;
        if node.consensus.status().is_leader {
            round(&node).await;
        }
    }
}

async fn round(node: &Node) {
    let Some((index, own)) = node.machine.digests.newest() else {
        if node.machine.read().digest.is_none() {
            begin(node).await;
        }
        return;
    };
    let (own_id, _) = node.consensus.ids();
    let mut digests = BTreeMap::from([(own_id, own)]);
    for (id, ..) in node.consensus.members().into_iter().filter(|(id, ..)| *id != own_id) {
        match ask(node, id, index).await {
            Some(r) if r.kind() == Kind::NotBegun => return begin(node).await,
            Some(r) if r.kind() == Kind::Known => {
                let Ok(digest) = r.digest.as_ref().try_into() else { continue };
                digests.insert(id, digest);
            }
            _ => {}
        }
    }
    for id in wrong(&digests) {
        raise(node, id, index).await;
    }
}

async fn ask(node: &Node, id: u64, index: u64) -> Option<pb::DigestResponse> {
    let mut peer = node.consensus.peer(id).ok()?;
    let answer = peer.digest(pb::DigestRequest { index });
    let answer = tokio::time::timeout(2 * PATIENCE, answer).await.ok()?;
    answer.ok().map(tonic::Response::into_inner)
}

/// A member that knows the digest's beginning only from now on, or never knew one.
async fn begin(node: &Node) {
    if let Err(error) = node.propose(Op::BeginDigest(true)).await {
        tracing::debug!(%error, "beginning the digest failed; trying again");
    }
}

/// The members that are not of the majority's opinion; all of them when there is none.
fn wrong(digests: &BTreeMap<u64, Digest>) -> Vec<u64> {
    let count = |digest: &Digest| digests.values().filter(|other| *other == digest).count();
    let is_majority = |digest: &Digest| 2 * count(digest) > digests.len();
    digests.iter().filter(|(_, digest)| !is_majority(digest)).map(|(id, _)| *id).collect()
}

async fn raise(node: &Node, id: u64, index: u64) {
    if node.machine.has_alarm(id, AlarmType::Corrupt) {
        return;
    }
    tracing::error!(
        member.id = format_args!("{id:x}"),
        log.index = index,
        "this member's state differs from the others'"
    );
    let alarm = AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id: id,
        alarm: AlarmType::Corrupt.into(),
    };
    if let Err(error) = node.propose(Op::Alarm(alarm)).await {
        tracing::warn!(%error, "raising CORRUPT failed; trying again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(digests: &[u8]) -> Vec<u64> {
        let digests = digests.iter().enumerate().map(|(i, d)| (i as u64, [*d; 32]));
        wrong(&digests.collect())
    }

    #[test]
    fn the_minority_is_wrong_and_without_a_majority_nobody_is_right() {
        assert!(of(&[1]).is_empty());
        assert!(of(&[1, 1, 1]).is_empty());
        assert_eq!(of(&[1, 1, 2]), [2]);
        assert_eq!(of(&[2, 1, 1]), [0], "it may be the leader");
        assert_eq!(of(&[1, 2]), [0, 1]);
        assert_eq!(of(&[1, 2, 3]), [0, 1, 2]);
        assert_eq!(of(&[1, 1, 1, 2, 3]), [3, 4]);
    }
}
