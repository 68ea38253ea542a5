//! The store's current revision, asked once for everybody who waits.

use std::time::Duration;

use etcd_api::client::Client;
use etcd_api::pb::etcdserverpb::RangeRequest;
use machinery::Status;
use tokio::sync::{mpsc, oneshot};

const QUEUE: usize = 4096;
const TIMEOUT: Duration = Duration::from_secs(5);

type Answer = oneshot::Sender<Result<i64, Status>>;

/// Answers with a revision that was current at some moment after the question.
pub struct Freshness {
    questions: mpsc::Sender<Answer>,
}

impl Freshness {
    /// Starts the task that asks.
    pub fn start(client: Client) -> Self {
        let (questions, queue) = mpsc::channel(QUEUE);
        tokio::spawn(serve(client, queue));
        Self { questions }
    }

    /// The revision.
    pub async fn current(&self) -> Result<i64, Status> {
        let (answer, wait) = oneshot::channel();
        self.questions.send(answer).await.map_err(|_| Status::internal("the store is closed"))?;
        wait.await.map_err(|_| Status::internal("the store is closed"))?
    }
}

async fn serve(client: Client, mut queue: mpsc::Receiver<Answer>) {
    let mut waiting = Vec::new();
    // All who asked before the read was sent share its answer.
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        let answer = ask(&client).await;
        for one in waiting.drain(..) {
            let _ = one.send(answer.clone());
        }
    }
}

async fn ask(client: &Client) -> Result<i64, Status> {
    // A linearizable read that returns nothing: what matters is the header.
    let request = RangeRequest {
        key: b"compact_rev_key".to_vec().into(),
        count_only: true,
        ..Default::default()
    };
    let mut attempt = 0;
    loop {
        let answer = match tokio::time::timeout(TIMEOUT, client.kv().range(request.clone())).await {
            Ok(answer) => answer,
            Err(_) => Err(tonic::Status::deadline_exceeded("request timed out")),
        };
        match answer {
            Ok(response) => return Ok(response.into_inner().header.map_or(0, |h| h.revision)),
            Err(status) if status.code() == tonic::Code::Unavailable && attempt < 3 => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(status) => return Err(super::unavailable(status)),
        }
    }
}
