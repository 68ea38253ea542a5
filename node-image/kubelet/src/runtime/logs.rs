//! Where containers' logs are, and their rotation.

use std::path::{Path, PathBuf};

use cri::{Runtime, pb};
use k8s_openapi::api::core::v1::Pod;

use crate::spec::containers;

/// The directory of a pod's logs.
pub fn pod_dir(log_dir: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    log_dir.join(format!("{namespace}_{name}_{uid}"))
}

/// The directory of a pod's logs.
pub fn dir_of(log_dir: &Path, pod: &Pod) -> PathBuf {
    pod_dir(log_dir, containers::namespace(pod), containers::name(pod), containers::uid(pod))
}

/// A container's log below its pod's directory.
pub fn file(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// Removes a container's log with its rotated parts.
pub fn remove(path: &Path) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return;
    };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        if file == name || file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Which rotated parts are too many, oldest first, when `keep` may stay. Their suffix is the
/// time of rotation, so the order of names is the order of time.
fn surplus(mut rotated: Vec<PathBuf>, keep: usize) -> Vec<PathBuf> {
    rotated.sort();
    let extra = rotated.len().saturating_sub(keep);
    rotated.truncate(extra);
    rotated
}

/// Rotates the log at `path` when it is larger than `max_bytes`: it is renamed, the runtime
/// opens a new one, and at most `max_files` remain in all.
///
/// # Errors
/// When the file cannot be renamed or the runtime does not open a new one; the old name is
/// restored then.
pub async fn rotate(
    runtime: &Runtime,
    id: &str,
    path: &Path,
    max_bytes: u64,
    max_files: usize,
) -> anyhow::Result<()> {
    let size = match tokio::fs::metadata(path).await {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if size < max_bytes {
        return Ok(());
    }
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let rotated = PathBuf::from(format!("{}.{stamp}", path.display()));
    tokio::fs::rename(path, &rotated).await?;
    let request = pb::ReopenContainerLogRequest { container_id: id.to_owned() };
    if let Err(error) = runtime.reopen_container_log(request).await {
        tokio::fs::rename(&rotated, path).await?;
        return Err(error.into());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut parts = Vec::new();
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut entries = tokio::fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')) {
            parts.push(entry.path());
        }
    }
    for old in surplus(parts, max_files - 1) {
        tokio::fs::remove_file(old).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_parts_go() {
        let parts = ["0.log.3", "0.log.1", "0.log.2"].map(PathBuf::from).to_vec();
        assert_eq!(surplus(parts.clone(), 2), [PathBuf::from("0.log.1")]);
        assert!(surplus(parts, 4).is_empty());
    }
}
