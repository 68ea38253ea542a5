//! The mounts of one container: its volumes, `/etc/hosts` and the place of its last words.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use cri::pb::{self, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::environment::Environment;
use crate::node::Node;
use crate::spec::{containers, env, hosts};
use crate::volumes::{self, Mounted, subpath};

/// What a container's mounts depend on.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Context<'a> {
    pub node: &'a Node,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub volumes: &'a HashMap<String, Mounted>,
    pub environment: &'a Environment,
    pub pod_ips: &'a [String],
}

fn propagation(mount: &VolumeMount) -> MountPropagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

impl Context<'_> {
    fn pod_dir(&self) -> PathBuf {
        volumes::pod_dir(&self.node.config.root_dir, containers::uid(self.pod))
    }

    fn volume(&self, index: usize, mount: &VolumeMount) -> Result<pb::Mount, String> {
        let volume = self.volumes.get(&mount.name).ok_or_else(|| {
            format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name, self.container.name
            )
        })?;
        let sub = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(expression), _) if !expression.is_empty() => {
                let expanded = env::expand(expression, |name| self.environment.get(name).cloned());
                if expanded.contains("$(") {
                    return Err(format!(
                        "subPathExpr {expression:?} names a variable that is not set"
                    ));
                }
                expanded
            }
            (_, sub) => sub.clone().unwrap_or_default(),
        };
        let host_path = if sub.is_empty() {
            volume.path.clone()
        } else {
            let target =
                self.pod_dir().join("volume-subpaths").join(&mount.name).join(&self.container.name);
            subpath::bind(&volume.path, &sub, &target.join(index.to_string()))?
        };
        let read_only = mount.read_only == Some(true) || volume.read_only;
        Ok(pb::Mount {
            container_path: absolute(&mount.mount_path),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: read_only,
            propagation: propagation(mount).into(),
            recursive_read_only: read_only
                && mount.recursive_read_only.as_deref() == Some("Enabled"),
            ..Default::default()
        })
    }

    fn etc_hosts(&self) -> std::io::Result<pb::Mount> {
        let path = self.pod_dir().join("etc-hosts");
        let node_hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        fs::create_dir_all(self.pod_dir())?;
        fs::write(&path, hosts::file(self.pod, &self.node.dns.domain, self.pod_ips, &node_hosts))?;
        Ok(pb::Mount {
            container_path: "/etc/hosts".into(),
            host_path: path.to_string_lossy().into_owned(),
            ..Default::default()
        })
    }

    fn last_words(&self, attempt: u32) -> std::io::Result<pb::Mount> {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = self.pod_dir().join("containers").join(&self.container.name);
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{attempt}-{:08x}", uuid::Uuid::new_v4().as_fields().0));
        fs::write(&path, "")?;
        // Whatever user the container runs as may leave its last words.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let inside =
            self.container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        Ok(pb::Mount {
            container_path: absolute(inside),
            host_path: path.to_string_lossy().into_owned(),
            ..Default::default()
        })
    }

    /// All mounts, files made.
    ///
    /// # Errors
    /// The message of CreateContainerConfigError.
    pub fn build(&self, attempt: u32) -> Result<Vec<pb::Mount>, String> {
        if self.container.volume_devices.as_ref().is_some_and(|d| !d.is_empty()) {
            return Err("volumeDevices: this node has no block volumes".into());
        }
        let mut mounts = Vec::new();
        for (index, mount) in self.container.volume_mounts.iter().flatten().enumerate() {
            mounts.push(self.volume(index, mount)?);
        }
        let taken =
            |mounts: &[pb::Mount], path: &str| mounts.iter().any(|m| m.container_path == path);
        if !taken(&mounts, "/etc/hosts") && !self.pod_ips.is_empty() {
            mounts
                .push(self.etc_hosts().map_err(|e| format!("writing the pod's hosts file: {e}"))?);
        }
        if self.container.termination_message_path.as_deref() != Some("") {
            mounts.push(
                self.last_words(attempt)
                    .map_err(|e| format!("making the termination message file: {e}"))?,
            );
        }
        Ok(mounts)
    }
}
