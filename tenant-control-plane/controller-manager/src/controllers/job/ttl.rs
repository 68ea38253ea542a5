//! TTL after finished: deletes Jobs `ttlSecondsAfterFinished` after their end.

use std::sync::Arc;
use std::time::Duration;

use component::WorkQueue;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;

use super::is_finished;
use crate::context::{Context, Running, enqueue_changes};
use crate::writes::Writer;

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let jobs = context.informer::<Job>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&jobs, &queue);
    let writer = Writer::new(context.client.clone(), jobs);
    Ok(Some(context.work("ttl-after-finished", queue, 2, move |key| {
        let writer = writer.clone();
        async move {
            let Some(job) = writer.cache().get(&key) else { return Ok(None) };
            match left(&job, Timestamp::now()) {
                Some(left) if left.is_zero() => {
                    writer.delete(&job).await?;
                    Ok(None)
                }
                other => Ok(other),
            }
        }
    })))
}

/// How long the Job may stay; `None` for ever.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if !is_finished(job) || job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ended = conditions
        .iter()
        .find(|c| c.status == "True" && (c.type_ == "Complete" || c.type_ == "Failed"))?
        .last_transition_time
        .as_ref()?;
    let seconds = ended.0.as_second() + i64::from(ttl) - now.as_second();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}
