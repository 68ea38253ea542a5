//! Starts one container: image, environment, mounts, create, start, `postStart`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use component::events::EventType;
use cri::pb;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::environment::{self, Environment};
use super::plan::{Start, Waiting};
use super::{hooks, mounts, sandbox, stop};
use crate::config::duration;
use crate::node::Node;
use crate::node::objects::Age;
use crate::runtime::images::{Present, Unavailable};
use crate::runtime::{docker_config, labels, logs, observe};
use crate::spec::containers::{self, Kind};
use crate::spec::{env, resources, security};
use crate::volumes::Mounted;

/// How soon a start that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A start that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What the container's status says meanwhile.
    pub waiting: Waiting,
    /// When to try again.
    pub retry_at: Instant,
}

/// What a start needs beside the node and the pod.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Context<'a> {
    pub node: &'a Node,
    pub pod: &'a Pod,
    pub runtime: &'a observe::Pod,
    pub volumes: &'a HashMap<String, Mounted>,
}

fn failed(reason: &'static str, message: String) -> Failed {
    Failed { waiting: Waiting { reason, message }, retry_at: Instant::now() + RETRY }
}

struct Starting<'a> {
    context: Context<'a>,
    container: &'a Container,
    kind: Kind,
    attempt: u32,
}

/// Starts the container; its id when it runs.
///
/// # Errors
/// Why not, and when to try again.
pub async fn start(context: Context<'_>, start: &Start) -> Result<String, Failed> {
    let Some((kind, container)) = containers::find(context.pod, &start.name) else {
        return Err(failed(
            "CreateContainerConfigError",
            format!("no container {:?} in the pod's spec", start.name),
        ));
    };
    let starting = Starting { context, container: &container, kind, attempt: start.attempt };
    let image = starting.image().await?;
    let sandbox = context
        .runtime
        .sandbox()
        .ok_or_else(|| failed("CreateContainerError", "the sandbox is gone".into()))?;
    let config_error = |message: String| {
        starting.event(EventType::Warning, "Failed", format!("Error: {message}"));
        failed("CreateContainerConfigError", message)
    };
    let config = starting.config(sandbox, &image).await.map_err(config_error)?;
    let id = starting.create(sandbox, config).await?;
    starting.run(&id).await?;
    starting.post_start(&id, sandbox).await?;
    Ok(id)
}

