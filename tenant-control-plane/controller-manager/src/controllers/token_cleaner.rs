//! Token cleaner: removes bootstrap tokens that have expired.

use std::sync::Arc;
use std::time::Duration;

use component::{Informer, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::watcher;

use crate::context::{Context, Running, enqueue_changes, together};
use crate::writes::Writer;

/// Type of the Secrets that hold bootstrap tokens.
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let only = watcher::Config::default().fields(&format!("type={TYPE}"));
    let api = Api::<Secret>::namespaced(context.manager.client.clone(), "kube-system");
    let secrets = Arc::new(Informer::new(api, only));
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&secrets, &queue);
    let writer = Writer::new(context.client.clone(), secrets.clone());
    let shutdown = context.shutdown.clone();
    Ok(Some(together(vec![
        Box::pin(async move {
            secrets.start(shutdown.clone());
            shutdown.cancelled().await;
        }),
        context.work("token-cleaner", queue, 1, move |key| {
            let writer = writer.clone();
            async move {
                let Some(secret) = writer.cache().get(&key) else { return Ok(None) };
                match left(&secret, Timestamp::now()) {
                    Some(left) if left.is_zero() => {
                        writer.delete(&secret).await?;
                        tracing::info!(secret = %key, "removed an expired bootstrap token");
                        Ok(None)
                    }
                    other => Ok(other),
                }
            }
        }),
    ])))
}

/// How long the token is still valid; `None` for ever. A date that cannot be read counts as over.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    if secret.type_.as_deref() != Some(TYPE) {
        return None;
    }
    let text = String::from_utf8(secret.data.as_ref()?.get("expiration")?.0.clone()).ok()?;
    let until: Timestamp = text.trim().parse().unwrap_or(Timestamp::MIN);
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_end_at_their_expiration() {
        let secret = |expiration: &str| -> Secret {
            let data = k8s_openapi::ByteString(expiration.as_bytes().to_vec());
            serde_json::from_value(json!({"type": TYPE, "data": {"expiration": data}})).unwrap()
        };
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(left(&secret("2026-01-01T00:01:00Z"), now), Some(Duration::from_secs(60)));
        assert_eq!(left(&secret("2025-01-01T00:01:00Z"), now), Some(Duration::ZERO));
        assert_eq!(left(&secret("soon"), now), Some(Duration::ZERO));
        let forever = serde_json::from_value(json!({"type": TYPE})).unwrap();
        assert_eq!(left(&forever, now), None);
    }
}
