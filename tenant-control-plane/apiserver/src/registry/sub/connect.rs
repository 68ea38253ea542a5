//! Requests that are carried on to a kubelet, a pod or a Service: log, exec, attach, portforward,
//! proxy. Here it is decided where they go; `streaming` carries them.

use std::sync::Arc;

use admission::Operation;
use http::{Method, header};
use machinery::{GroupResource, GroupVersionKind, ObjectSource, Reason, Status};
use serde_json::Value;
use streaming::kubelet::{self, Streams, percent_encode};
use streaming::node::{Mode, NodeTarget, Scheme};

use crate::cache::Caches;
use crate::hooks::{Subject, connect};
use crate::http::query::percent_decode;
use crate::http::{Request, Response, respond};
use crate::kinds::Action;
use crate::registry::write::current;
use crate::registry::{Call, no_resource};

/// Carries a request on.
pub async fn connect(
    call: &Arc<Call>,
    action: Action,
    request: Request,
) -> Result<Response, Status> {
    call.api.caches.catch_up().await?;
    let (target, mode) = match action {
        Action::Log => log_target(call).await?,
        _ => {
            let options = admitted(call).await?;
            let query = request.uri().query().unwrap_or_default();
            target(call, action, &options, query).await?
        }
    };
    if action == Action::Proxy
        && let Some(location) = below(call, &request)
    {
        return Ok(respond::moved(&location));
    }
    let client = call.api.node_client.clone();
    Ok(streaming::forward(&client, request, target, mode).await)
}

/// Where a page at the proxy's own path is to be asked for: its relative links lead nowhere without
/// the slash at the end.
fn below(call: &Call, request: &Request) -> Option<String> {
    let is_page = matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.headers().contains_key(header::UPGRADE);
    let is_bare = call.info.remainder.is_empty() && !call.info.path.ends_with('/');
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    (is_page && is_bare).then(|| format!("{}/{query}", request.uri().path()))
}

/// The options of the connection, as webhooks and policies let it be opened.
async fn admitted(call: &Call) -> Result<Value, Status> {
    let sub = call.subresource().ok_or_else(no_resource)?;
    let gvk = GroupVersionKind {
        group: String::new(),
        version: "v1".to_owned(),
        kind: sub.kind.to_string(),
    };
    let mut options =
        connect::options(&gvk.kind, &call.query, &percent_decode(&sent_path(call), false))?;
    let subject =
        Subject { gvk: &gvk, subresource: sub.name, old: None, dry_run: false, options: None };
    call.api.admit_body(call, &subject, Operation::Connect, &mut options).await?;
    Ok(options)
}

async fn target(
    call: &Arc<Call>,
    action: Action,
    options: &Value,
    query: &str,
) -> Result<(NodeTarget, Mode), Status> {
    let path = || tail(sent_path(call), options, query);
    match (action, call.row.plural.as_ref()) {
        (Action::Proxy, "nodes") => Ok((node_proxy(call, path())?, Mode::Proxy)),
        (Action::Proxy, "services") => Ok((service_proxy(call, path())?, Mode::Proxy)),
        (Action::Proxy, _) => Ok((pod_proxy(call, path()).await?, Mode::Proxy)),
        _ => pod_target(call, action, options).await,
    }
}

async fn pod_target(
    call: &Arc<Call>,
    action: Action,
    options: &Value,
) -> Result<(NodeTarget, Mode), Status> {
    let pod = current(call, false).await?.object;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    if action == Action::PortForward {
        let path = kubelet::port_forward_path(namespace, name, options);
        return Ok((on_kubelet(call, &pod, path)?, Mode::PortForward));
    }
    let asked = options["container"].as_str().unwrap_or_default();
    let container = kubelet::container(&pod, asked)?;
    let streams = Streams::of(options)?;
    let command = if action == Action::Exec { "exec" } else { "attach" };
    let path = kubelet::command_path(command, namespace, name, &container, options);
    Ok((on_kubelet(call, &pod, path)?, Mode::Command(streams)))
}

async fn log_target(call: &Arc<Call>) -> Result<(NodeTarget, Mode), Status> {
    let pod = current(call, false).await?.object;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let asked = call.query.get("container").unwrap_or_default();
    let container = kubelet::container(&pod, asked)?;
    let path = kubelet::log_path(namespace, name, &container, |key| call.query.get(key));
    Ok((on_kubelet(call, &pod, path)?, Mode::Log))
}

fn on_kubelet(call: &Call, pod: &Value, path: String) -> Result<NodeTarget, Status> {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        let name = &call.info.name;
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let (host, port) = kubelet_of(call, node)?;
    Ok(NodeTarget::kubelet(host, port, path))
}

fn kubelet_of(call: &Call, node: &str) -> Result<(String, u16), Status> {
    let nodes = GroupResource::new("", "nodes");
    let node = ObjectSource::get(&*call.api.caches, &nodes, "", node)
        .ok_or_else(|| Status::not_found(&nodes, node))?;
    kubelet::endpoint(&node, &call.api.config.kubelet_preferred_address_types)
}

/// What follows `proxy` in the request's path, as it was sent.
fn sent_path(call: &Call) -> String {
    let slash =
        if call.info.remainder.is_empty() || !call.info.path.ends_with('/') { "" } else { "/" };
    format!("/{}{slash}", call.info.remainder)
}

