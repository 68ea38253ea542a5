//! A pod's volumes on this node: made before its containers, refreshed while it runs, taken
//! away after it.
//!
//! Kinds: emptyDir (disk or memory), configMap, secret, downwardAPI, projected, hostPath.
//! Every other kind is refused with a sentence that says so.

pub mod atomic;
pub mod host_path;
pub mod mounts;
pub mod ownership;
pub mod sources;
pub mod subpath;
pub mod tokens;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};

use crate::spec::{containers, resources};
pub use sources::Context;

/// A volume on the node.
#[derive(Clone, Debug)]
pub struct Mounted {
    /// Where it is.
    pub path: PathBuf,
    /// Containers may only read it, whatever they ask for.
    pub read_only: bool,
}

/// Which volume failed and why.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Failure {
    pub volume: String,
    pub message: String,
}

/// The pod's directory below the kubelet's root.
pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

fn volume_dir(root: &Path, uid: &str, plugin: &str, name: &str) -> PathBuf {
    pod_dir(root, uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = containers::spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The kind of a volume that is not supported, for the message.
fn unsupported(volume: &Volume) -> String {
    if let Some(claim) = &volume.persistent_volume_claim {
        return format!(
            "persistentVolumeClaim {:?}: this node mounts no persistent volumes yet",
            claim.claim_name
        );
    }
    let kind = serde_json::to_value(volume)
        .ok()
        .and_then(|v| v.as_object().and_then(|o| o.keys().find(|k| *k != "name").cloned()));
    format!(
        "no volume plugin matched: {} is not supported on this node",
        kind.as_deref().unwrap_or("this kind")
    )
}

/// Makes (or refreshes) all volumes of the pod.
///
/// # Errors
/// The first volume that cannot be made; the others are not touched.
pub async fn set_up(context: Context<'_>) -> Result<HashMap<String, Mounted>, Failure> {
    let mut mounted = HashMap::new();
    for volume in containers::spec(context.pod).volumes.iter().flatten() {
        let one = set_up_one(context, volume).await;
        let one = one.map_err(|message| Failure { volume: volume.name.clone(), message })?;
        mounted.insert(volume.name.clone(), one);
    }
    Ok(mounted)
}

async fn set_up_one(context: Context<'_>, volume: &Volume) -> Result<Mounted, String> {
    let (root, uid) = (&context.node.config.root_dir, containers::uid(context.pod));
    if let Some(source) = &volume.host_path {
        let path = PathBuf::from(&source.path);
        host_path::check(&path, source.type_.as_deref().unwrap_or_default())?;
        return Ok(Mounted { path, read_only: false });
    }
    if let Some(source) = &volume.empty_dir {
        let path = volume_dir(root, uid, "empty-dir", &volume.name);
        empty_dir(&path, source, context.pod)
            .map_err(|e| format!("emptyDir {}: {e}", path.display()))?;
        return Ok(Mounted { path, read_only: false });
    }
    let plugin = match volume {
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { downward_api: Some(_), .. } => "downward-api",
        Volume { projected: Some(_), .. } => "projected",
        _ => return Err(unsupported(volume)),
    };
    let payload = context.payload(volume).await?.ok_or_else(|| unsupported(volume))?;
    let path = volume_dir(root, uid, plugin, &volume.name);
    let write = || -> std::io::Result<bool> {
        fs::create_dir_all(&path)?;
        // What is secret never touches the disk.
        if matches!(plugin, "secret" | "projected") {
            mounts::tmpfs(&path, None)?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        atomic::write(&path, &payload, fs_group(context.pod))
    };
    write().map_err(|e| format!("writing {}: {e}", path.display()))?;
    Ok(Mounted { path, read_only: true })
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, pod: &Pod) -> std::io::Result<()> {
    let medium = source.medium.as_deref().unwrap_or_default();
    // After a reboot the directory of a tmpfs is still there, and nothing in it.
    let fresh = !path.exists() || (medium == "Memory" && !mounts::is_mount_point(path)?);
    fs::create_dir_all(path)?;
    match medium {
        "Memory" => {
            let memory = |c| resources::limit(c, "memory").map(|q| q.value());
            let pod_limit: Option<i64> = containers::app(pod).iter().map(memory).sum();
            let own = source
                .size_limit
                .as_ref()
                .and_then(|q| q.0.parse::<machinery::quantity::Quantity>().ok());
            let own = own.map(|q| q.value()).filter(|b| *b > 0);
            let bytes = match (own, pod_limit) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            mounts::tmpfs(path, bytes.and_then(|b| b.try_into().ok()))?;
        }
        "" => {}
        other => return Err(std::io::Error::other(format!("medium {other:?} is not supported"))),
    }
    if fresh {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        if let Some(group) = fs_group(pod) {
            ownership::set_group(path, group, false)?;
        }
    }
    Ok(())
}

/// Takes away everything that the pod had on this node.
///
/// # Errors
/// When a mount cannot be undone or a file not removed; call it again later.
pub fn tear_down(root: &Path, uid: &str) -> std::io::Result<()> {
    mounts::remove_tree(&pod_dir(root, uid))
}
