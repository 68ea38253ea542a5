//! Watches, with what etcd promises of them: ordered, unique, reliable, atomic, resumable.

use std::time::Duration;

use etcd_api::client::Client;
use etcd_api::pb::etcdserverpb::watch_create_request::FilterType;
use etcd_api::pb::etcdserverpb::watch_request::RequestUnion;
use etcd_api::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, RequestOp, TxnRequest, WatchCancelRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, request_op,
};
use etcd_api::pb::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::server::{Cluster, put};

struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    responses: tonic::Streaming<WatchResponse>,
}

impl Stream {
    async fn open(client: &Client) -> Self {
        let (requests, rx) = mpsc::channel(16);
        let responses = client.watch().watch(ReceiverStream::new(rx)).await.unwrap();
        Self { requests, responses: responses.into_inner() }
    }

    async fn send(&self, r: RequestUnion) {
        let r = WatchRequest { request_union: Some(r) };
        self.requests.send(r).await.unwrap();
    }

    async fn create(&mut self, r: WatchCreateRequest) -> i64 {
        self.send(RequestUnion::CreateRequest(r)).await;
        let created = self.next().await;
        assert!(created.created && !created.canceled, "{created:?}");
        created.watch_id
    }

    async fn next(&mut self) -> WatchResponse {
        let next = self.responses.message();
        let next = tokio::time::timeout(Duration::from_secs(10), next).await;
        next.expect("a response in time").unwrap().expect("the stream goes on")
    }
}

fn all_of(prefix: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: prefix.to_owned().into(),
        range_end: etcd_api::prefix_end(prefix.as_bytes()).into(),
        ..Default::default()
    }
}

/// Event as text: `put k=v (before)` or `del k (before)`, with its revision.
fn texts(r: &WatchResponse) -> Vec<String> {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    r.events
        .iter()
        .map(|e| {
            let kv = e.kv.as_ref().unwrap();
            let before = e.prev_kv.as_ref().map(|p| format!(" was {}", text(&p.value)));
            let what = match e.r#type() {
                EventType::Put => format!("put {}={}", text(&kv.key), text(&kv.value)),
                EventType::Delete => format!("del {}", text(&kv.key)),
            };
            format!("{}: {what}{}", kv.mod_revision, before.unwrap_or_default())
        })
        .collect()
}

#[tokio::test]
async fn the_past_then_the_present_with_what_was_before() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    put(&client, "a/1", "x").await.unwrap();
    put(&client, "a/1", "y").await.unwrap();
    put(&client, "b", "other").await.unwrap();
    let mut s = Stream::open(&client).await;
    let past = WatchCreateRequest { start_revision: 2, prev_kv: true, ..all_of("a/") };
    let id = s.create(past).await;
    assert_eq!(texts(&s.next().await), ["2: put a/1=x", "3: put a/1=y was x"]);
    let delete =
        DeleteRangeRequest { key: "a/".into(), range_end: "a0".into(), ..Default::default() };
    client.kv().delete_range(delete).await.unwrap();
    assert_eq!(texts(&s.next().await), ["5: del a/1 was y"]);

    // Other watchers on the same stream.
    let only_deletes =
        WatchCreateRequest { filters: vec![FilterType::Noput.into()], ..all_of("a/") };
    let second = s.create(only_deletes).await;
    let in_future = WatchCreateRequest {
        key: "a/3".into(),
        start_revision: 7,
        watch_id: 42,
        ..Default::default()
    };
    assert_eq!(s.create(in_future).await, 42);
    assert_ne!(id, second);
    put(&client, "a/3", "early").await.unwrap();
    put(&client, "a/3", "late").await.unwrap();
    let mut got = Vec::new();
    while got.len() < 3 {
        let r = s.next().await;
        let id = r.watch_id;
        got.extend(texts(&r).into_iter().map(|t| (id, t)));
    }
    got.sort();
    let expected =
        [(id, "6: put a/3=early"), (id, "7: put a/3=late was early"), (42, "7: put a/3=late")];
    assert_eq!(got, expected.map(|(id, t)| (id, t.to_owned())));

    s.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 42 })).await;
    let cancelled = s.next().await;
    assert!(cancelled.canceled && cancelled.watch_id == 42);
}

#[tokio::test]
async fn a_transaction_arrives_whole() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    let mut s = Stream::open(&client).await;
    s.create(all_of("t/")).await;
    let put_op = |i: usize| RequestOp {
        request: Some(request_op::Request::RequestPut(etcd_api::pb::etcdserverpb::PutRequest {
            key: format!("t/{i:03}").into(),
            value: vec![b'v'; 10_000].into(),
            ..Default::default()
        })),
    };
    let txn = TxnRequest { success: (0..100).map(put_op).collect(), ..Default::default() };
    client.kv().txn(txn).await.unwrap();
    let r = s.next().await;
    assert_eq!((r.events.len(), r.header.unwrap().revision), (100, 2));
}

#[tokio::test]
async fn progress_is_promised_only_for_what_was_sent() {
    let cluster = Cluster::start(1, &["--watch-progress-notify-interval=100ms"]);
    let client = cluster.ready(0).await;
    let mut s = Stream::open(&client).await;
    s.create(all_of("p/")).await;
    for i in 0..50 {
        put(&client, &format!("p/{i}"), "v").await.unwrap();
    }
    put(&client, "elsewhere", "v").await.unwrap();
    s.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let mut seen = 0;
    loop {
        let r = s.next().await;
        if r.watch_id == -1 {
            assert_eq!((seen, r.header.unwrap().revision), (50, 52));
            break;
        }
        seen += r.events.len();
    }
    let notify = WatchCreateRequest { progress_notify: true, ..all_of("quiet/") };
    let id = s.create(notify).await;
    let r = s.next().await;
    assert_eq!((r.watch_id, r.events.len()), (id, 0));
    assert_eq!(r.header.unwrap().revision, 52);
}

#[tokio::test]
async fn a_watch_from_before_the_compaction_is_cancelled() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    for _ in 0..5 {
        put(&client, "k", "v").await.unwrap();
    }
    let compact = CompactionRequest { revision: 4, physical: true };
    client.kv().compact(compact).await.unwrap();
    let mut s = Stream::open(&client).await;
    let from = |start_revision| WatchCreateRequest { start_revision, ..all_of("k") };
    let id = s.create(from(3)).await;
    let cancelled = s.next().await;
    assert!(cancelled.canceled && cancelled.watch_id == id);
    assert_eq!(cancelled.compact_revision, 4);
    s.create(from(4)).await;
    assert_eq!(texts(&s.next().await).len(), 3, "the compacted revision itself is there");
    s.send(RequestUnion::CreateRequest(WatchCreateRequest { start_revision: -1, ..all_of("k") }))
        .await;
    let refused = s.next().await;
    assert!(refused.created && refused.canceled && refused.watch_id == -1);
}

#[tokio::test]
async fn a_slow_watcher_misses_nothing() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    let mut s = Stream::open(&client).await;
    s.create(all_of("s/")).await;
    let value = "v".repeat(20_000);
    let writers = (0..8).map(|w| {
        let (client, value) = (client.clone(), value.clone());
        async move {
            for i in 0..250 {
                put(&client, &format!("s/{w}/{i}"), &value).await.unwrap();
            }
        }
    });
    // Nobody reads while 40 MB are written: the queue overflows, and the rest is read back.
    futures::future::join_all(writers).await;
    let mut next = 2;
    while next < 2002 {
        for event in s.next().await.events {
            assert_eq!(event.kv.unwrap().mod_revision, next, "in order, once each");
            next += 1;
        }
    }
}
