//! Whether extension API servers are there: each is asked what it serves, when something about it
//! has changed and from time to time, and its APIService says what came of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use machinery::{GroupResource, ObjectSource, Status, UserInfo};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::discovery::Document;
use super::{AVAILABLE, Server, api_services, condition};
use crate::api::Api;
use crate::bootstrap::ensure;
use crate::registry::sub::connect::{endpoints_of, port_name};
use crate::registry::write::{Part, change};

/// How soon a server is asked again that did not answer, and how soon one that did.
const AGAIN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];
/// Endpoints that are asked until one answers.
const ATTEMPTS: usize = 5;
/// How often Services and endpoints are compared.
const LOOK: Duration = Duration::from_millis(500);
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What was found about a server, and what it was found for.
struct Found {
    about: Value,
    at: Instant,
    is_available: bool,
}

/// Why a server is not available: reason and message of the condition.
type Fault = (&'static str, String);

/// Runs until the token is cancelled.
pub async fn run(api: Arc<Api>, stop: CancellationToken) {
    let Some(cache) = api.caches.resource(&api_services()) else { return };
    let mut grown = cache.subscribe();
    let mut known: HashMap<String, Found> = HashMap::new();
    // Each by itself: one that hangs keeps nobody waiting.
    let mut looks = JoinSet::new();
    let mut under_way: HashSet<String> = HashSet::new();
    loop {
        grown.mark_unchanged();
        let servers = api.aggregation.servers(&api.caches);
        api.aggregation.forget_all_but(&servers);
        known.retain(|name, _| servers.iter().any(|server| server.name == *name));
        for server in servers.iter() {
            let about = about(&api, server);
            let is_due = is_due(known.get(&server.name), &about);
            if is_due && under_way.insert(server.name.clone()) {
                looks.spawn(look(api.clone(), server.clone(), about));
            }
        }
        tell_local(&api).await;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = grown.changed() => if changed.is_err() { return },
            Some(Ok((name, found))) = looks.join_next() => {
                under_way.remove(&name);
                known.insert(name, found);
            }
            () = tokio::time::sleep(LOOK), if !servers.is_empty() => {}
        }
    }
}

/// Everything that a verdict depends on and that can be seen from here.
fn about(api: &Api, server: &Server) -> Value {
    let services = GroupResource::new("", "services");
    let service = ObjectSource::get(&*api.caches, &services, &server.namespace, &server.service);
    let spec = service.map(|service| service["spec"].clone()).unwrap_or_default();
    let port = port_name(&spec, server.port);
    let endpoints =
        port.map(|port| endpoints_of(&api.caches, &server.namespace, &server.service, port));
    let mut endpoints = endpoints.unwrap_or_default();
    endpoints.sort();
    json!({"uid": server.uid, "api": server.spec, "service": spec, "endpoints": endpoints})
}

fn is_due(known: Option<&Found>, about: &Value) -> bool {
    known.is_none_or(|found| {
        found.about != *about || found.at.elapsed() >= AGAIN[usize::from(found.is_available)]
    })
}

async fn look(api: Arc<Api>, server: Arc<Server>, about: Value) -> (String, Found) {
    let outcome = match missing(&server, &about) {
        Some(fault) => Err(fault),
        None => ask_any(&api, &server, &about["endpoints"]).await,
    };
    let (is_available, fault) = match outcome {
        Ok(document) => {
            api.aggregation.remember(&server.name, document);
            (true, ("Passed", "all checks passed".to_owned()))
        }
        Err(fault) => (false, fault),
    };
    if let Err(error) = tell(&api, &server.name, is_available, &fault).await {
        tracing::warn!(name = server.name, %error, "writing whether an APIService is available failed");
    }
    (server.name.clone(), Found { about, at: Instant::now(), is_available })
}

