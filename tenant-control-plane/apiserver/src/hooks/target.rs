//! Where a webhook is: `clientConfig` of admission and conversion webhooks.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use machinery::{GroupResource, ObjectSource};
use serde_json::Value;
use streaming::HookClient;
use streaming::dial::authority;
use streaming::hook::Endpoint;

use crate::cache::Caches;
use crate::registry::sub::connect::{endpoints_of, port_name};

/// Port of a Service when the configuration does not say.
const PORT: u16 = 443;

/// A webhook that can be called.
pub struct Target {
    place: Place,
    path: String,
}

enum Place {
    Found(Endpoint),
    /// Nothing there to dial; the error names the URL all the same.
    Missing {
        authority: String,
        why: String,
    },
}

/// Finds the target of a `clientConfig`.
///
/// # Errors
/// When the configuration cannot be understood.
pub fn of(caches: &Caches, client: &Value) -> Result<Target, String> {
    let bundle = client["caBundle"].as_str().unwrap_or_default();
    let bundle = STANDARD.decode(bundle).map_err(|e| format!("caBundle is not base64: {e}"))?;
    if client["service"].is_object() {
        return Ok(service(caches, &client["service"], bundle.into()));
    }
    match client["url"].as_str() {
        Some(text) => url(text, bundle.into()),
        None => Err("webhook configuration must have either service or URL".to_owned()),
    }
}

fn url(text: &str, ca_bundle: Arc<[u8]>) -> Result<Target, String> {
    let uri: http::Uri = text.parse().map_err(|e| format!("Unparsable URL: {e}"))?;
    let (Some(host), Some(given)) = (uri.host(), uri.authority()) else {
        return Err(format!("Unparsable URL: {text:?} names no host"));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let endpoint = Endpoint {
        in_cluster: false,
        server_name: host.clone(),
        port: uri.port_u16().unwrap_or(PORT),
        host,
        authority: given.to_string(),
        ca_bundle,
    };
    Ok(Target { place: Place::Found(endpoint), path: uri.path().to_owned() })
}

fn service(caches: &Caches, reference: &Value, ca_bundle: Arc<[u8]>) -> Target {
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let port = reference["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(PORT);
    let server_name = format!("{name}.{namespace}.svc");
    let shown = authority(&server_name, port);
    let path = match text("path") {
        "" => "/".to_owned(),
        path => path.to_owned(),
    };
    let place = match resolve(caches, namespace, name, port) {
        Err(why) => Place::Missing { authority: shown, why },
        Ok((host, port, in_cluster)) => Place::Found(Endpoint {
            in_cluster,
            host,
            port,
            server_name,
            authority: shown,
            ca_bundle,
        }),
    };
    Target { place, path }
}

/// One of the Service's ready endpoints: like the Service proxy this needs no kube-proxy where the
/// server runs. An ExternalName leads out of the cluster.
pub fn resolve(
    caches: &Caches,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<(String, u16, bool), String> {
    let services = GroupResource::new("", "services");
    let service = ObjectSource::get(caches, &services, namespace, name)
        .ok_or_else(|| format!("service {name:?} not found"))?;
    if service["spec"]["type"] == "ExternalName" {
        let host = service["spec"]["externalName"].as_str().unwrap_or_default();
        return Ok((host.to_owned(), port, false));
    }
    let port_name = port_name(&service["spec"], port)
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let endpoints = endpoints_of(caches, namespace, name, port_name);
    if endpoints.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    let (host, port) = endpoints[rand::random_range(0..endpoints.len())].clone();
    Ok((host, port, true))
}

/// Posts a document to a webhook and reads its answer.
///
/// # Errors
/// When there is no answer in time, or none that is a document. The texts are upstream's.
pub async fn post(
    client: &HookClient,
    target: &Target,
    body: Bytes,
    limit: Duration,
) -> Result<Value, String> {
    let path = format!("{}?timeout={}s", target.path, limit.as_secs());
    let endpoint = match &target.place {
        Place::Found(endpoint) => endpoint,
        Place::Missing { authority, why } => {
            return Err(format!("Post \"https://{authority}{path}\": {why}"));
        }
    };
    let reply = client.post(endpoint, &path, body, limit).await?;
    match reply.code {
        200..=206 => serde_json::from_slice(&reply.body)
            .map_err(|e| format!("couldn't get version/kind; json parse error: {e}")),
        404 => Err("the server could not find the requested resource".to_owned()),
        code => {
            let body: String = String::from_utf8_lossy(&reply.body).chars().take(1024).collect();
            Err(format!(
                "an error on the server ({:?}) has prevented the request from succeeding (code \
                 {code})",
                body.trim()
            ))
        }
    }
}
