//! The gRPC side: takes desired states, streams observed ones.

use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

use anyhow::Context;
use futures::Stream;
use provisioner_api::{HostAgent, HostAgentServer, MAX_MESSAGE_BYTES, pb};
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use crate::{
    board::Board,
    config::AgentConfig,
    desired::{DesiredStore, Refused},
};

/// A report is sent at least this often, so that both sides notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Changes that follow each other closely go in one report.
const GATHER: Duration = Duration::from_millis(5);

/// The service.
#[derive(Debug)]
pub struct AgentService {
    /// The desired state.
    pub desired: Arc<DesiredStore>,
    /// The observed state.
    pub board: Board,
}

type Reports = Pin<Box<dyn Stream<Item = Result<pb::HostObserved, Status>> + Send>>;

#[tonic::async_trait]
impl HostAgent for AgentService {
    type ObserveStream = Reports;

    async fn apply(&self, request: Request<pb::HostDesired>) -> Result<Response<pb::Ack>, Status> {
        match self.desired.apply(request.into_inner()).await {
            Ok(revision) => Ok(Response::new(pb::Ack { revision })),
            Err(refused @ Refused::Store(_)) => Err(Status::internal(refused.to_string())),
            Err(refused) => Err(Status::failed_precondition(refused.to_string())),
        }
    }

    async fn observe(
        &self,
        _request: Request<pb::ObserveRequest>,
    ) -> Result<Response<Reports>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let board = self.board.clone();
        tokio::spawn(async move {
            let mut changes = board.subscribe();
            loop {
                changes.borrow_and_update();
                if sender.send(Ok(board.report())).await.is_err() {
                    return;
                }
                let _ = tokio::time::timeout(HEARTBEAT, changes.changed()).await;
                tokio::time::sleep(GATHER).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Serves until the token is cancelled.
pub async fn serve(
    config: &AgentConfig,
    listener: TcpListener,
    service: AgentService,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let identity = Identity::from_pem(read(&config.tls_cert_file)?, read(&config.tls_key_file)?);
    let tls = ServerTlsConfig::new()
        .identity(identity)
        .client_ca_root(Certificate::from_pem(read(&config.region_ca_file)?));
    let service = HostAgentServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let serving = Server::builder()
        .tls_config(tls)
        .context("TLS of the agent")?
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    // Streams never end by themselves: the server is dropped, not drained.
    tokio::select! {
        served = serving => served.context("serving the controller"),
        () = shutdown.cancelled() => Ok(()),
    }
}
