//! The downward API: fields and resources of a pod as text (`fieldRef`, `resourceFieldRef`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use machinery::quantity::Quantity;

use super::{containers, resources};

/// What a node knows that a pod's spec does not.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// The node's addresses, primary first.
    pub ips: Vec<String>,
    /// Allocatable, for containers without a limit: millicores and bytes.
    pub cpu_millis: i64,
    /// Bytes.
    pub memory: i64,
}

/// `key="escaped value"` lines, as the files of labels and annotations have them.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(k, v): (&String, &String)| format!("{k}={}", serde_json::Value::String(v.clone()));
    map.map(|m| m.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap_or_default()
}

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

/// The value of a field. `pod_ips` may be newer than the pod's status.
///
/// # Errors
/// When the API does not allow the path.
pub fn field(
    pod: &Pod,
    selector: &ObjectFieldSelector,
    node: &NodeFacts,
    pod_ips: &[String],
) -> Result<String, String> {
    let meta = &pod.metadata;
    let path = selector.field_path.as_str();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(meta.labels.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(meta.annotations.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => containers::name(pod).to_owned(),
        "metadata.namespace" => containers::namespace(pod).to_owned(),
        "metadata.uid" => containers::uid(pod).to_owned(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => {
            containers::spec(pod).service_account_name.clone().unwrap_or_default()
        }
        "status.hostIP" => node.ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => node.ips.join(","),
        "status.podIP" => pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => pod_ips.join(","),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

/// The value of a container's resource, divided by the divisor and rounded up.
///
/// # Errors
/// When the API does not allow the resource.
pub fn resource(
    selector: &ResourceFieldSelector,
    container: &Container,
    node: &NodeFacts,
) -> Result<String, String> {
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource: {}", selector.resource))?;
    let node_value = match name {
        "cpu" => Some(Quantity::from_millis(node.cpu_millis)),
        "memory" => Some(Quantity::from_bytes(node.memory)),
        _ => None,
    };
    let value = match kind {
        "limits" => resources::limit(container, name).filter(|q| !q.is_zero()).or(node_value),
        "requests" => resources::request(container, name),
        _ => return Err(format!("unsupported container resource: {}", selector.resource)),
    };
    let value = value.unwrap_or_else(|| Quantity::from_units(0)).milli_value();
    let divisor = selector.divisor.as_ref().and_then(|d| d.0.parse::<Quantity>().ok());
    let divisor = divisor.map(Quantity::milli_value).filter(|d| *d > 0).unwrap_or(1000);
    Ok(((i128::from(value) + i128::from(divisor) - 1) / i128::from(divisor)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "x\"y", "b": "2"}},
            "spec": {"containers": [{"name": "c", "resources":
                {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}}}]}}))
        .unwrap();
        let node = NodeFacts {
            name: "w".into(),
            ips: vec!["10.0.1.5".into()],
            cpu_millis: 2000,
            memory: 1 << 30,
        };
        let get = |path: &str| {
            let selector = ObjectFieldSelector { field_path: path.into(), api_version: None };
            field(&pod, &selector, &node, &["10.244.0.9".into()])
        };
        assert_eq!(get("metadata.labels['b']").unwrap(), "2");
        assert_eq!(get("metadata.labels").unwrap(), "a=\"x\\\"y\"\nb=\"2\"");
        assert_eq!(get("status.podIP").unwrap(), "10.244.0.9");
        assert!(get("spec.foo").is_err());
        let c = &containers::app(&pod)[0];
        let res = |resource: &str, divisor: &str| {
            let divisor =
                Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.into()));
            let selector =
                ResourceFieldSelector { resource: resource.into(), divisor, container_name: None };
            resource_of(&selector, c, &node)
        };
        fn resource_of(s: &ResourceFieldSelector, c: &Container, n: &NodeFacts) -> String {
            resource(s, c, n).unwrap()
        }
        assert_eq!(res("limits.memory", "1Mi"), "64");
        assert_eq!(res("requests.cpu", "1"), "1");
        assert_eq!(res("requests.cpu", "1m"), "250");
        assert_eq!(res("limits.cpu", "1"), "2");
    }
}