impl Starting<'_> {
    fn event(&self, kind: EventType, reason: &str, message: String) {
        let at = (self.kind, self.container.name.as_str());
        self.context.node.container_event(self.context.pod, at, kind, reason, message);
    }

    async fn credentials(&self) -> Vec<pb::AuthConfig> {
        let (node, pod) = (self.context.node, self.context.pod);
        let image = self.container.image.as_deref().unwrap_or_default();
        let mut found = Vec::new();
        for secret in containers::spec(pod).image_pull_secrets.iter().flatten() {
            let object =
                node.objects.secret(containers::namespace(pod), &secret.name, Age::Fresh).await;
            if let Ok(Some(object)) = object {
                found.extend(docker_config::credentials(&object, image));
            }
        }
        found
    }

    async fn image(&self) -> Result<Present, Failed> {
        let (node, pod) = (self.context.node, self.context.pod);
        let image = self.container.image.as_deref().unwrap_or_default();
        let auths = self.credentials().await;
        let sandbox = sandbox::config(node, pod, 0);
        let pulling =
            || self.event(EventType::Normal, "Pulling", format!("Pulling image \"{image}\""));
        match node.images.ensure(self.container, &auths, &sandbox, pulling).await {
            Ok(present) => {
                let message = match present.pulled {
                    None => format!("Container image \"{image}\" already present on machine"),
                    Some((took, bytes)) => {
                        let took = duration::show(took);
                        format!(
                            "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {bytes} bytes."
                        )
                    }
                };
                self.event(EventType::Normal, "Pulled", message);
                Ok(present)
            }
            Err(why) => Err(self.no_image(image, why)),
        }
    }

    fn no_image(&self, image: &str, why: Unavailable) -> Failed {
        let (kind, reason, message) = match why.reason {
            "ErrImagePull" => (
                EventType::Warning,
                "Failed",
                format!("Failed to pull image \"{image}\": {}", why.message),
            ),
            "ImagePullBackOff" => (EventType::Normal, "BackOff", why.message.clone()),
            "ErrImageNeverPull" => (EventType::Warning, "ErrImageNeverPull", why.message.clone()),
            "InvalidImageName" => (EventType::Warning, "InspectFailed", why.message.clone()),
            _ => (EventType::Warning, "InspectFailed", why.message.clone()),
        };
        self.event(kind, reason, message);
        self.event(EventType::Warning, "Failed", format!("Error: {}", why.reason));
        let mut failed = failed(why.reason, why.message);
        if let (Some(at), "ImagePullBackOff") =
            (self.context.node.images.retry_at(image), why.reason)
        {
            failed.retry_at = at;
        }
        failed
    }

    /// The container's configuration, with everything that it refers to looked up.
    async fn config(
        &self,
        sandbox: &observe::Sandbox,
        image: &Present,
    ) -> Result<pb::ContainerConfig, String> {
        let Context { node, pod, volumes, runtime } = self.context;
        let container = self.container;
        security::check_non_root(pod, container, image.uid, &image.username)?;
        let host_ips = &node.facts.ips;
        let pod_ips = if containers::host_network(pod) { host_ips } else { &sandbox.ips };
        let environment = environment::build(node, pod, container, pod_ips).await?;
        let mounts =
            mounts::Context { node, pod, container, volumes, environment: &environment, pod_ips };
        let mounts = mounts.build(self.attempt)?;
        let target = containers::ephemeral(pod).iter().find(|e| e.name == container.name);
        let target = target.and_then(|e| e.target_container_name.as_deref());
        let target = target.and_then(|name| runtime.latest(name)).map(|c| c.id.clone());
        let expand = |list: &Option<Vec<String>>| expand_all(list, &environment);
        let user_image = container.image.clone().unwrap_or_default();
        Ok(pb::ContainerConfig {
            metadata: Some(pb::ContainerMetadata {
                name: container.name.clone(),
                attempt: self.attempt,
            }),
            image: Some(pb::ImageSpec {
                image: image.reference.clone(),
                user_specified_image: user_image,
                ..Default::default()
            }),
            command: expand(&container.command),
            args: expand(&container.args),
            working_dir: container.working_dir.clone().unwrap_or_default(),
            mounts,
            labels: labels::container(pod, &container.name),
            annotations: labels::container_annotations(pod, container, self.attempt),
            log_path: logs::file(&container.name, self.attempt),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
            linux: Some(pb::LinuxContainerConfig {
                resources: Some(resources::linux(pod, container, node.memory)),
                security_context: Some(security::container(pod, container, target)),
            }),
            envs: environment.into_iter().map(|(key, value)| pb::KeyValue { key, value }).collect(),
            ..Default::default()
        })
    }

    async fn create(
        &self,
        sandbox: &observe::Sandbox,
        config: pb::ContainerConfig,
    ) -> Result<String, Failed> {
        let node = self.context.node;
        let dir = logs::dir_of(&node.config.log_dir, self.context.pod).join(&self.container.name);
        let create_error = |message: String| {
            self.event(EventType::Warning, "Failed", format!("Error: {message}"));
            failed("CreateContainerError", message)
        };
        tokio::fs::create_dir_all(&dir)
            .await
            .map_err(|e| create_error(format!("{}: {e}", dir.display())))?;
        let request = pb::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox::config(node, self.context.pod, sandbox.attempt)),
        };
        let answer = node
            .runtime
            .create_container(request)
            .await
            .map_err(|e| create_error(e.to_string()))?;
        self.event(
            EventType::Normal,
            "Created",
            format!("Created container: {}", self.container.name),
        );
        Ok(answer.container_id)
    }

    async fn run(&self, id: &str) -> Result<(), Failed> {
        let request = pb::StartContainerRequest { container_id: id.to_owned() };
        if let Err(error) = self.context.node.runtime.start_container(request).await {
            let message = error.to_string();
            self.event(EventType::Warning, "Failed", format!("Error: {message}"));
            return Err(failed("RunContainerError", message));
        }
        self.event(
            EventType::Normal,
            "Started",
            format!("Started container {}", self.container.name),
        );
        Ok(())
    }

    async fn post_start(&self, id: &str, sandbox: &observe::Sandbox) -> Result<(), Failed> {
        let Some(hook) = self.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref())
        else {
            return Ok(());
        };
        let node = self.context.node;
        let ip =
            sandbox.ips.first().or_else(|| node.facts.ips.first()).cloned().unwrap_or_default();
        let Err(why) = hooks::run(node, self.container, id, &ip, hook).await else { return Ok(()) };
        self.event(
            EventType::Warning,
            "FailedPostStartHook",
            format!("PostStartHook failed: {why}"),
        );
        let grace = stop::grace_of(self.context.pod);
        if let Err(error) = node.runtime.stop_container(id, grace).await {
            tracing::warn!(
                container.id = id,
                "stopping the container after its hook failed: {error}"
            );
        }
        Err(failed("PostStartHookError", why))
    }
}

fn expand_all(list: &Option<Vec<String>>, environment: &Environment) -> Vec<String> {
    let lookup = |name: &str| environment.get(name).cloned();
    list.iter().flatten().map(|text| env::expand(text, lookup)).collect()
}
