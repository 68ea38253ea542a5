//! CronJob: starts a Job at each time of a schedule.

use std::sync::Arc;
use std::time::Duration;

use component::workqueue::Requeue;
use component::{EventType, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

use crate::context::{Context, Running, enqueue_changes};
use crate::controllers::job::{has_condition, is_finished};
use crate::owners;
use crate::writes::{Writer, code, ignore_missing, namespace_is_terminating};

mod schedule;

use schedule::Schedule;

/// Annotation of a Job with the time it was started for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are a mistake in the schedule or the clock.
const TOO_MANY: usize = 100;

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let cron = context.informer::<CronJob>();
    let jobs = context.informer::<Job>();
    jobs.add_index(owners::BY_CONTROLLER, owners::controller_keys);
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&cron, &queue);
    let wake = queue.clone();
    jobs.on_change(move |change| {
        let job = change.latest();
        if let Some(owner) = owners::controller_of(&job.metadata)
            && owner.kind == "CronJob"
        {
            wake.add(ObjectKey::new(job.namespace().unwrap_or_default(), owner.name.as_str()));
        }
    });
    let controller = Arc::new(Controller {
        writer: Writer::new(context.client.clone(), cron),
        jobs: Writer::new(context.client.clone(), jobs),
        recorder: context.recorder("cronjob-controller"),
    });
    Ok(Some(context.work("cronjob", queue, 5, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })))
}

/// Upstream's words for a schedule whose time never comes.
const NEVER: &str = "time difference between two schedules is less than 1 second";

/// What the clock says about a schedule.
#[derive(Debug, PartialEq)]
struct Due {
    /// The latest time that has passed without a Job.
    now: Option<Timestamp>,
    /// The next time.
    next: Option<Timestamp>,
    /// True when suspiciously many times have passed.
    too_many: bool,
}

impl Due {
    /// True for a schedule of days that no month has, such as 31 February.
    fn is_never(&self) -> bool {
        self.now.is_none() && self.next.is_none()
    }
}

fn due(schedule: &Schedule, zone: &TimeZone, since: Timestamp, now: Timestamp) -> Due {
    let (mut latest, mut at, mut missed) = (None, since, 0);
    loop {
        match schedule.next(at, zone) {
            Some(next) if next <= now => {
                latest = Some(next);
                at = next;
                missed += 1;
                if missed > TOO_MANY {
                    // Only the latest matters: start looking shortly before now.
                    let near = now.saturating_sub(jiff::SignedDuration::from_mins(10));
                    at = at.max(near.unwrap_or(now));
                }
            }
            next => return Due { now: latest, next, too_many: missed > TOO_MANY },
        }
    }
}

