//! One pod as the runtime has it: its sandboxes and containers, newest first.

use std::collections::HashMap;

use cri::{Runtime, pb};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::labels;
use crate::spec::resize::Settings;

/// What a container is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Made, not started. Only a kubelet that died in between leaves it; it is made anew.
    Created,
    /// Running. Next: Exited.
    Running,
    /// Ended; nothing follows.
    Exited,
    /// The runtime lost it.
    #[default]
    Unknown,
}

/// One container that the runtime knows.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    /// How many containers of this name came before.
    pub attempt: u32,
    pub state: State,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub image: String,
    pub image_ref: String,
    pub image_id: String,
    pub log_path: String,
    pub annotations: HashMap<String, String>,
    pub mounts: Vec<pb::Mount>,
    /// Requests and limits in effect, if the runtime tells.
    pub resources: Option<pb::LinuxContainerResources>,
}

impl Container {
    /// Requests and limits when it was made, if this kubelet made it.
    pub fn made_with(&self) -> Option<ResourceRequirements> {
        serde_json::from_str(self.annotations.get(labels::RESOURCES)?).ok()
    }

    /// What the runtime says that it has.
    pub fn settings(&self) -> Option<Settings> {
        self.resources.as_ref().map(Settings::reported)
    }
}

/// One sandbox.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Timestamp,
    /// Empty for pods on the node's network.
    pub ips: Vec<String>,
}

/// A pod in the runtime.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Container>,
}

impl Pod {
    /// The sandbox that counts: the newest.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest container of a name.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// All containers of a name, newest first.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Container> {
        self.containers.iter().filter(move |c| c.name == name)
    }

    /// Containers that run.
    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.state == State::Running)
    }

    /// Whether nothing of the pod runs any more: no container, no ready sandbox.
    pub fn is_stopped(&self) -> bool {
        !self.containers.iter().any(|c| matches!(c.state, State::Running | State::Unknown))
            && !self.sandboxes.iter().any(|s| s.ready)
    }
}

/// Nanoseconds since the epoch as a time; 0 is "not yet".
pub fn time(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}

fn state(state: pb::ContainerState) -> State {
    match state {
        pb::ContainerState::ContainerCreated => State::Created,
        pb::ContainerState::ContainerRunning => State::Running,
        pb::ContainerState::ContainerExited => State::Exited,
        pb::ContainerState::ContainerUnknown => State::Unknown,
    }
}

fn by_uid(uid: &str) -> HashMap<String, String> {
    HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())])
}

fn container(listed: &pb::Container, status: pb::ContainerStatus) -> Container {
    let metadata = status.metadata.clone().unwrap_or_default();
    let image = status.image.clone().unwrap_or_default();
    let user_image = if image.user_specified_image.is_empty() {
        image.image
    } else {
        image.user_specified_image
    };
    Container {
        id: status.id.clone(),
        sandbox_id: listed.pod_sandbox_id.clone(),
        name: metadata.name,
        attempt: metadata.attempt,
        state: state(status.state()),
        created_at: time(status.created_at).unwrap_or_default(),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: user_image,
        image_ref: status.image_ref,
        image_id: status.image_id,
        log_path: status.log_path,
        annotations: status.annotations,
        mounts: status.mounts,
        resources: status.resources.and_then(|r| r.linux),
    }
}

/// Asks the runtime about the pod with this uid.
///
/// # Errors
/// When the runtime does not answer.
pub async fn observe(runtime: &Runtime, uid: &str) -> cri::Result<Pod> {
    let filter = pb::PodSandboxFilter { label_selector: by_uid(uid), ..Default::default() };
    let list = runtime.list_pod_sandbox(pb::ListPodSandboxRequest { filter: Some(filter) }).await?;
    let mut pod = Pod::default();
    for item in list.items {
        let ready = item.state() == pb::PodSandboxState::SandboxReady;
        let mut ips = Vec::new();
        if ready {
            let request =
                pb::PodSandboxStatusRequest { pod_sandbox_id: item.id.clone(), verbose: false };
            match runtime.pod_sandbox_status(request).await {
                Ok(answer) => {
                    let network = answer.status.and_then(|s| s.network).unwrap_or_default();
                    ips.push(network.ip);
                    ips.extend(network.additional_ips.into_iter().map(|a| a.ip));
                    ips.retain(|ip| !ip.is_empty());
                }
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            }
        }
        let attempt = item.metadata.as_ref().map_or(0, |m| m.attempt);
        let created_at = time(item.created_at).unwrap_or_default();
        pod.sandboxes.push(Sandbox { id: item.id, attempt, ready, created_at, ips });
    }
    pod.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.attempt)));

    let filter = pb::ContainerFilter { label_selector: by_uid(uid), ..Default::default() };
    let list = runtime.list_containers(pb::ListContainersRequest { filter: Some(filter) }).await?;
    for item in list.containers {
        let request = pb::ContainerStatusRequest { container_id: item.id.clone(), verbose: false };
        match runtime.container_status(request).await {
            Ok(answer) => {
                pod.containers.extend(answer.status.map(|status| container(&item, status)))
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    pod.containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    Ok(pod)
}
