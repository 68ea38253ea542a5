//! Whether the members agree: the leader asks the others for their digest at a log entry. A member
//! whose digest differs from the majority's has a damaged state. It raises the CORRUPT alarm and
//! serves no clients until an operator has replaced it (`etcdctl member remove`, then `add`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use etcd_api::pb::etcdserverpb::alarm_request::AlarmAction;
use etcd_api::pb::etcdserverpb::{AlarmRequest, AlarmType};

use crate::machine::state::Digest;
use crate::node::Node;
use crate::pb;
use crate::pb::digest_response::Kind;
use crate::pb::proposal::Op;
use crate::run::hand_over;

/// How often the leader asks.
const EVERY: Duration = Duration::from_secs(5);
/// How long a member may take to apply the entry that it is asked about.
const PATIENCE: Duration = Duration::from_secs(2);

/// Rounds without a majority after which everybody who is of another opinion than somebody else is
/// taken to be wrong: a member that is away for so long does not decide it.
const PATIENT_ROUNDS: u32 = 12;

/// What this member answers.
pub async fn answer(node: &Node, index: u64) -> pb::DigestResponse {
    let mut response = pb::DigestResponse::default();
    // Whether it was in time, the next look says.
    let _ = tokio::time::timeout(PATIENCE, node.machine.wait_applied(index)).await;
    let is_applied = node.machine.applied_next() > index;
    match node.machine.digests.after(index) {
        Some(digest) => response.digest = digest.to_vec().into(),
        None if is_applied && node.machine.read().digest.is_none() => {
            response.set_kind(Kind::NotBegun);
        }
        None => response.set_kind(Kind::Unknown),
    }
    response
}

/// Compares for as long as this member runs, while it leads.
pub async fn run(node: Arc<Node>) {
    let mut clock = tokio::time::interval(EVERY);
    let mut undecided = 0;
    loop {
        clock.tick().await;
        if !node.consensus.status().is_leader {
            undecided = 0;
            continue;
        }
        if node.must_be_sound().is_err() {
            // What it knows must not become what all know.
            hand_over(&node).await;
            continue;
        }
        undecided = round(&node, undecided).await;
    }
}

/// Returns how many rounds in a row there was no majority.
async fn round(node: &Arc<Node>, undecided: u32) -> u32 {
    let Some((index, own)) = node.machine.digests.newest() else {
        if node.machine.read().digest.is_none() {
            begin(node).await;
        }
        return 0;
    };
    let (own_id, _) = node.consensus.ids();
    let members = node.consensus.members();
    let others = members.iter().map(|(id, ..)| *id).filter(|id| *id != own_id);
    let answers = others.map(async |id| (id, ask(node, id, index).await));
    let answers = futures::future::join_all(answers).await;
    let mut digests = BTreeMap::from([(own_id, own)]);
    let mut must_begin = false;
    for (id, answer) in answers {
        match answer {
            Some(r) if r.kind() == Kind::NotBegun => must_begin = true,
            Some(r) if r.kind() == Kind::Known => {
                if let Ok(digest) = r.digest.as_ref().try_into() {
                    digests.insert(id, digest);
                }
            }
            _ => {}
        }
    }
    let voters = members.iter().filter(|(_, _, is_learner)| !is_learner).map(|(id, ..)| *id);
    let verdict = judge(&digests, &voters.collect());
    if let Verdict::Wrong(ids) = &verdict {
        raise_all(node, ids, index).await;
    }
    if must_begin {
        begin(node).await;
    }
    match verdict {
        Verdict::Undecided(ids) if undecided >= PATIENT_ROUNDS => {
            raise_all(node, &ids, index).await;
            0
        }
        Verdict::Undecided(_) => undecided + 1,
        _ => 0,
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

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Agreed,
    /// These differ from a majority of all voters.
    Wrong(Vec<u64>),
    /// There are several opinions, and no majority for one of them.
    Undecided(Vec<u64>),
}

/// Learners do not count, but may be wrong.
fn judge(digests: &BTreeMap<u64, Digest>, voters: &BTreeSet<u64>) -> Verdict {
    let votes = |digest: &Digest| {
        digests.iter().filter(|(id, other)| voters.contains(id) && *other == digest).count()
    };
    let right = digests.values().find(|digest| 2 * votes(digest) > voters.len());
    let differ = |from: &Digest| -> Vec<u64> {
        digests.iter().filter(|(_, digest)| *digest != from).map(|(id, _)| *id).collect()
    };
    match (right, digests.values().next()) {
        (Some(right), _) => match differ(right) {
            ids if ids.is_empty() => Verdict::Agreed,
            ids => Verdict::Wrong(ids),
        },
        (None, Some(first)) if !differ(first).is_empty() => {
            Verdict::Undecided(digests.keys().copied().collect())
        }
        _ => Verdict::Agreed,
    }
}

async fn raise_all(node: &Node, ids: &[u64], index: u64) {
    for id in ids {
        raise(node, *id, &format!("its state differs from the others' after entry {index}")).await;
    }
}

/// Says that this member's own disk gives back what was not written, if others can serve instead.
pub async fn raise_if_rotten(node: &Node) {
    let (own, _) = node.consensus.ids();
    let is_sound = |id| id != own && !node.machine.has_alarm(id, AlarmType::Corrupt);
    let mut members = node.consensus.members().into_iter();
    if node.machine.log.files().is_rotten()
        && members.any(|(id, _, learner)| !learner && is_sound(id))
    {
        raise(node, own, "a stored value is not what was written: replace its disk").await;
    }
}

async fn raise(node: &Node, id: u64, why: &str) {
    if node.machine.has_alarm(id, AlarmType::Corrupt) {
        return;
    }
    tracing::error!(member.id = format_args!("{id:x}"), "a member is damaged: {why}");
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

    /// Digests by member; `0` has not answered. The last members are learners.
    fn of(digests: &[u8], learners: usize) -> Verdict {
        let ids = || (0..).zip(digests.iter().copied());
        let voters = ids().take(digests.len() - learners).map(|(id, _)| id).collect();
        let known = ids().filter(|(_, d)| *d != 0).map(|(id, d)| (id, [d; 32])).collect();
        judge(&known, &voters)
    }

    #[test]
    fn the_minority_is_wrong_and_without_a_majority_nobody_is_right() {
        use Verdict::{Agreed, Undecided, Wrong};
        assert_eq!(of(&[1], 0), Agreed);
        assert_eq!(of(&[1, 1, 1], 0), Agreed);
        assert_eq!(of(&[1, 1, 2], 0), Wrong(vec![2]));
        assert_eq!(of(&[2, 1, 1], 0), Wrong(vec![0]), "it may be the leader");
        assert_eq!(of(&[1, 0, 0], 0), Agreed, "nobody contradicts");
        assert_eq!(of(&[1, 2, 0], 0), Undecided(vec![0, 1]), "the third decides");
        assert_eq!(of(&[1, 2], 0), Undecided(vec![0, 1]));
        assert_eq!(of(&[1, 2, 3], 0), Undecided(vec![0, 1, 2]));
        assert_eq!(of(&[1, 1, 1, 2, 3], 0), Wrong(vec![3, 4]));
        assert_eq!(of(&[1, 2, 2, 1], 1), Wrong(vec![0, 3]), "learners do not count");
    }
}
