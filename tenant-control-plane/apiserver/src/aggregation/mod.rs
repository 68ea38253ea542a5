//! Extension API servers: an APIService with a Service says that a group and version is served by
//! that Service's endpoints, and requests for it are passed on there, with headers that say who
//! asks. They pass authentication and authorization here first; what an extension server decides
//! about them is its own affair.
//!
//! ```text
//!  APIServices (cache) ─► Server ─┬► forward       a request goes to one of the endpoints
//!                                 ├► availability  is it there? writes `status.conditions`
//!                                 └► discovery     what it serves, told along with our own
//! ```
//!
//! Source: Kubernetes documentation, "Kubernetes API Aggregation Layer".

pub mod availability;
pub mod discovery;
mod forward;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::{GroupResource, ObjectSource};
use rustls::ClientConfig;
use serde_json::Value;
use streaming::tls::{ProxyClient, extension_config};

use crate::cache::Caches;
use crate::strategy::registration::PORT;
use discovery::Document;
pub use forward::forward;

/// The condition that says whether requests are passed on.
const AVAILABLE: &str = "Available";

fn api_services() -> GroupResource {
    GroupResource::new("apiregistration.k8s.io", "apiservices")
}

type Servers = Arc<[Arc<Server>]>;

/// The extension API servers.
pub struct Aggregation {
    client: Option<ProxyClient>,
    /// As of a generation of the cache.
    parsed: RwLock<Option<(u64, Servers)>>,
    /// What each said that it serves, by the name of its APIService.
    documents: RwLock<HashMap<String, Arc<Document>>>,
}

/// An extension API server as its APIService describes it.
#[derive(Debug)]
pub struct Server {
    /// Name of the APIService.
    name: String,
    group: String,
    version: String,
    group_priority: i64,
    version_priority: i64,
    namespace: String,
    service: String,
    port: u16,
    tls: Result<Arc<ClientConfig>, String>,
    is_available: bool,
    uid: String,
    spec: Value,
}

impl Aggregation {
    /// No servers yet; they are read from the caches when they are needed. They are shown the
    /// certificate of `client`, if there is one.
    pub fn new(client: Option<ProxyClient>) -> Self {
        Self { client, parsed: RwLock::default(), documents: RwLock::default() }
    }

    /// All extension API servers.
    pub fn servers(&self, caches: &Caches) -> Servers {
        let resource = api_services();
        let generation = ObjectSource::generation(caches, &resource);
        if let Some((of, servers)) = &*self.parsed.read().expect("no panic while locked")
            && *of == generation
        {
            return servers.clone();
        }
        let all = ObjectSource::list(caches, &resource, None);
        let servers: Servers =
            all.iter().filter_map(|object| self.server(object)).map(Arc::new).collect();
        *self.parsed.write().expect("no panic while locked") = Some((generation, servers.clone()));
        servers
    }

    /// The server that a request's path belongs to: `/apis/<group>/<version>` and everything below,
    /// and the document with its schemas.
    pub fn server_of(&self, caches: &Caches, path: &str) -> Option<Arc<Server>> {
        let servers = self.servers(caches);
        if servers.is_empty() {
            return None;
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version) = match parts[..] {
            ["apis", group, version, ..] => (group, version),
            ["openapi", "v3", "apis", group, version] => (group, version),
            _ => return None,
        };
        servers.iter().find(|s| s.group == group && s.version == version).cloned()
    }

    fn server(&self, object: &Value) -> Option<Server> {
        let spec = &object["spec"];
        if spec["group"].as_str().unwrap_or_default().is_empty() {
            // The core group is served here.
            return None;
        }
        let reference = spec["service"].as_object()?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let of = |key: &str| reference.get(key).map(text).unwrap_or_default();
        let port = reference.get("port").and_then(Value::as_u64);
        let number = |key: &str| spec[key].as_i64().unwrap_or_default();
        Some(Server {
            name: text(&object["metadata"]["name"]),
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            group_priority: number("groupPriorityMinimum"),
            version_priority: number("versionPriority"),
            namespace: of("namespace"),
            service: of("name"),
            port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT),
            tls: self.tls(spec),
            is_available: condition(object).is_some_and(|c| c["status"] == "True"),
            uid: text(&object["metadata"]["uid"]),
            spec: spec.clone(),
        })
    }

    fn tls(&self, spec: &Value) -> Result<Arc<ClientConfig>, String> {
        let bundle = spec["caBundle"].as_str().unwrap_or_default();
        let bundle = STANDARD.decode(bundle).map_err(|e| format!("caBundle is not base64: {e}"))?;
        let any = spec["insecureSkipTLSVerify"] == true;
        extension_config(self.client.as_ref(), &bundle, any).map_err(|e| format!("{e:#}"))
    }

    fn document(&self, name: &str) -> Option<Arc<Document>> {
        self.documents.read().expect("no panic while locked").get(name).cloned()
    }

    fn remember(&self, name: &str, document: Document) {
        let mut documents = self.documents.write().expect("no panic while locked");
        documents.insert(name.to_owned(), Arc::new(document));
    }

    fn forget_all_but(&self, servers: &[Arc<Server>]) {
        let mut documents = self.documents.write().expect("no panic while locked");
        documents.retain(|name, _| servers.iter().any(|server| server.name == *name));
    }
}

/// The condition of an APIService that says whether it is available.
fn condition(object: &Value) -> Option<&Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == AVAILABLE)
}