/// What can be said without asking the server. The words are upstream's.
fn missing(server: &Server, about: &Value) -> Option<Fault> {
    let (service, namespace, port) = (&server.service, &server.namespace, server.port);
    let spec = &about["service"];
    if spec.is_null() {
        let text = format!("service/{service} in {namespace:?} is not present");
        return Some(("ServiceNotFound", text));
    }
    if spec["type"] == "ExternalName" {
        let text = format!("service/{service} in {namespace:?} leads out of the cluster");
        return Some(("ServiceAccessError", text));
    }
    let Some(name) = port_name(spec, port) else {
        let text = format!("service/{service} in {namespace:?} is not listening on port {port}");
        return Some(("ServicePortError", text));
    };
    let has_endpoints = about["endpoints"].as_array().is_some_and(|list| !list.is_empty());
    (!has_endpoints).then(|| {
        let text = format!(
            "endpointslices for service/{service} in {namespace:?} have no addresses with port \
             name {name:?}"
        );
        ("MissingEndpoints", text)
    })
}

/// Asks one endpoint after the other; what the first one said counts when all fail.
async fn ask_any(api: &Api, server: &Arc<Server>, endpoints: &Value) -> Result<Document, Fault> {
    let endpoints: Vec<(String, u16)> = Deserialize::deserialize(endpoints).unwrap_or_default();
    let mut first = None;
    for (host, port) in endpoints.into_iter().take(ATTEMPTS) {
        match ask(api, server, &host, port).await {
            Ok(document) => return Ok(document),
            Err(fault) => drop(first.get_or_insert(fault)),
        }
    }
    Err(first.unwrap_or(("FailedDiscoveryCheck", "no endpoint to ask".to_owned())))
}

/// Asks a server what it serves.
async fn ask(api: &Api, server: &Arc<Server>, host: &str, port: u16) -> Result<Document, Fault> {
    let user = UserInfo {
        name: "system:kube-aggregator".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..UserInfo::default()
    };
    let get = async |path: String| {
        let target = server.target_at(host.to_owned(), port, &user, path);
        let target = target.map_err(|status| status.message)?;
        streaming::fetch(&api.node_client, &target, LIMIT).await
    };
    let path = format!("/apis/{}/{}", server.group, server.version);
    let failed = |why: String| ("FailedDiscoveryCheck", why);
    let served = get(path.clone()).await.map_err(failed)?;
    let schemas = get("/openapi/v3".to_owned()).await.unwrap_or_default();
    let server = server.clone();
    // Lists may be long.
    let read = tokio::task::spawn_blocking(move || Document::of(&server, &served, &schemas));
    let read = read.await.map_err(|e| failed(e.to_string()))?;
    read.map_err(|e| failed(format!("the answer to {path} is no APIResourceList: {e}")))
}

/// APIServices without a Service are served by this server itself.
async fn tell_local(api: &Arc<Api>) {
    for object in ObjectSource::list(&*api.caches, &api_services(), None) {
        let is_local = object["spec"]["service"].is_null();
        if !is_local || condition(&object).is_some_and(|c| c["reason"] == "Local") {
            continue;
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let why = ("Local", "Local APIServices are always available".to_owned());
        if let Err(error) = tell(api, name, true, &why).await {
            tracing::warn!(name, %error, "writing that an APIService is local failed");
        }
    }
}

/// Writes the condition unless it says so already.
async fn tell(
    api: &Arc<Api>,
    name: &str,
    is_available: bool,
    (reason, message): &Fault,
) -> Result<(), Status> {
    let status = if is_available { "True" } else { "False" };
    let says = |object: &Value| {
        condition(object).is_some_and(|c| {
            c["status"] == status && c["reason"] == *reason && c["message"] == message.as_str()
        })
    };
    match ObjectSource::get(&*api.caches, &api_services(), "", name) {
        Some(object) if !says(&object) => {}
        _ => return Ok(()),
    }
    let identity = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
    });
    let call = ensure::call(api, &identity, "update")?;
    let written = change(&call, Part::Status, false, |old| {
        let mut new = old.clone();
        let since = match condition(old) {
            Some(before) if before["status"] == status => before["lastTransitionTime"].clone(),
            _ => call.now.as_str().into(),
        };
        let now = json!({
            "type": AVAILABLE, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since,
        });
        let conditions = crate::strategy::child(&mut new, "status");
        let mut list = conditions["conditions"].as_array().cloned().unwrap_or_default();
        match list.iter_mut().find(|c| c["type"] == AVAILABLE) {
            Some(before) => *before = now,
            None => list.push(now),
        }
        conditions["conditions"] = list.into();
        Ok(new)
    });
    match written.await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}
