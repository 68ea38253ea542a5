//! List-and-watch: keeps the store in step with the API server and tells the handlers.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use kube::Api;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_kind};
use serde::de::DeserializeOwned;

use super::{Change, Informer, Object, ObjectKey};

/// Delays between attempts while the API server does not answer: quick at first, since a restart of
/// the server takes under a second.
#[derive(Clone, Copy)]
struct WatchBackoff(Duration);

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(3);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = self.0;
        self.0 = (delay * 2).min(LAST_DELAY);
        Some(delay)
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.0 = FIRST_DELAY;
    }
}

/// True when the version to resume from is too old, so that only a new list helps.
fn must_relist(error: &watcher::Error) -> bool {
    let code = match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        watcher::Error::WatchError(status) => status.code,
        _ => return false,
    };
    code == 410
}

/// List-and-watch that never ends: failures are retried with back-off, and a version that is too old
/// leads to a new list, whether the server says so in the stream or as the answer to the request.
pub fn events<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Event<K>> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    stream::unfold((None, 0_u32), move |(mut current, mut failures)| {
        let (api, config) = (api.clone(), config.clone());
        async move {
            loop {
                let events: &mut BoxStream<'static, _> = current.get_or_insert_with(|| {
                    let events = watch_kind(api.clone(), config.clone());
                    events.backoff(WatchBackoff(FIRST_DELAY)).boxed()
                });
                match events.next().await {
                    Some(Ok(event)) => return Some((event, (current, 0))),
                    Some(Err(error)) => {
                        failures += 1;
                        if failures.is_power_of_two() {
                            let resource = api.resource_url();
                            tracing::info!(resource, failures, "watching is interrupted: {error}");
                        }
                        if must_relist(&error) {
                            current = None;
                            tokio::time::sleep(FIRST_DELAY).await;
                        }
                    }
                    None => current = None,
                }
            }
        }
    })
}

impl<K: Object> Informer<K> {
    /// Runs for ever.
    pub(super) async fn reflect(&self) {
        let mut events = std::pin::pin!(events(self.api.clone(), self.config.clone()));
        let mut listed: Vec<Arc<K>> = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Init => {
                    listed.clear();
                    self.write().written_during_list = Some(BTreeSet::new());
                }
                Event::InitApply(object) => listed.push(Arc::new(lean(object))),
                Event::InitDone => self.replace(std::mem::take(&mut listed)).await,
                Event::Apply(object) => self.apply(Arc::new(lean(object)), false),
                Event::Delete(object) => self.remove(&object, false),
            }
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, super::Store<K>> {
        self.store.write().expect("the store does not panic")
    }

    fn notify(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        let change = Change { old, new };
        for handler in self.handlers.read().expect("handlers do not panic").iter() {
            handler(&change);
        }
    }

    pub(super) fn apply(&self, object: Arc<K>, local: bool) {
        let (replaced, (taken, old)) = {
            let mut store = self.write();
            // The same name with another uid is another object: its predecessor is gone.
            let key = ObjectKey::of(object.as_ref());
            let stale = !local
                && store.objects.get(&key).is_some_and(|held| held.meta().uid != object.meta().uid);
            let replaced = if stale { store.take(&key) } else { None };
            (replaced, store.apply(object.clone(), local))
        };
        if let Some(replaced) = &replaced {
            self.notify(Some(replaced), None);
        }
        if taken {
            self.notify(old.as_ref(), Some(&object));
        }
    }

    pub(super) fn remove(&self, object: &K, _local: bool) {
        let old = self.write().remove(object);
        if let Some(old) = old {
            self.notify(Some(&old), None);
        }
    }

    async fn replace(&self, listed: Vec<Arc<K>>) {
        let (changes, unsure) = self.write().replace(listed);
        for (old, new) in &changes {
            self.notify(old.as_ref(), new.as_ref());
        }
        self.synced.send_replace(true);
        for key in unsure {
            self.confirm(&key).await;
        }
    }

    /// Asks the API server about an object that a list did not show although this process wrote it
    /// while the list was under way. If it is gone already, no watch event will ever say so.
    async fn confirm(&self, key: &ObjectKey) {
        let Some(held) = self.get(key) else { return };
        let mut url = K::url_path(&(), held.meta().namespace.as_deref());
        url.push('/');
        url.push_str(&key.name);
        let request = http::Request::get(url).body(Vec::new());
        let request = request.expect("a resource's path is a valid URL");
        match self.api.clone().into_client().request::<K>(request).await {
            Ok(object) => self.apply(Arc::new(lean(object)), false),
            Err(kube::Error::Api(status)) if status.code == 404 => self.remove(&held, false),
            Err(error) => tracing::debug!(%key, "could not confirm an object: {error}"),
        }
    }
}

/// Field ownership is large and no component reads it.
pub(super) fn lean<K: Object>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}
