//! The store: etcd behind the few operations that the API server needs.
//!
//! Every write is a transaction that compares the key's modification revision, so that two
//! replicas of the API server can never overwrite each other's work.

pub mod compaction;
mod freshness;

use std::sync::Arc;
use std::time::Duration;

use etcd_api::client::Client;
use etcd_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::pb::etcdserverpb::request_op::Request as Op;
use etcd_api::pb::etcdserverpb::response_op::Response as OpResponse;
use etcd_api::pb::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use etcd_api::pb::mvccpb::KeyValue;
use machinery::{Reason, Status};

/// Everything of Kubernetes is below this key.
pub const ROOT: &str = "/registry";
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a read is sent again when its connection breaks.
const READ_ATTEMPTS: usize = 3;

/// A page of key-values.
#[derive(Default)]
pub struct Page {
    /// In key order.
    pub kvs: Vec<KeyValue>,
    /// True when there is more behind the last one.
    pub more: bool,
    /// Number of keys from the start of the page to the end of the range.
    pub count: i64,
    /// The store's revision when it answered.
    pub revision: i64,
}

/// What became of a compare-and-write.
pub enum Outcome {
    /// Written at this revision.
    Done(i64),
    /// The key is not as expected; this is what it holds.
    Changed(Option<KeyValue>),
}

/// As an expected revision: do not look.
pub const ANY: i64 = -1;

/// One write of a transaction.
pub enum Write {
    /// Sets a key, if its modification revision is the given one (0: if it does not exist).
    Put {
        /// Key.
        key: String,
        /// Value.
        value: Vec<u8>,
        /// Expected modification revision.
        expected: i64,
        /// Lease to bind to, or 0.
        lease: i64,
    },
    /// Deletes a key, if its modification revision is the given one ([`ANY`]: in any case).
    Delete {
        /// Key.
        key: String,
        /// Expected modification revision.
        expected: i64,
    },
}

/// Connection to etcd.
pub struct Store {
    client: Client,
    freshness: freshness::Freshness,
    leases: tokio::sync::Mutex<Option<SharedLease>>,
}

/// Objects with the same time to live share leases, as upstream's do, so that a busy cluster does
/// not make one lease per event.
struct SharedLease {
    ttl_s: i64,
    id: i64,
    /// New objects may join until then.
    until: std::time::Instant,
}

/// Turns a failure of the store into what the client is told.
pub fn unavailable(status: tonic::Status) -> Status {
    let reason = match status.code() {
        tonic::Code::DeadlineExceeded => Reason::Timeout,
        tonic::Code::Unavailable if status.message().contains("timed out") => Reason::Timeout,
        _ if is_gone(&status) => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    Status::new(reason, format!("the store did not answer: {}", status.message()))
}

/// True when the store is not there: it says so, or the connection to it broke.
fn is_gone(status: &tonic::Status) -> bool {
    let is_broken = std::error::Error::source(status).is_some();
    is_broken || matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Cancelled)
}

impl Store {
    /// Uses a client. Must be called inside the runtime.
    pub fn new(client: Client) -> Arc<Self> {
        let freshness = freshness::Freshness::start(client.clone());
        Arc::new(Self { client, freshness, leases: tokio::sync::Mutex::default() })
    }

    /// The client, for streams.
    pub fn client(&self) -> &Client {
        &self.client
    }

    async fn ask(&self, request: RangeRequest) -> Result<Page, tonic::Status> {
        let mut attempt = 1;
        loop {
            let mut kv = self.client.kv();
            let answer = tokio::time::timeout(TIMEOUT, kv.range(request.clone())).await;
            match answer {
                Ok(Ok(response)) => {
                    let response = response.into_inner();
                    let revision = response.header.map_or(0, |h| h.revision);
                    let (kvs, more, count) = (response.kvs, response.more, response.count);
                    return Ok(Page { kvs, more, count, revision });
                }
                Ok(Err(status)) if is_gone(&status) && attempt < READ_ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(Err(status)) => return Err(status),
                Err(_) => return Err(tonic::Status::deadline_exceeded("request timed out")),
            }
        }
    }

    /// The store's revision now, for sure (a linearizable read, shared by concurrent callers).
    pub async fn current_revision(&self) -> Result<i64, Status> {
        self.freshness.current().await
    }

    /// One key, as the whole cluster sees it now.
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>, Status> {
        let request = RangeRequest { key: key.as_bytes().to_vec().into(), ..Default::default() };
        Ok(self.ask(request).await.map_err(unavailable)?.kvs.pop())
    }

    /// Keys that start with `prefix`, from `from` on, at most `limit` (0: all), as of `revision`
    /// (0: now). A compacted revision is 410 Expired.
    pub async fn range(
        &self,
        prefix: &str,
        from: &str,
        limit: i64,
        revision: i64,
    ) -> Result<Page, Status> {
        let request = RangeRequest {
            key: from.as_bytes().to_vec().into(),
            range_end: etcd_api::prefix_end(prefix.as_bytes()).into(),
            limit,
            revision,
            ..Default::default()
        };
        self.ask(request).await.map_err(|status| match status.code() {
            tonic::Code::OutOfRange => Status::new(
                Reason::Expired,
                "The provided continue parameter is too old to display a consistent list result.",
            ),
            _ => unavailable(status),
        })
    }

