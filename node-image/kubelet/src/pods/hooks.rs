//! Lifecycle hooks: `postStart` and `preStop`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::node::Node;
use crate::probes::{check, http};

/// Runs a hook to its end.
///
/// # Errors
/// Why it failed.
pub async fn run(
    node: &Node,
    container: &Container,
    id: &str,
    pod_ip: &str,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        // No limit of its own: the caller ends the wait.
        return check::exec(
            node,
            id,
            action.command.as_deref().unwrap_or_default(),
            Duration::ZERO,
        )
        .await;
    }
    if let Some(action) = &hook.http_get {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
        return http::get(action, host, check::port(container, &action.port)?).await;
    }
    if let Some(action) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(action.seconds.try_into().unwrap_or(0))).await;
        return Ok(());
    }
    Err("the hook has no handler that this kubelet knows".into())
}
