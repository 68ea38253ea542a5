//! ResourceQuotas: keeps what each quota shows as used in step with the objects that are there.
//!
//! ```text
//!  caches of pods, Services, claims ──┐
//!  metadata of the kinds that some ───┤ a change wakes the namespace's quotas that count the kind
//!  quota counts (`kinds`)             ▼
//!                          count (`machinery::quota`) ──► status, if the quota is still as it was
//! ```
//!
//! An API server may raise what is used when it admits an object, before any cache shows that
//! object. So a new object only ever raises the counts; a change or the end of an object, a new
//! limit and the periodic look may lower them too.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use component::workqueue::Requeue;
use component::{Change, Informer, Object, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use machinery::GroupResource;
use machinery::quota::{Scopes, counted_by};

use crate::context::{Context, Running, together};
use crate::pods;
use crate::writes::{Writer, ignore_missing};

mod kinds;
mod memo;
mod sum;

use kinds::{Kinds, TIDY_PERIOD};
use memo::Memo;
use sum::{Amounts, Objects};

/// How soon a kind that nobody serves is looked for again.
const UNKNOWN_KIND: Duration = Duration::from_secs(10);

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is new.
    Came,
    /// It is gone, or counts for something else.
    Changed,
}

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let quotas = context.informer::<ResourceQuota>();
    let bell = Arc::new(Bell {
        quotas: quotas.clone(),
        queue: Arc::new(WorkQueue::new()),
        lower: Mutex::new(HashSet::new()),
    });
    let pods = pods::informer(context);
    let services = context.informer::<Service>();
    let claims = context.informer::<PersistentVolumeClaim>();
    watch_quotas(&quotas, &bell);
    watch(&pods, "pods", &bell, pod_counts_the_same);
    watch(&services, "services", &bell, |old, new| old.spec == new.spec);
    watch(&claims, "persistentvolumeclaims", &bell, |old, new| {
        old.spec == new.spec && old.status == new.status
    });
    let kinds = Arc::new(Kinds::new(context, bell.clone()));
    let controller = Arc::new(Controller {
        writer: Writer::new(context.client.clone(), quotas.clone()),
        pods: Memo::new(pods, "pods"),
        services: Memo::new(services, "services"),
        claims: Memo::new(claims, "persistentvolumeclaims"),
        kinds: kinds.clone(),
        bell: bell.clone(),
    });
    let workers = context.config.workers.resource_quota;
    let period = context.config.resource_quota_sync_period;
    let queue = bell.queue.clone();
    let (all, tidied) = (quotas.clone(), quotas);
    Ok(Some(together(vec![
        context.work("resourcequota", queue, workers, move |key| {
            let controller = controller.clone();
            async move { controller.sync(&key).await }
        }),
        context.every(period, move || {
            for quota in all.list() {
                bell.ring(ObjectKey::of(quota.as_ref()), Step::Changed);
            }
            std::future::ready(())
        }),
        context.every(TIDY_PERIOD, move || {
            let (kinds, quotas) = (kinds.clone(), tidied.list());
            async move { kinds.tidy(&counted_kinds(&quotas)).await }
        }),
    ])))
}

fn counted_kinds(quotas: &[Arc<ResourceQuota>]) -> HashSet<GroupResource> {
    quotas.iter().flat_map(|quota| hard_names(quota)).filter_map(counted_by).collect()
}

fn hard_names(quota: &ResourceQuota) -> impl Iterator<Item = &str> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    hard.into_iter().flatten().map(|(name, _)| name.as_str())
}

fn pod_counts_the_same(old: &Pod, new: &Pod) -> bool {
    pods::is_finished(old) == pods::is_finished(new)
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && sizes(old) == sizes(new)
}

/// Everything about a pod's size, and its deadline.
fn sizes(pod: &Pod) -> impl PartialEq {
    let spec = pod.spec.as_ref();
    let first = spec.and_then(|spec| spec.init_containers.as_ref());
    let asked = first.into_iter().chain(spec.map(|spec| &spec.containers)).flatten();
    let asked: Vec<_> = asked.map(|container| container.resources.clone()).collect();
    let status = pod.status.as_ref();
    let first = status.and_then(|status| status.init_container_statuses.as_ref());
    let main = status.and_then(|status| status.container_statuses.as_ref());
    let given = first.into_iter().chain(main).flatten();
    let given: Vec<_> = given
        .map(|c| (c.name.clone(), c.resources.clone(), c.allocated_resources.clone()))
        .collect();
    (spec.and_then(|spec| spec.active_deadline_seconds), asked, given)
}

/// Wakes quotas.
struct Bell {
    quotas: Arc<Informer<ResourceQuota>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    /// Quotas whose counts may become lower the next time.
    lower: Mutex<HashSet<ObjectKey>>,
}

