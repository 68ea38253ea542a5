//! A container runtime in memory that serves the real API over a Unix socket, for tests.
//!
//! Containers "run" until the test says that they exit ([`Fake::exit`]) or somebody stops
//! them. Calls are written down in order ([`Fake::calls`]) so that a test can say what the
//! kubelet did, and can be told to fail ([`Fake::fail_pull`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tonic::{Request, Response, Status};

use crate::pb::image_service_server::{ImageService, ImageServiceServer};
use crate::pb::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::pb::*;

/// What every running container uses, bytes.
pub const MEMORY_USED: u64 = 1 << 20;

type Answer<T> = Result<Response<T>, Status>;

/// The state of the fake runtime; clones share it.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<ContainerEventResponse>,
}

#[derive(Default)]
struct State {
    next: u64,
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, (String, ContainerConfig, ContainerStatus)>,
    images: BTreeSet<String>,
    unpullable: BTreeSet<String>,
    unstartable: BTreeSet<String>,
    calls: Vec<String>,
    exec: BTreeMap<String, i32>,
    network_down: bool,
}

impl Default for Fake {
    fn default() -> Self {
        Self { state: Arc::default(), events: broadcast::channel(256).0 }
    }
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    elapsed.as_nanos().try_into().unwrap_or(i64::MAX)
}

