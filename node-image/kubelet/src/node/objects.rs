//! ConfigMaps, Secrets and Services by name, kept for a short time.
//!
//! Only what this node's pods name is ever asked for (the API server lets a node see no more),
//! and nothing is watched: a pod that starts reads fresh, a refresh may be up to a minute old.

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

/// Kept longer than this, an object that nobody asks for is dropped.
const KEEP: Duration = Duration::from_secs(120);

type Kept<K, T> = Mutex<HashMap<K, (Instant, Option<Arc<T>>)>>;

/// See the module documentation.
pub struct Objects {
    client: Client,
    config_maps: Kept<(String, String), ConfigMap>,
    secrets: Kept<(String, String), Secret>,
    services: Kept<String, Vec<Service>>,
}

fn held<K: Eq + Hash, T>(kept: &Kept<K, T>, key: &K, age: Age) -> Option<Option<Arc<T>>> {
    let mut kept = kept.lock().expect("no holder panics");
    kept.retain(|_, (at, _)| at.elapsed() < KEEP);
    kept.get(key).filter(|(at, _)| at.elapsed() < age.limit()).map(|(_, object)| object.clone())
}

fn keep<K: Eq + Hash, T>(kept: &Kept<K, T>, key: K, object: Option<Arc<T>>) -> Option<Arc<T>> {
    kept.lock().expect("no holder panics").insert(key, (Instant::now(), object.clone()));
    object
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
        if let Some(found) = held(&self.config_maps, &key, age) {
            return Ok(found);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await?.map(Arc::new);
        Ok(keep(&self.config_maps, key, found))
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
        if let Some(found) = held(&self.secrets, &key, age) {
            return Ok(found);
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await?.map(Arc::new);
        Ok(keep(&self.secrets, key, found))
    }

    /// The Services of a namespace.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn services(&self, namespace: &str) -> kube::Result<Arc<Vec<Service>>> {
        let key = namespace.to_owned();
        if let Some(Some(found)) = held(&self.services, &key, Age::Fresh) {
            return Ok(found);
        }
        let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let found = Arc::new(api.list(&ListParams::default()).await?.items);
        keep(&self.services, key, Some(found.clone()));
        Ok(found)
    }
}
