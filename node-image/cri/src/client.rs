//! The client: one shared HTTP/2 channel over the runtime's Unix socket.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};

use crate::pb::image_service_client::ImageServiceClient;
use crate::pb::runtime_service_client::RuntimeServiceClient;
use crate::pb::*;

/// How long an ordinary call may take.
const CALL: Duration = Duration::from_secs(120);
/// How long setting up or tearing down a sandbox may take: network plugins run inside.
const SANDBOX: Duration = Duration::from_secs(240);
/// Containers can write a lot in an `ExecSync` answer and into labels: 16 MiB, as containerd sends.
const MAX_MESSAGE: usize = 16 << 20;

/// What a call to the runtime came to when it failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The endpoint is not `unix:///…`.
    #[error("container runtime endpoint {0:?} is not a unix:// address")]
    Endpoint(String),
    /// The runtime answered, or the channel broke: the gRPC status says which.
    #[error("{}", .0.message())]
    Status(Box<tonic::Status>),
    /// The runtime answered without the field that the call is made for.
    #[error("container runtime left out {0} in its answer")]
    Missing(&'static str),
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Error::Status(Box::new(status))
    }
}

impl Error {
    /// The object that the call named does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Status(s) if s.code() == Code::NotFound)
    }

    /// The runtime does not have this call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Error::Status(s) if s.code() == Code::Unimplemented)
    }

    /// The call ran into its deadline.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Status(s) if s.code() == Code::DeadlineExceeded)
    }
}

/// A result of a call to the runtime.
pub type Result<T> = std::result::Result<T, Error>;

/// A handle on the container runtime. Cheap to clone; all clones share one connection, which
/// is opened at the first call and again after it broke.
#[derive(Clone, Debug)]
pub struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Calls that carry one request and answer with one message, under [`CALL`] or the given time.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($service:ident: $request:ty) -> $answer:ty, $timeout:expr;)*) => {
        impl Runtime { $(
            $(#[$doc])*
            pub async fn $name(&self, request: $request) -> Result<$answer> {
                Ok(self.$service.clone().$name(timed(request, $timeout)).await?.into_inner())
            }
        )* }
    };
}

calls! {
    /// Name and version of the runtime.
    version(runtime: VersionRequest) -> VersionResponse, CALL;
    /// `RuntimeReady`, `NetworkReady` and the runtime's features.
    status(runtime: StatusRequest) -> StatusResponse, CALL;
    /// Which cgroup driver the runtime uses; Unimplemented before containerd 2.
    runtime_config(runtime: RuntimeConfigRequest) -> RuntimeConfigResponse, CALL;
    /// Creates and starts a sandbox with its network.
    run_pod_sandbox(runtime: RunPodSandboxRequest) -> RunPodSandboxResponse, SANDBOX;
    /// Stops the sandbox and what runs in it, and gives its network back. Idempotent.
    stop_pod_sandbox(runtime: StopPodSandboxRequest) -> StopPodSandboxResponse, SANDBOX;
    /// Removes the sandbox with its containers. Idempotent.
    remove_pod_sandbox(runtime: RemovePodSandboxRequest) -> RemovePodSandboxResponse, SANDBOX;
    /// One sandbox in detail.
    pod_sandbox_status(runtime: PodSandboxStatusRequest) -> PodSandboxStatusResponse, CALL;
    /// Sandboxes by filter, in any state.
    list_pod_sandbox(runtime: ListPodSandboxRequest) -> ListPodSandboxResponse, CALL;
    /// Creates a container that does not run yet.
    create_container(runtime: CreateContainerRequest) -> CreateContainerResponse, SANDBOX;
    /// Runs a created container.
    start_container(runtime: StartContainerRequest) -> StartContainerResponse, CALL;
    /// Removes a container, killing it when it runs. Idempotent.
    remove_container(runtime: RemoveContainerRequest) -> RemoveContainerResponse, CALL;
    /// Containers by filter, in any state.
    list_containers(runtime: ListContainersRequest) -> ListContainersResponse, CALL;
    /// One container in detail.
    container_status(runtime: ContainerStatusRequest) -> ContainerStatusResponse, CALL;
    /// Changes the limits of a running container.
    update_container_resources(runtime: UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse, CALL;
    /// Makes the runtime open the container's log file anew, after it was renamed.
    reopen_container_log(runtime: ReopenContainerLogRequest) -> ReopenContainerLogResponse, CALL;
    /// Prepares an interactive process; answers with the address of its streams.
    exec(runtime: ExecRequest) -> ExecResponse, CALL;
    /// The address of the streams of a container's first process.
    attach(runtime: AttachRequest) -> AttachResponse, CALL;
    /// The address of streams into the sandbox's ports.
    port_forward(runtime: PortForwardRequest) -> PortForwardResponse, CALL;
    /// Usage of the containers that the filter names.
    list_container_stats(runtime: ListContainerStatsRequest) -> ListContainerStatsResponse, CALL;
    /// The images that the runtime has.
    list_images(images: ListImagesRequest) -> ListImagesResponse, CALL;
    /// One image, if the runtime has it.
    image_status(images: ImageStatusRequest) -> ImageStatusResponse, CALL;
    /// Removes an image. Idempotent.
    remove_image(images: RemoveImageRequest) -> RemoveImageResponse, CALL;
    /// Where images are kept and how much they use.
    image_fs_info(images: ImageFsInfoRequest) -> ImageFsInfoResponse, CALL;
}

impl Runtime {
    /// A handle on the runtime behind `endpoint` (`unix:///run/containerd/containerd.sock`).
    /// Nothing is opened yet. Must be called inside a tokio runtime.
    pub fn connect(endpoint: &str) -> Result<Self> {
        let invalid = || Error::Endpoint(endpoint.to_owned());
        if !endpoint.starts_with("unix:///") {
            return Err(invalid());
        }
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|_| invalid())?
            .connect_timeout(Duration::from_secs(5))
            .connect_lazy();
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }

    /// Stops a container: its stop signal first, the kill signal after `grace`. Idempotent.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: grace.as_secs().try_into().unwrap_or(i64::MAX),
        };
        self.runtime.clone().stop_container(timed(request, grace + CALL)).await?;
        Ok(())
    }

    /// Runs `cmd` in a container to its end. A process that outlives `timeout` is killed and
    /// the call fails with [`Error::is_timeout`]; zero waits for ever.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        let seconds = timeout.as_secs().try_into().unwrap_or(i64::MAX);
        let message = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: seconds };
        let mut request = Request::new(message);
        if !timeout.is_zero() {
            // The runtime kills the process at the deadline; the channel's own comes after it.
            request.set_timeout(timeout + Duration::from_secs(10));
        }
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    /// Pulls an image and answers with the reference that containers are created from. Takes
    /// as long as the registry does: drop the future to give up.
    pub async fn pull_image(&self, request: PullImageRequest) -> Result<String> {
        Ok(self.images.clone().pull_image(request).await?.into_inner().image_ref)
    }

    /// Changes of containers and sandboxes as they happen (containerd 1.7 and later).
    pub async fn events(&self) -> Result<Streaming<ContainerEventResponse>> {
        Ok(self.runtime.clone().get_container_events(GetEventsRequest {}).await?.into_inner())
    }
}