impl Fake {
    /// Serves the API on `socket` until the returned task is aborted.
    pub fn serve(&self, socket: &Path) -> std::io::Result<tokio::task::JoinHandle<()>> {
        let listener = UnixListener::bind(socket)?;
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .serve_with_incoming(incoming);
        Ok(tokio::spawn(async move {
            // A test's server that fails shows in the calls that then fail.
            let _ = server.await;
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the fake's lock panics")
    }

    /// What was called so far, as `Verb name` in order.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// Makes pulls of `image` fail with NotFound.
    pub fn fail_pull(&self, image: &str) {
        self.lock().unpullable.insert(image.to_owned());
    }

    /// Makes starts of containers called `name` fail, as when the command does not exist.
    pub fn fail_start(&self, name: &str) {
        self.lock().unstartable.insert(name.to_owned());
    }

    /// What `ExecSync` of a command line (joined by blanks) exits with; 0 unless said.
    pub fn exec_exits(&self, command: &str, code: i32) {
        self.lock().exec.insert(command.to_owned(), code);
    }

    /// Whether the network plugin reports ready.
    pub fn set_network(&self, ready: bool) {
        self.lock().network_down = !ready;
    }

    /// Ids of the running containers called `name`.
    pub fn running(&self, name: &str) -> Vec<String> {
        let state = self.lock();
        let is = |s: &ContainerStatus| {
            s.state() == ContainerState::ContainerRunning
                && s.metadata.as_ref().is_some_and(|m| m.name == name)
        };
        state.containers.values().filter(|c| is(&c.2)).map(|c| c.2.id.clone()).collect()
    }

    /// The configuration of the newest container called `name`.
    pub fn config(&self, name: &str) -> Option<ContainerConfig> {
        let state = self.lock();
        let mut found: Vec<_> = state
            .containers
            .values()
            .filter(|c| c.1.metadata.as_ref().is_some_and(|m| m.name == name))
            .collect();
        found.sort_by_key(|c| c.2.created_at);
        found.last().map(|c| c.1.clone())
    }

    /// How many sandboxes exist.
    pub fn sandboxes(&self) -> usize {
        self.lock().sandboxes.len()
    }

    /// Ends a running container with `code`.
    pub fn exit(&self, id: &str, code: i32) {
        if let Some((_, _, status)) = self.lock().containers.get_mut(id) {
            end(status, code);
        }
        let event = ContainerEventType::ContainerStoppedEvent.into();
        let _ = self.events.send(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: event,
            ..Default::default()
        });
    }
}

fn end(status: &mut ContainerStatus, code: i32) {
    if status.state() == ContainerState::ContainerExited {
        return;
    }
    status.set_state(ContainerState::ContainerExited);
    status.exit_code = code;
    status.finished_at = now();
    status.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
}

fn matches(
    labels: &std::collections::HashMap<String, String>,
    want: &std::collections::HashMap<String, String>,
) -> bool {
    want.iter().all(|(k, v)| labels.get(k) == Some(v))
}

impl State {
    fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{:060}", self.next)
    }
}

#[tonic::async_trait]
impl RuntimeService for Fake {
    type GetContainerEventsStream = std::pin::Pin<
        Box<dyn tokio_stream::Stream<Item = Result<ContainerEventResponse, Status>> + Send>,
    >;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "v1".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let network = !self.lock().network_down;
        let condition = |name: &str, status| RuntimeCondition {
            r#type: name.into(),
            status,
            ..Default::default()
        };
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", network)];
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            ..Default::default()
        }))
    }

    async fn runtime_config(
        &self,
        _: Request<RuntimeConfigRequest>,
    ) -> Answer<RuntimeConfigResponse> {
        Err(Status::unimplemented("the fake has no configuration"))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Answer<RunPodSandboxResponse> {
        let config =
            request.into_inner().config.ok_or_else(|| Status::invalid_argument("config"))?;
        let mut state = self.lock();
        let id = state.id("5a");
        let metadata = config.metadata.clone().unwrap_or_default();
        state.calls.push(format!("RunPodSandbox {}", metadata.name));
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: PodSandboxState::SandboxReady.into(),
            created_at: now(),
            network: Some(PodSandboxNetworkStatus {
                ip: "10.244.0.2".into(),
                additional_ips: vec![],
            }),
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), status);
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.lock();
        if let Some(sandbox) = state.sandboxes.get_mut(&id) {
            sandbox.set_state(PodSandboxState::SandboxNotready);
            let name = sandbox.metadata.clone().unwrap_or_default().name;
            state.calls.push(format!("StopPodSandbox {name}"));
        }
        for (_, _, status) in state.containers.values_mut().filter(|c| c.0 == id) {
            end(status, 137);
        }
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.lock();
        if let Some(sandbox) = state.sandboxes.remove(&id) {
            state
                .calls
                .push(format!("RemovePodSandbox {}", sandbox.metadata.unwrap_or_default().name));
        }
        state.containers.retain(|_, c| c.0 != id);
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let status =
            self.lock().sandboxes.get(&id).cloned().ok_or_else(|| Status::not_found("sandbox"))?;
        Ok(Response::new(PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let state = self.lock();
        let wanted = state.sandboxes.values().filter(|s| {
            (filter.id.is_empty() || filter.id == s.id)
                && matches(&s.labels, &filter.label_selector)
        });
        let items = wanted
            .map(|s| PodSandbox {
                id: s.id.clone(),
                metadata: s.metadata.clone(),
                state: s.state,
                created_at: s.created_at,
                labels: s.labels.clone(),
                annotations: s.annotations.clone(),
                runtime_handler: String::new(),
            })
            .collect();
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| Status::invalid_argument("config"))?;
        let mut state = self.lock();
        if !state.sandboxes.contains_key(&request.pod_sandbox_id) {
            return Err(Status::not_found("sandbox"));
        }
        let id = state.id("c0");
        state
            .calls
            .push(format!("CreateContainer {}", config.metadata.clone().unwrap_or_default().name));
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::ContainerCreated.into(),
            created_at: now(),
            image: config.image.clone(),
            image_ref: config.image.clone().unwrap_or_default().image,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            resources: config
                .linux
                .as_ref()
                .map(|linux| ContainerResources { linux: linux.resources.clone() }),
            ..Default::default()
        };
        state.containers.insert(id.clone(), (request.pod_sandbox_id, config, status));
        Ok(Response::new(CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.lock();
        let unstartable = state.unstartable.clone();
        let (_, _, status) =
            state.containers.get_mut(&id).ok_or_else(|| Status::not_found("container"))?;
        let name = status.metadata.clone().unwrap_or_default().name;
        if unstartable.contains(&name) {
            end(status, 128);
            state.calls.push(format!("StartContainer {name} (failed)"));
            return Err(Status::unknown("exec: \"nope\": executable file not found in $PATH"));
        }
        status.set_state(ContainerState::ContainerRunning);
        status.started_at = now();
        state.calls.push(format!("StartContainer {name}"));
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let mut state = self.lock();
        if let Some((_, _, status)) = state.containers.get_mut(&request.container_id) {
            end(status, 143);
            let name = status.metadata.clone().unwrap_or_default().name;
            state.calls.push(format!("StopContainer {name} {}", request.timeout));
        }
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.lock();
        if let Some((_, config, _)) = state.containers.remove(&id) {
            state
                .calls
                .push(format!("RemoveContainer {}", config.metadata.unwrap_or_default().name));
        }
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let state = self.lock();
        let wanted = state.containers.values().filter(|(sandbox, _, s)| {
            (filter.id.is_empty() || filter.id == s.id)
                && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == *sandbox)
                && matches(&s.labels, &filter.label_selector)
        });
        let containers = wanted
            .map(|(sandbox, _, s)| Container {
                id: s.id.clone(),
                pod_sandbox_id: sandbox.clone(),
                metadata: s.metadata.clone(),
                image: s.image.clone(),
                image_ref: s.image_ref.clone(),
                state: s.state,
                created_at: s.created_at,
                labels: s.labels.clone(),
                annotations: s.annotations.clone(),
                image_id: String::new(),
            })
            .collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let status = self.lock().containers.get(&id).map(|c| c.2.clone());
        let status = status.ok_or_else(|| Status::not_found("container"))?;
        Ok(Response::new(ContainerStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let mut state = self.lock();
        let (_, _, status) = state
            .containers
            .get_mut(&request.container_id)
            .ok_or_else(|| Status::not_found("container"))?;
        let name = status.metadata.clone().unwrap_or_default().name;
        let linux = request.linux.unwrap_or_default();
        let call = format!(
            "UpdateContainerResources {name} {} {} {}",
            linux.cpu_shares, linux.cpu_quota, linux.memory_limit_in_bytes
        );
        status.resources = Some(ContainerResources { linux: Some(linux) });
        state.calls.push(call);
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        _: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let command = request.into_inner().cmd.join(" ");
        let mut state = self.lock();
        state.calls.push(format!("ExecSync {command}"));
        let exit_code = state.exec.get(&command).copied().unwrap_or(0);
        Ok(Response::new(ExecSyncResponse { exit_code, ..Default::default() }))
    }

    async fn exec(&self, _: Request<ExecRequest>) -> Answer<ExecResponse> {
        Err(Status::unimplemented("the fake has no streams"))
    }

    async fn attach(&self, _: Request<AttachRequest>) -> Answer<AttachResponse> {
        Err(Status::unimplemented("the fake has no streams"))
    }

    async fn port_forward(&self, _: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        Err(Status::unimplemented("the fake has no streams"))
    }

    async fn container_stats(
        &self,
        _: Request<ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        Err(Status::unimplemented("the fake measures nothing"))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let value = |value| Some(UInt64Value { value });
        let stats = |id: &String| ContainerStats {
            attributes: Some(ContainerAttributes { id: id.clone(), ..Default::default() }),
            memory: Some(MemoryUsage { usage_bytes: value(MEMORY_USED), ..Default::default() }),
            ..Default::default()
        };
        let state = self.lock();
        let running = state.containers.iter().filter(|(id, c)| {
            c.2.state() == ContainerState::ContainerRunning
                && (filter.id.is_empty() || filter.id == **id)
        });
        let stats = running.map(|(id, _)| stats(id)).collect();
        Ok(Response::new(ListContainerStatsResponse { stats }))
    }

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        use tokio_stream::StreamExt;
        let events = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        Ok(Response::new(Box::pin(events.filter_map(Result::ok).map(Ok))))
    }
}

#[tonic::async_trait]
impl ImageService for Fake {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let state = self.lock();
        let image = |name: &String| Image {
            id: name.clone(),
            repo_tags: vec![name.clone()],
            ..Default::default()
        };
        Ok(Response::new(ListImagesResponse { images: state.images.iter().map(image).collect() }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Answer<ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let image =
            self.lock().images.contains(&name).then(|| Image { id: name, ..Default::default() });
        Ok(Response::new(ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let mut state = self.lock();
        state.calls.push(format!("PullImage {name}"));
        if state.unpullable.contains(&name) {
            return Err(Status::not_found(format!("{name}: not found")));
        }
        state.images.insert(name.clone());
        Ok(Response::new(PullImageResponse { image_ref: name }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Answer<RemoveImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        self.lock().images.remove(&name);
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        Ok(Response::new(ImageFsInfoResponse::default()))
    }
}