impl Bell {
    fn lower(&self) -> MutexGuard<'_, HashSet<ObjectKey>> {
        self.lower.lock().expect("no code panics while it holds this lock")
    }

    fn ring(&self, quota: ObjectKey, step: Step) {
        if step == Step::Changed {
            self.lower().insert(quota.clone());
        }
        self.queue.add(quota);
    }

    /// Wakes the quotas of a namespace that count a resource.
    fn object(&self, resource: &GroupResource, namespace: &str, step: Step) {
        for quota in self.quotas.list_namespace(namespace) {
            if hard_names(&quota).any(|name| counted_by(name).as_ref() == Some(resource)) {
                self.ring(ObjectKey::of(quota.as_ref()), step);
            }
        }
    }

    /// Wakes the quotas of all namespaces that count a resource.
    fn everywhere(&self, resource: &GroupResource) {
        let quotas = self.quotas.list();
        let all: HashSet<_> =
            quotas.iter().filter_map(|quota| quota.metadata.namespace.as_deref()).collect();
        for namespace in all {
            self.object(resource, namespace, Step::Changed);
        }
    }
}

/// A quota is looked at when it is new, when its limits change, and when its status shows other
/// limits than its own.
fn watch_quotas(quotas: &Informer<ResourceQuota>, bell: &Arc<Bell>) {
    let (bell, resource) = (bell.clone(), GroupResource::new("", "resourcequotas"));
    quotas.on_change(move |change| {
        let quota = change.latest();
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        match (change.old, change.new) {
            (None, _) => bell.object(&resource, namespace, Step::Came),
            (_, None) => bell.object(&resource, namespace, Step::Changed),
            _ => {}
        }
        let due = match (change.old, change.new) {
            (Some(old), Some(new)) => old.spec != new.spec || !sum::shows_its_limits(new),
            _ => true,
        };
        if due {
            bell.ring(ObjectKey::of(quota.as_ref()), Step::Changed);
        }
    });
}

fn watch<K: Object>(
    cache: &Informer<K>,
    plural: &'static str,
    bell: &Arc<Bell>,
    counts_the_same: fn(&K, &K) -> bool,
) {
    let (bell, resource) = (bell.clone(), GroupResource::new("", plural));
    cache.on_change(move |change: &Change<'_, K>| {
        let step = match (change.old, change.new) {
            (None, _) => Step::Came,
            (Some(old), Some(new)) if counts_the_same(old, new) => return,
            (Some(_), _) => Step::Changed,
        };
        let namespace = change.latest().meta().namespace.as_deref().unwrap_or_default();
        bell.object(&resource, namespace, step);
    });
}

struct Controller {
    writer: Writer<ResourceQuota>,
    pods: Memo<Pod>,
    services: Memo<Service>,
    claims: Memo<PersistentVolumeClaim>,
    kinds: Arc<Kinds>,
    bell: Arc<Bell>,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let may_fall = self.bell.lower().remove(key);
        let Some(quota) = self.writer.cache().get(key) else {
            if self.writer.cache().list_namespace(&key.namespace).is_empty() {
                self.pods.forget(&key.namespace);
                self.services.forget(&key.namespace);
                self.claims.forget(&key.namespace);
            }
            return Ok(None);
        };
        let outcome = self.update(&quota, may_fall).await;
        if outcome.is_err() && may_fall {
            self.bell.lower().insert(key.clone());
        }
        outcome
    }

    async fn update(&self, quota: &ResourceQuota, may_fall: bool) -> anyhow::Result<Requeue> {
        let scopes = Scopes::of(&serde_json::to_value(quota)?);
        let mut wanted: BTreeMap<GroupResource, Vec<&str>> = BTreeMap::new();
        for name in hard_names(quota) {
            if let Some(resource) = counted_by(name) {
                wanted.entry(resource).or_default().push(name);
            }
        }
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        let (mut counted, mut outcome) = (Amounts::new(), Ok(None));
        for (resource, names) in wanted {
            match self.objects(&resource, namespace).await {
                Ok(Found::Objects(objects)) => {
                    counted.extend(sum::total(&objects, &names, &scopes, Timestamp::now()));
                }
                Ok(Found::Listing) => {}
                Ok(Found::Unknown) => outcome = outcome.and(Ok(Some(UNKNOWN_KIND))),
                // What can be counted is shown all the same.
                Err(error) => outcome = Err(error),
            }
        }
        if let Some(status) = sum::status(quota, &counted, may_fall) {
            let mut updated = quota.clone();
            updated.status = Some(status);
            ignore_missing(self.writer.replace_status(&updated).await)?;
        }
        outcome
    }

    async fn objects(&self, resource: &GroupResource, namespace: &str) -> anyhow::Result<Found> {
        let memorized = match (resource.group.as_str(), resource.resource.as_str()) {
            ("", "pods") => self.pods.list(namespace)?,
            ("", "services") => self.services.list(namespace)?,
            ("", "persistentvolumeclaims") => self.claims.list(namespace)?,
            ("", "resourcequotas") => {
                let all = self.writer.cache().list_namespace(namespace).len();
                return Ok(Found::Objects(Objects::Alike(all)));
            }
            _ => return self.kinds.count(resource, namespace).await,
        };
        Ok(Found::Objects(Objects::Counted(memorized)))
    }
}

/// What is known of a kind's objects.
enum Found {
    /// All of them in the namespace.
    Objects(Objects),
    /// The first list is under way; the quotas are woken when it is complete.
    Listing,
    /// No such kind is served.
    Unknown,
}