/// `/path?query` of a proxied request: the path that its options say, which is the one that was
/// sent unless a webhook changed it.
fn tail(sent: String, options: &Value, query: &str) -> String {
    let wanted = options["path"].as_str().unwrap_or_default();
    let path = match percent_decode(&sent, false) == wanted {
        true => sent,
        false => format!("/{}", percent_encode(wanted.trim_start_matches('/'), "/")),
    };
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// Splits `[scheme:]name[:port]`.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    match text.split(':').collect::<Vec<_>>()[..] {
        [name] => Some(("", name, "")),
        [name, port] => Some(("", name, port)),
        [scheme @ ("" | "http" | "https"), name, port] => Some((scheme, name, port)),
        _ => None,
    }
}

fn parts(call: &Call) -> Result<(Scheme, String, String), Status> {
    let bad =
        || Status::bad_request(format!("invalid {} request {:?}", call.row.plural, call.info.name));
    let (scheme, name, port) = split(&call.info.name).ok_or_else(bad)?;
    let scheme = if scheme == "https" { Scheme::AnonymousTls } else { Scheme::Plain };
    Ok((scheme, name.to_owned(), port.to_owned()))
}

fn node_proxy(call: &Call, path: String) -> Result<NodeTarget, Status> {
    let (_, name, port) = parts(call)?;
    let (host, kubelet_port) = kubelet_of(call, &name)?;
    match port.as_str() {
        "" => Ok(NodeTarget::kubelet(host, kubelet_port, path)),
        text if text == kubelet_port.to_string() => {
            Ok(NodeTarget::kubelet(host, kubelet_port, path))
        }
        text => {
            let (scheme, _, _) = parts(call)?;
            let port =
                text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))?;
            Ok(NodeTarget { scheme, host, port, path_and_query: path })
        }
    }
}

async fn pod_proxy(call: &Arc<Call>, path: String) -> Result<NodeTarget, Status> {
    let (scheme, name, port) = parts(call)?;
    let about = call.about(&call.info.namespace, &name);
    let pod = current(&about, false).await?.object;
    let host = pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    if host.is_empty() {
        return Err(Status::bad_request("address not allowed"));
    }
    let port = match port.as_str() {
        "" => first_port(&pod).unwrap_or(80),
        text => text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))?,
    };
    Ok(NodeTarget { scheme, host, port, path_and_query: path })
}

fn first_port(pod: &Value) -> Option<u16> {
    let mut containers = pod["spec"]["containers"].as_array()?.iter();
    let port = containers.find_map(|c| c["ports"][0]["containerPort"].as_u64())?;
    u16::try_from(port).ok()
}

/// One of the Service's ready endpoints, by port name or number.
fn service_proxy(call: &Call, path: String) -> Result<NodeTarget, Status> {
    let (scheme, name, port) = parts(call)?;
    let namespace = &call.info.namespace;
    let services = GroupResource::new("", "services");
    let service = ObjectSource::get(&*call.api.caches, &services, namespace, &name)
        .ok_or_else(|| Status::not_found(&services, &name))?;
    let unavailable = |why: String| Status::new(Reason::ServiceUnavailable, why);
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let wanted = ports
        .iter()
        .find(|p| {
            let number = p["port"].as_u64().map(|n| n.to_string());
            port.is_empty() && ports.len() == 1
                || p["name"] == port.as_str()
                || number.as_deref() == Some(port.as_str())
        })
        .ok_or_else(|| {
            unavailable(format!("no service port {port:?} found for service {name:?}"))
        })?;
    let port_name = wanted["name"].as_str().unwrap_or_default();
    let endpoints = endpoints_of(&call.api.caches, namespace, &name, port_name);
    if endpoints.is_empty() {
        return Err(unavailable(format!("no endpoints available for service {name:?}")));
    }
    let (host, port) = endpoints[rand::random_range(0..endpoints.len())].clone();
    Ok(NodeTarget { scheme, host, port, path_and_query: path })
}

/// The name, which may be empty, of a Service's port. `None` when it does not listen there.
pub fn port_name(service_spec: &Value, port: u16) -> Option<&str> {
    let mut ports = service_spec["ports"].as_array()?.iter();
    let found = ports.find(|p| p["port"].as_u64() == Some(u64::from(port)))?;
    Some(found["name"].as_str().unwrap_or_default())
}

/// Address and port of every endpoint of a Service's port that is ready.
pub fn endpoints_of(
    caches: &Caches,
    namespace: &str,
    service: &str,
    port_name: &str,
) -> Vec<(String, u16)> {
    let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
    let mut found = Vec::new();
    for slice in ObjectSource::list(caches, &slices, Some(namespace)) {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != service {
            continue;
        }
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let Some(port) = ports.find(|p| p["name"].as_str().unwrap_or_default() == port_name) else {
            continue;
        };
        let Some(port) = port["port"].as_u64().and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint["conditions"]["ready"] == false {
                continue;
            }
            let addresses = endpoint["addresses"].as_array().into_iter().flatten();
            found.extend(addresses.filter_map(|a| Some((a.as_str()?.to_owned(), port))));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_proxied_path_is_the_one_that_was_judged() {
        let tail = |judged: &str| tail("/%61/b%2Fc".to_owned(), &json!({"path": judged}), "q=%61");
        assert_eq!(tail("/a/b/c"), "/%61/b%2Fc?q=%61");
        assert_eq!(tail("/other/a b?x"), "/other/a%20b%3Fx?q=%61");
        assert_eq!(tail("//host"), "/host?q=%61");
    }
}
