//! Shared caches: one list-and-watch per kind and process, with change notification and indexes.
//!
//! What a component itself wrote is put into the cache at once ([`Informer::observe`]), so that its
//! next decision already sees it; there is no window in which a controller counts too few of the
//! pods that it has just made. Resource versions decide which of two copies is newer (they are
//! comparable integers since Kubernetes 1.35, KEP-5504).

mod reflect;
mod store;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, RwLock};

use kube::runtime::watcher;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::reflect::events;
use self::store::Store;

/// A kind with a static type.
pub trait Object:
    kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}
impl<K> Object for K where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// One object's step from one state to the next. `old` is missing for a new object, `new` for one
/// that is gone.
#[derive(Debug)]
pub struct Change<'a, K> {
    /// What the cache held before.
    pub old: Option<&'a Arc<K>>,
    /// What it holds now.
    pub new: Option<&'a Arc<K>>,
}

impl<K> Change<'_, K> {
    /// The newest copy known.
    pub fn latest(&self) -> &Arc<K> {
        self.new.or(self.old).expect("a change has an old or a new side")
    }
}

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;

/// The cache of one kind.
pub struct Informer<K> {
    api: Api<K>,
    config: watcher::Config,
    store: RwLock<Store<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K: Object> Informer<K> {
    /// A cache of what `api` and the selectors of `config` show. Nothing happens before
    /// [`Informer::start`].
    pub fn new(api: Api<K>, config: watcher::Config) -> Self {
        Self {
            api,
            config,
            store: RwLock::new(Store::default()),
            handlers: RwLock::new(Vec::new()),
            synced: watch::Sender::new(false),
        }
    }

    /// Calls `handler` for each change, in order, on the task that brought it. It must be quick and
    /// must not block: typically it puts a key into a queue.
    pub fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.handlers.write().expect("handlers do not panic").push(Box::new(handler));
    }

    /// Adds an index by whatever `keys` returns for an object. Call it before the informer starts.
    pub fn add_index(&self, name: &'static str, keys: fn(&K) -> Vec<String>) {
        self.store.write().expect("the store does not panic").add_index(name, keys);
    }

    /// Starts list-and-watch in a task of its own.
    pub fn start(self: &Arc<Self>, shutdown: CancellationToken) {
        let this = self.clone();
        tokio::spawn(async move {
            tokio::select! { () = shutdown.cancelled() => {}, () = this.reflect() => {} }
        });
    }

    /// Waits for the first complete list.
    pub async fn wait_synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|done| *done).await;
    }

    /// True after the first complete list.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Store<K>> {
        self.store.read().expect("the store does not panic")
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// One cluster-scoped object.
    pub fn get_cluster(&self, name: &str) -> Option<Arc<K>> {
        self.get(&ObjectKey::new("", name))
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// All objects of a namespace, ordered by name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let store = self.read();
        let from = ObjectKey::new(namespace, "");
        store
            .objects
            .range(from..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// All objects for which the index `name` returned `value`.
    ///
    /// # Panics
    /// When there is no such index.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.read().by_index(name, value)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// True when there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts what the API server answered to a create, update or patch into the cache.
    pub fn observe(&self, object: K) -> Arc<K> {
        let object = Arc::new(reflect::lean(object));
        self.apply(object.clone(), true);
        object
    }

    /// Takes an object out of the cache that the API server said it has deleted for good.
    pub fn observe_deleted(&self, object: &K) {
        self.remove(object, true);
    }
}

/// All caches of a process, one per kind.
pub struct Informers {
    client: Client,
    state: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    by_type: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    starts: Vec<Box<dyn Startable>>,
    running: Option<CancellationToken>,
}

trait Startable: Send + Sync {
    fn start(&self, shutdown: CancellationToken);
    fn kind(&self) -> String;
    fn synced(&self) -> bool;
    fn subscribe(&self) -> watch::Receiver<bool>;
}

impl<K: Object> Startable for Arc<Informer<K>> {
    fn start(&self, shutdown: CancellationToken) {
        Informer::start(self, shutdown);
    }

    fn kind(&self) -> String {
        K::kind(&()).into_owned()
    }

    fn synced(&self) -> bool {
        self.is_synced()
    }

    fn subscribe(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }
}

impl Informers {
    /// No caches yet.
    pub fn new(client: Client) -> Self {
        Self { client, state: Mutex::new(Registry::default()) }
    }

    /// The process's cache of a kind, over all namespaces. It starts at once if
    /// [`Informers::start`] was already called.
    pub fn of<K: Object>(&self) -> Arc<Informer<K>> {
        let mut state = self.state.lock().expect("no code panics while it holds this lock");
        if let Some(found) = state.by_type.get(&TypeId::of::<K>()) {
            let found = found.clone().downcast::<Informer<K>>();
            return found.expect("the map is keyed by the informer's type");
        }
        let api = Api::all(self.client.clone());
        let informer = Arc::new(Informer::<K>::new(api, watcher::Config::default()));
        state.by_type.insert(TypeId::of::<K>(), informer.clone());
        if let Some(shutdown) = &state.running {
            informer.start(shutdown.clone());
        }
        state.starts.push(Box::new(informer.clone()));
        informer
    }

    /// Starts all caches asked for so far and waits until each holds a complete list.
    pub async fn start(&self, shutdown: CancellationToken) {
        let mut waits = Vec::new();
        {
            let mut state = self.state.lock().expect("no code panics while it holds this lock");
            state.running = Some(shutdown.clone());
            for informer in &state.starts {
                informer.start(shutdown.clone());
                waits.push(informer.subscribe());
            }
        }
        let all = futures::future::join_all(
            waits.iter_mut().map(|synced| async { synced.wait_for(|done| *done).await.is_ok() }),
        );
        tokio::select! { () = shutdown.cancelled() => {}, _ = all => {} }
    }

    /// Kinds whose first list is still missing.
    pub fn unsynced(&self) -> Vec<String> {
        let state = self.state.lock().expect("no code panics while it holds this lock");
        state.starts.iter().filter(|i| !i.synced()).map(|i| i.kind()).collect()
    }
}
