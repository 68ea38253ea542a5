//! ConfigMaps, Secrets and Services by name, kept for a short time.
//!
//! Only what this node's pods name is ever asked for (the API server lets a node see no more),
//! and nothing is watched: a pod that starts reads fresh, a refresh may be up to a minute old. While
//! the API server is away, what was read last serves.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::ListParams;
use kube::{Api, Client};

/// How long an object may have been kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Asked for now (or within the last second, so that replicas share an answer).
    Fresh,
    /// Up to 45 s: for volumes of running pods.
    Recent,
}

impl Age {
    fn limit(self) -> Duration {
        match self {
            Age::Fresh => Duration::from_secs(1),
            Age::Recent => Duration::from_secs(45),
        }
    }
}

/// How long the API server may take before what is kept has to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// An object that nobody has asked for in this time is dropped.
const KEEP: Duration = Duration::from_secs(24 * 3600);

struct Entry<T> {
    fetched: Instant,
    used: Instant,
    object: Option<Arc<T>>,
}

type Kept<K, T> = Mutex<HashMap<K, Entry<T>>>;

/// The object as kept, if it is young enough; else as `fetch` brings it. When the API server
/// does not answer, what is kept serves however old it is, so that a container can restart
/// while the control plane is away.
async fn through<K, T, F>(
    kept: &Kept<K, T>,
    key: K,
    age: Age,
    fetch: F,
) -> kube::Result<Option<Arc<T>>>
where
    K: Eq + Hash,
    F: Future<Output = kube::Result<Option<T>>>,
{
    let now = Instant::now();
    {
        let mut kept = kept.lock().expect("no holder panics");
        kept.retain(|_, entry| entry.used.elapsed() < KEEP);
        if let Some(entry) = kept.get_mut(&key) {
            entry.used = now;
            if entry.fetched.elapsed() < age.limit() {
                return Ok(entry.object.clone());
            }
        }
    }
    let answer = tokio::time::timeout(PATIENCE, fetch).await;
    let mut kept = kept.lock().expect("no holder panics");
    let old = kept.get(&key).map(|entry| entry.object.clone());
    match (answer, old) {
        (Ok(Ok(found)), _) => {
            let object = found.map(Arc::new);
            kept.insert(key, Entry { fetched: now, used: now, object: object.clone() });
            Ok(object)
        }
        // The API server has decided: that is an answer.
        (Ok(Err(kube::Error::Api(status))), _) if status.code < 500 => {
            Err(kube::Error::Api(status))
        }
        (Ok(Err(_)) | Err(_), Some(old)) => Ok(old),
        (Ok(Err(error)), None) => Err(error),
        (Err(_), None) => Err(kube::Error::Service("no answer from the API server in time".into())),
    }
}

/// See the module documentation.
pub struct Objects {
    client: Client,
    config_maps: Kept<(String, String), ConfigMap>,
    secrets: Kept<(String, String), Secret>,
    services: Kept<String, Vec<Service>>,
}

impl Objects {
    /// Reads through `client`.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            config_maps: Mutex::default(),
            secrets: Mutex::default(),
            services: Mutex::default(),
        }
    }

    /// A ConfigMap; `None` when there is none.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        age: Age,
    ) -> kube::Result<Option<Arc<ConfigMap>>> {
        let key = (namespace.to_owned(), name.to_owned());
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        through(&self.config_maps, key, age, api.get_opt(name)).await
    }

    /// A Secret; `None` when there is none.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
        age: Age,
    ) -> kube::Result<Option<Arc<Secret>>> {
        let key = (namespace.to_owned(), name.to_owned());
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        through(&self.secrets, key, age, api.get_opt(name)).await
    }

    /// The Services of a namespace.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn services(&self, namespace: &str) -> kube::Result<Arc<Vec<Service>>> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default();
        let list = async { Ok(Some(api.list(&params).await?.items)) };
        Ok(through(&self.services, namespace.to_owned(), Age::Fresh, list)
            .await?
            .unwrap_or_default())
    }
}