struct Controller {
    writer: Writer<CronJob>,
    jobs: Writer<Job>,
    recorder: Recorder,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let Some(cron) = self.writer.cache().get(key) else { return Ok(None) };
        let Some(spec) = &cron.spec else { return Ok(None) };
        if cron.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let now = Timestamp::now();
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let jobs: &Informer<Job> = self.jobs.cache();
        let owned = jobs.by_index(owners::BY_CONTROLLER, uid);
        self.tidy(spec, &owned).await?;
        let cron = self.note_jobs(cron.clone(), &owned).await?;
        if spec.suspend == Some(true) {
            return Ok(None);
        }
        let zone = match spec.time_zone.as_deref().map(TimeZone::get) {
            None => TimeZone::UTC,
            Some(Ok(zone)) => zone,
            Some(Err(error)) => {
                self.warn(&cron, "UnknownTimeZone", format!("invalid timeZone: {error}"));
                return Ok(None);
            }
        };
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.warn(&cron, "UnparseableSchedule", message);
                return Ok(None);
            }
        };
        let due = due(&schedule, &zone, since(&cron, now), now);
        if due.too_many {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn(&cron, "TooManyMissedTimes", message.to_owned());
        }
        if due.is_never() {
            let message = format!("invalid schedule: {} : {NEVER}", spec.schedule);
            self.warn(&cron, "InvalidSchedule", message);
        }
        if let Some(at) = due.now {
            self.start(&cron, spec, &owned, at, now).await?;
        }
        Ok(due.next.map(|next| {
            let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
            wait + Duration::from_millis(100)
        }))
    }

    fn warn(&self, cron: &CronJob, reason: &'static str, message: String) {
        self.recorder.event(cron, EventType::Warning, reason, message);
    }

    async fn start(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        owned: &[Arc<Job>],
        at: Timestamp,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        if spec
            .starting_deadline_seconds
            .is_some_and(|limit| now.as_second() - at.as_second() > limit)
        {
            let message = format!("Missed scheduled time to start a job: {at}");
            self.recorder.event(cron, EventType::Warning, "MissSchedule", message);
            return self.note_scheduled(cron, at).await;
        }
        let active: Vec<_> = owned.iter().filter(|job| !is_finished(job)).collect();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.event(
                    cron,
                    EventType::Normal,
                    "JobAlreadyActive",
                    message.to_owned(),
                );
                return Ok(());
            }
            Some("Replace") => {
                for job in active {
                    self.jobs.delete(job).await?;
                }
            }
            _ => {}
        }
        let job = job_for(cron, spec, at);
        match self.jobs.create(&job).await {
            Ok(made) => {
                let message = format!("Created job {}", made.name_any());
                self.recorder.event(cron, EventType::Normal, "SuccessfulCreate", message);
            }
            // It was started already, before a crash.
            Err(error) if code(&error) == 409 => {}
            Err(error) if namespace_is_terminating(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.note_scheduled(cron, at).await
    }

    async fn note_scheduled(&self, cron: &CronJob, at: Timestamp) -> anyhow::Result<()> {
        let mut updated = cron.clone();
        updated.status.get_or_insert_default().last_schedule_time = Some(Time(at));
        ignore_missing(self.writer.replace_status(&updated).await)?;
        Ok(())
    }

    /// Writes which Jobs run, and when one last succeeded.
    async fn note_jobs(
        &self,
        cron: Arc<CronJob>,
        owned: &[Arc<Job>],
    ) -> anyhow::Result<Arc<CronJob>> {
        let mut updated = cron.as_ref().clone();
        let status = updated.status.get_or_insert_default();
        let active: Vec<_> = owned
            .iter()
            .filter(|job| !is_finished(job))
            .map(|job| component::events::reference(job.as_ref()))
            .map(|mut reference| {
                // It changes all the time and tells nobody anything.
                reference.resource_version = None;
                reference
            })
            .collect();
        status.active = (!active.is_empty()).then_some(active);
        let ended = owned
            .iter()
            .filter(|job| has_condition(job, "Complete"))
            .filter_map(|job| job.status.as_ref()?.completion_time.clone());
        let latest = ended.max_by_key(|time| time.0);
        if latest.as_ref().map(|time| time.0) > status.last_successful_time.as_ref().map(|t| t.0) {
            status.last_successful_time = latest;
        }
        if updated.status == cron.status || (cron.status.is_none() && owned.is_empty()) {
            return Ok(cron);
        }
        Ok(ignore_missing(self.writer.replace_status(&updated).await)?.unwrap_or(cron))
    }

    /// Deletes finished Jobs beyond the history limits, oldest first.
    async fn tidy(&self, spec: &CronJobSpec, owned: &[Arc<Job>]) -> anyhow::Result<()> {
        let limits = [
            ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
            ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        for (kind, limit) in limits {
            let mut ended: Vec<_> = owned.iter().filter(|job| has_condition(job, kind)).collect();
            ended.sort_by_key(|job| job.metadata.creation_timestamp.as_ref().map(|time| time.0));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
            for job in ended.into_iter().take(surplus) {
                self.jobs.delete(job).await?;
            }
        }
        Ok(())
    }
}

/// From when on times count as missed.
fn since(cron: &CronJob, now: Timestamp) -> Timestamp {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let created = cron.metadata.creation_timestamp.as_ref();
    let since = last.or(created).map_or(now, |time| time.0);
    let deadline = cron.spec.as_ref().and_then(|spec| spec.starting_deadline_seconds);
    let horizon =
        deadline.and_then(|seconds| now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok());
    horizon.map_or(since, |horizon| since.max(horizon))
}

/// The Job of a time. Its name follows from the time, so that it is never started twice.
fn job_for(cron: &CronJob, spec: &CronJobSpec, at: Timestamp) -> Job {
    let template = spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), at.to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name_any(), at.as_second() / 60)),
            namespace: cron.namespace(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owners::controller_reference(cron)]),
            ..Default::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thirty_first_of_february_never_comes() {
        let now = Timestamp::now();
        let due = |text| due(&Schedule::parse(text).unwrap(), &TimeZone::UTC, now, now);
        assert!(due("59 23 31 2 *").is_never());
        assert!(!due("59 23 29 2 *").is_never());
    }

    #[test]
    fn only_the_latest_missed_time_is_made_up_for() {
        let schedule = Schedule::parse("*/10 * * * *").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let due = |since: &str| {
            super::due(&schedule, &TimeZone::UTC, at(since), at("2026-01-01T12:34:00Z"))
        };
        let once = due("2026-01-01T12:11:00Z");
        assert_eq!(once.now, Some(at("2026-01-01T12:30:00Z")));
        assert_eq!(once.next, Some(at("2026-01-01T12:40:00Z")));
        assert_eq!(due("2026-01-01T12:30:00Z").now, None);
        let long = due("2025-01-01T00:00:00Z");
        assert_eq!((long.now, long.too_many), (Some(at("2026-01-01T12:30:00Z")), true));
    }
}
