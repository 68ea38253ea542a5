//! How many objects of any other kind a namespace has: the metadata of a kind is watched from the
//! time that some quota first counts it until none does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use component::informer::events;
use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::core::metadata::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use machinery::GroupResource;
use tokio_util::sync::CancellationToken;

use super::sum::Objects;
use super::{Bell, Found, Step};
use crate::context::Context;
use crate::discovery::{self, Resource};

/// How often kinds that nobody counts or serves any more are let go.
pub(super) const TIDY_PERIOD: Duration = Duration::from_secs(30);
/// Shortest time between two questions of what is served.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(5);
/// Never counted, in any group.
const IGNORED: [&str; 1] = ["events"];

/// See the module documentation.
pub(super) struct Kinds {
    client: Client,
    /// For the watches, on a connection of their own.
    watching: Client,
    bell: Arc<Bell>,
    watched: Mutex<HashMap<GroupResource, Kind>>,
    served: tokio::sync::Mutex<Served>,
    shutdown: CancellationToken,
}

#[derive(Default)]
struct Served {
    asked: Option<Instant>,
    resources: Vec<Resource>,
    /// Group versions that did not answer, with the reason.
    failed: Vec<(String, String)>,
}

/// Names by namespace.
type Names = BTreeMap<String, HashSet<String>>;

struct Kind {
    api_version: String,
    stop: CancellationToken,
    /// `None` until the first list is complete.
    names: Arc<Mutex<Option<Names>>>,
}

fn locked(names: &Mutex<Option<Names>>) -> MutexGuard<'_, Option<Names>> {
    names.lock().expect("no code panics while it holds this lock")
}

impl Kinds {
    /// Watches nothing yet.
    pub(super) fn new(context: &Context, bell: Arc<Bell>) -> Self {
        Self {
            client: context.client.clone(),
            watching: context.manager.bulk.clone(),
            bell,
            watched: Mutex::new(HashMap::new()),
            served: tokio::sync::Mutex::default(),
            shutdown: context.shutdown.clone(),
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<GroupResource, Kind>> {
        self.watched.lock().expect("no code panics while it holds this lock")
    }

    /// The objects in a namespace. The first question about a kind starts its watch.
    pub(super) async fn count(
        &self,
        resource: &GroupResource,
        namespace: &str,
    ) -> anyhow::Result<Found> {
        if let Some(kind) = self.watched().get(resource) {
            return Ok(match locked(&kind.names).as_ref() {
                Some(names) => {
                    let count = names.get(namespace).map_or(0, HashSet::len);
                    Found::Objects(Objects::Alike(count))
                }
                None => Found::Listing,
            });
        }
        let Some(served) = self.find(resource).await? else { return Ok(Found::Unknown) };
        self.watched().entry(resource.clone()).or_insert_with(|| self.watch(resource, served));
        Ok(Found::Listing)
    }

    async fn find(&self, wanted: &GroupResource) -> anyhow::Result<Option<Resource>> {
        let mut served = self.served.lock().await;
        let is_due = served.asked.is_none_or(|at| at.elapsed() >= DISCOVERY_PERIOD);
        if is_due && !matches!(served.find(wanted), Ok(Some(_))) {
            served.refresh(&self.client).await?;
        }
        served.find(wanted)
    }

    /// Stops watching kinds that no quota counts, or that are not served any more.
    pub(super) async fn tidy(&self, counted: &HashSet<GroupResource>) {
        if self.watched().is_empty() {
            return;
        }
        let mut served = self.served.lock().await;
        if let Err(error) = served.refresh(&self.client).await {
            tracing::debug!("quotas could not read what is served: {error:#}");
            return;
        }
        let mut ended = Vec::new();
        self.watched().retain(|resource, kind| {
            let is_served = served
                .resources
                .iter()
                .any(|r| is(r, resource) && r.api_version == kind.api_version);
            let keep = is_served && counted.contains(resource);
            if !keep {
                kind.stop.cancel();
                ended.push(resource.clone());
            }
            keep
        });
        // It may be served in another version.
        for resource in ended {
            self.bell.everywhere(&resource);
        }
    }

    fn watch(&self, resource: &GroupResource, served: Resource) -> Kind {
        let stop = self.shutdown.child_token();
        let names = Arc::new(Mutex::new(None));
        let (_, version) = served.api_version.split_once('/').unwrap_or(("", &served.api_version));
        let kind = ApiResource {
            group: resource.group.clone(),
            version: version.to_owned(),
            api_version: served.api_version.clone(),
            kind: served.kind,
            plural: served.plural,
        };
        let api = Api::all_with(self.watching.clone(), &kind);
        let watch = observe(api, resource.clone(), names.clone(), self.bell.clone());
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! { () = stopped.cancelled() => {}, () = watch => {} }
        });
        Kind { api_version: served.api_version, stop, names }
    }
}

