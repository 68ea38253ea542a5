//! Takes away what pods leave behind: dead containers and sandboxes, directories, logs, cgroups.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cri::pb;

use crate::node::Node;
use crate::runtime::logs;
use crate::runtime::observe::{self, State};
use crate::runtime::watch::PodId;
use crate::volumes;

/// Which dead containers and sandboxes of a pod may go: of each name one dead container stays
/// (its state and log can still be asked for), of sandboxes the newest and those in use.
pub fn surplus(pod: &observe::Pod) -> (Vec<&observe::Container>, Vec<&str>) {
    let mut kept: HashMap<&str, u32> = HashMap::new();
    let mut dead = Vec::new();
    for container in pod.containers.iter().filter(|c| c.state == State::Exited) {
        let count = kept.entry(&container.name).or_default();
        *count += 1;
        if *count > 1 {
            dead.push(container);
        }
    }
    let used = |id: &str| {
        pod.containers.iter().any(|c| c.sandbox_id == id && !dead.iter().any(|d| d.id == c.id))
    };
    let old =
        pod.sandboxes.iter().skip(1).filter(|s| !s.ready && !used(&s.id)).map(|s| s.id.as_str());
    let old = old.collect();
    (dead, old)
}

/// Removes what [`surplus`] names.
pub async fn prune(node: &Node, pod: &observe::Pod) {
    let (dead, old) = surplus(pod);
    for container in dead {
        let request = pb::RemoveContainerRequest { container_id: container.id.clone() };
        match node.runtime.remove_container(request).await {
            Ok(_) => logs::remove(Path::new(&container.log_path)),
            Err(error) => tracing::warn!(container.id, "removing a dead container: {error}"),
        }
    }
    for id in old {
        let request = pb::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        if let Err(error) = node.runtime.remove_pod_sandbox(request).await {
            tracing::warn!(sandbox.id = id, "removing an old sandbox: {error}");
        }
    }
}

/// Removes everything of a pod that is gone from the API and stopped.
///
/// # Errors
/// What could not be removed; call it again.
pub async fn purge(node: &Node, id: &PodId, pod: &observe::Pod) -> anyhow::Result<()> {
    for container in &pod.containers {
        let request = pb::RemoveContainerRequest { container_id: container.id.clone() };
        node.runtime.remove_container(request).await?;
    }
    for sandbox in &pod.sandboxes {
        let request = pb::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        node.runtime.remove_pod_sandbox(request).await?;
    }
    volumes::tear_down(&node.config.root_dir, &id.uid)?;
    let logs = logs::pod_dir(&node.config.log_dir, &id.namespace, &id.name, &id.uid);
    match std::fs::remove_dir_all(&logs) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    remove_cgroups(&id.uid);
    node.tokens.forget(&id.uid);
    node.allocations.forget(&id.uid);
    node.ports.release(&id.uid);
    Ok(())
}

/// Removes the pod's empty cgroups in every hierarchy. Best effort: a cgroup in use stays.
fn remove_cgroups(uid: &str) {
    let slice = uid.replace('-', "_");
    let names = [
        format!("kubepods/pod{uid}"),
        format!("kubepods/burstable/pod{uid}"),
        format!("kubepods/besteffort/pod{uid}"),
        format!("kubepods.slice/kubepods-pod{slice}.slice"),
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice"),
        format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice"),
    ];
    let root = Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![root.to_path_buf()];
    hierarchies.extend(std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path()));
    for dir in hierarchies.iter().flat_map(|h| names.iter().map(move |n| h.join(n))) {
        remove_cgroup(&dir);
    }
}

fn remove_cgroup(dir: &PathBuf) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        remove_cgroup(&entry.path());
    }
    let _ = std::fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dead_container_of_each_name_stays() {
        let container = |name: &str, attempt: u32, state, sandbox: &str| observe::Container {
            id: format!("{name}{attempt}"),
            sandbox_id: sandbox.into(),
            name: name.into(),
            attempt,
            state,
            ..Default::default()
        };
        let sandbox = |id: &str, ready| observe::Sandbox {
            id: id.into(),
            attempt: 0,
            ready,
            created_at: Default::default(),
            ips: vec![],
        };
        let pod = observe::Pod {
            sandboxes: vec![sandbox("s2", true), sandbox("s1", false), sandbox("s0", false)],
            containers: vec![
                container("a", 3, State::Running, "s2"),
                container("a", 2, State::Exited, "s1"),
                container("a", 1, State::Exited, "s0"),
            ],
        };
        let (dead, old) = surplus(&pod);
        assert_eq!(dead.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["a1"]);
        assert_eq!(old, ["s0"]);
    }
}
