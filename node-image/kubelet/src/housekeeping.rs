//! What is done from time to time: log rotation and image garbage collection.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cri::pb;
use tokio_util::sync::CancellationToken;

use crate::node::{Node, machine};
use crate::runtime::{labels, logs};

/// How often logs are measured.
const LOGS: Duration = Duration::from_secs(10);
/// How often the disk is measured for images.
const IMAGES: Duration = Duration::from_secs(300);

/// Rotates the logs of running containers that have grown too large, until `stop`.
pub async fn rotate_logs(node: Arc<Node>, stop: CancellationToken) {
    loop {
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(LOGS) => {} }
        let state = pb::ContainerStateValue { state: pb::ContainerState::ContainerRunning.into() };
        let filter = pb::ContainerFilter { state: Some(state), ..Default::default() };
        let list =
            node.runtime.list_containers(pb::ListContainersRequest { filter: Some(filter) }).await;
        for container in list.map(|l| l.containers).unwrap_or_default() {
            let Some(path) = log_path(&node.config.log_dir, &container.labels, &container) else {
                continue;
            };
            let (bytes, files) = (node.config.log_max_bytes, node.config.log_max_files);
            if let Err(error) =
                logs::rotate(&node.runtime, &container.id, &path, bytes, files).await
            {
                tracing::warn!(container.id, "rotating {}: {error:#}", path.display());
            }
        }
    }
}

/// Where a container's log is, from its labels: no further question to the runtime.
fn log_path(
    log_dir: &Path,
    labels: &HashMap<String, String>,
    container: &pb::Container,
) -> Option<std::path::PathBuf> {
    let get = |key: &str| labels.get(key).map(String::as_str);
    let (namespace, name, uid) =
        (get(labels::POD_NAMESPACE)?, get(labels::POD_NAME)?, get(labels::POD_UID)?);
    let metadata = container.metadata.as_ref()?;
    let dir = logs::pod_dir(log_dir, namespace, name, uid);
    Some(dir.join(logs::file(&metadata.name, metadata.attempt)))
}

/// Bytes to free when `used` percent of `total` exceed `high`, to come down to `low`.
fn to_free(total: u64, free: u64, high: u8, low: u8) -> Option<u64> {
    let used = total.saturating_sub(free);
    if total == 0 || used * 100 < total * u64::from(high) {
        return None;
    }
    Some(used.saturating_sub(total / 100 * u64::from(low)))
}

/// Removes unused images while the disk is too full, until `stop`.
pub async fn collect_images(node: Arc<Node>, stop: CancellationToken) {
    loop {
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(IMAGES) => {} }
        let place = match node.runtime.image_fs_info(pb::ImageFsInfoRequest {}).await {
            Ok(answer) => answer
                .image_filesystems
                .into_iter()
                .next()
                .and_then(|f| f.fs_id)
                .unwrap_or_default(),
            Err(_) => continue,
        };
        let Ok(disk) = machine::disk(Path::new(&place.mountpoint)) else { continue };
        let config = &node.config;
        // With nothing to free the ages of unused images are still noted.
        let bytes = to_free(
            disk.total,
            disk.free,
            config.image_gc_high_percent,
            config.image_gc_low_percent,
        );
        match node.images.remove_unused(bytes.unwrap_or(0), config.image_gc_min_age).await {
            Ok(0) => {}
            Ok(freed) => tracing::info!(freed.bytes = freed, "removed unused images"),
            Err(error) => tracing::warn!("removing unused images: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        assert_eq!(to_free(1000, 500, 85, 80), None);
        assert_eq!(to_free(1000, 100, 85, 80), Some(100));
        assert_eq!(to_free(0, 0, 85, 80), None);
    }
}