impl Served {
    async fn refresh(&mut self, client: &Client) -> anyhow::Result<()> {
        let mut found = discovery::discover(client).await?;
        found.keep_unanswered(&self.resources);
        *self =
            Self { asked: Some(Instant::now()), resources: found.resources, failed: found.failed };
        Ok(())
    }

    /// `None` when the kind is not served.
    ///
    /// # Errors
    /// When that is unknown, because its group did not answer.
    fn find(&self, wanted: &GroupResource) -> anyhow::Result<Option<Resource>> {
        let found = self.resources.iter().find(|resource| is(resource, wanted)).cloned();
        let group =
            |version: &str| version.split_once('/').map_or("", |(group, _)| group) == wanted.group;
        match self.failed.iter().find(|(version, _)| group(version)) {
            Some((version, why)) if found.is_none() => anyhow::bail!("{version}: {why}"),
            _ => Ok(found),
        }
    }
}

fn is(served: &Resource, wanted: &GroupResource) -> bool {
    served.group() == wanted.group
        && served.plural == wanted.resource
        && served.namespaced
        && served.can(&["create", "list", "watch", "delete"])
        && !IGNORED.contains(&served.plural.as_str())
}

/// Runs for ever.
async fn observe(
    api: Api<PartialObjectMeta<DynamicObject>>,
    resource: GroupResource,
    names: Arc<Mutex<Option<Names>>>,
    bell: Arc<Bell>,
) {
    let mut events = std::pin::pin!(events(api, watcher::Config::default()));
    let mut listed = Names::new();
    let of = |object: &PartialObjectMeta<DynamicObject>| {
        let meta = &object.metadata;
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    };
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                let (namespace, name) = of(&object);
                listed.entry(namespace).or_default().insert(name);
            }
            Event::InitDone => {
                *locked(&names) = Some(std::mem::take(&mut listed));
                // Where nothing was found, something may be shown as used.
                bell.everywhere(&resource);
            }
            Event::Apply(object) => {
                let (namespace, name) = of(&object);
                let is_new = locked(&names)
                    .as_mut()
                    .is_some_and(|names| names.entry(namespace.clone()).or_default().insert(name));
                if is_new {
                    bell.object(&resource, &namespace, Step::Came);
                }
            }
            Event::Delete(object) => {
                let (namespace, name) = of(&object);
                if let Some(names) = locked(&names).as_mut() {
                    remove(names, &namespace, &name);
                }
                bell.object(&resource, &namespace, Step::Changed);
            }
        }
    }
}

fn remove(names: &mut Names, namespace: &str, name: &str) {
    let Some(inside) = names.get_mut(namespace) else { return };
    inside.remove(name);
    if inside.is_empty() {
        names.remove(namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_does_not_answer_hides_only_its_own_kinds() {
        let secrets = Resource {
            api_version: "v1".into(),
            kind: "Secret".into(),
            plural: "secrets".into(),
            namespaced: true,
            verbs: ["create", "list", "watch", "delete"].map(str::to_owned).to_vec(),
        };
        let served = Served {
            asked: None,
            resources: vec![secrets.clone()],
            failed: vec![("metrics.k8s.io/v1".into(), "503".into())],
        };
        let find = |group: &str, plural: &str| served.find(&GroupResource::new(group, plural));
        assert_eq!(find("", "secrets").unwrap(), Some(secrets));
        assert_eq!(find("example.com", "things").unwrap(), None);
        assert!(find("metrics.k8s.io", "pods").is_err());
    }
}