    /// Carries out all writes, or none when one of them expects another revision.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<Outcome, Status> {
        let mut txn = TxnRequest::default();
        for write in writes {
            let (key, expected, op) = match write {
                Write::Put { key, value, expected, lease } => {
                    let key = key.into_bytes();
                    let put = PutRequest {
                        key: key.clone().into(),
                        value: value.into(),
                        lease,
                        ..Default::default()
                    };
                    (key, expected, Op::RequestPut(put))
                }
                Write::Delete { key, expected } => {
                    let key = key.into_bytes();
                    let delete =
                        DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
                    (key, expected, Op::RequestDeleteRange(delete))
                }
            };
            if expected != ANY {
                txn.compare.push(Compare {
                    result: CompareResult::Equal as i32,
                    target: CompareTarget::Mod as i32,
                    key: key.clone().into(),
                    target_union: Some(TargetUnion::ModRevision(expected)),
                    ..Default::default()
                });
            }
            txn.success.push(RequestOp { request: Some(op) });
            if txn.failure.is_empty() {
                let read = RangeRequest { key: key.into(), ..Default::default() };
                txn.failure.push(RequestOp { request: Some(Op::RequestRange(read)) });
            }
        }
        let mut kv = self.client.kv();
        let response = match tokio::time::timeout(TIMEOUT, kv.txn(txn)).await {
            Ok(answer) => answer.map_err(unavailable)?.into_inner(),
            Err(_) => return Err(Status::new(Reason::Timeout, "etcdserver: request timed out")),
        };
        if response.succeeded {
            return Ok(Outcome::Done(response.header.map_or(0, |h| h.revision)));
        }
        let found = response.responses.into_iter().next().and_then(|r| r.response);
        Ok(Outcome::Changed(match found {
            Some(OpResponse::ResponseRange(mut range)) => range.kvs.pop(),
            _ => None,
        }))
    }

    /// Sets one key if its modification revision is the expected one (0: must not exist).
    pub async fn put(
        &self,
        key: &str,
        value: Vec<u8>,
        expected: i64,
        lease: i64,
    ) -> Result<Outcome, Status> {
        self.commit(vec![Write::Put { key: key.to_owned(), value, expected, lease }]).await
    }

    /// Deletes one key if its modification revision is the expected one.
    pub async fn delete(&self, key: &str, expected: i64) -> Result<Outcome, Status> {
        self.commit(vec![Write::Delete { key: key.to_owned(), expected }]).await
    }

    /// A lease of at least `ttl_s` seconds that other objects may share.
    pub async fn shared_lease(&self, ttl_s: i64) -> Result<i64, Status> {
        let mut shared = self.leases.lock().await;
        let now = std::time::Instant::now();
        match shared.as_ref() {
            Some(lease) if lease.ttl_s == ttl_s && now < lease.until => return Ok(lease.id),
            _ => {}
        }
        // Objects may join for a twentieth of the time to live, but no longer than a minute.
        let join_s = (ttl_s / 20).clamp(1, 60);
        let id = self.grant(ttl_s + join_s).await?;
        let until = now + Duration::from_secs(join_s as u64);
        *shared = Some(SharedLease { ttl_s, id, until });
        Ok(id)
    }

    /// A new lease.
    pub async fn grant(&self, ttl_s: i64) -> Result<i64, Status> {
        let request = LeaseGrantRequest { ttl: ttl_s, id: 0 };
        let mut client = self.client.lease();
        match tokio::time::timeout(TIMEOUT, client.lease_grant(request)).await {
            Ok(answer) => Ok(answer.map_err(unavailable)?.into_inner().id),
            Err(_) => Err(Status::new(Reason::Timeout, "etcdserver: request timed out")),
        }
    }

    /// Renews a lease once; `false` when it is gone.
    pub async fn keep_alive(&self, id: i64) -> Result<bool, Status> {
        let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut client = self.client.lease();
        let renew = async {
            let mut answers = client.lease_keep_alive(requests).await?.into_inner();
            Ok::<_, tonic::Status>(answers.message().await?.is_some_and(|a| a.ttl > 0))
        };
        match tokio::time::timeout(TIMEOUT, renew).await {
            Ok(answer) => answer.map_err(unavailable),
            Err(_) => Err(Status::new(Reason::Timeout, "etcdserver: request timed out")),
        }
    }

    /// Ends a lease and with it the keys bound to it.
    pub async fn revoke(&self, id: i64) -> Result<(), Status> {
        let request = LeaseRevokeRequest { id };
        self.client.lease().lease_revoke(request).await.map_err(unavailable)?;
        Ok(())
    }

    /// Forgets history below a revision.
    pub async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest { revision, physical: false };
        match self.client.kv().compact(request).await {
            Ok(_) => Ok(()),
            // Another replica compacted further.
            Err(status) if status.code() == tonic::Code::OutOfRange => Ok(()),
            Err(status) => Err(unavailable(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_while_the_store_goes_away_may_try_again() {
        let broken = tonic::Status::from_error("connection reset".into());
        for (status, code) in [
            (broken, 503),
            (tonic::Status::unavailable("etcdserver: no leader"), 503),
            (tonic::Status::unavailable("etcdserver: request timed out"), 504),
            (tonic::Status::deadline_exceeded("request timed out"), 504),
            (tonic::Status::invalid_argument("etcdserver: key is not provided"), 500),
        ] {
            assert_eq!(unavailable(status).code, code);
        }
    }
}
