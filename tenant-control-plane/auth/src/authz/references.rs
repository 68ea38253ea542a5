//! From an object to the nodes whose pods refer to it.

use machinery::{GroupResource, ObjectSource};
use serde_json::Value;

use super::node::{core, text};

/// What kind of object a node asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    Volume,
    Attachment,
    ResourceClaim,
    ResourceSlice,
}

/// True when a pod on the node refers to the object, directly or through its claims.
pub(super) fn reach(
    source: &dyn ObjectSource,
    what: Reference,
    namespace: &str,
    name: &str,
    node: &str,
) -> bool {
    let on_node = |pod: &Value| text(&pod["spec"]["nodeName"]) == node;
    let any_pod = |refers: &dyn Fn(&Value) -> bool| {
        let pods = source.list(&core("pods"), Some(namespace));
        pods.iter().any(|pod| on_node(pod) && refers(pod))
    };
    match what {
        Reference::Pod => {
            source.get(&core("pods"), namespace, name).is_some_and(|pod| on_node(&pod))
        }
        Reference::ServiceAccount => {
            any_pod(&|pod| text(&pod["spec"]["serviceAccountName"]) == name)
        }
        Reference::ConfigMap => any_pod(&|pod| pod_refers(pod, name, Reference::ConfigMap)),
        Reference::Secret => {
            any_pod(&|pod| pod_refers(pod, name, Reference::Secret))
                || secret_of_volume(source, namespace, name, node)
        }
        Reference::Claim => any_pod(&|pod| pod_claims(pod, name)),
        Reference::ResourceClaim => any_pod(&|pod| pod_resource_claims(pod, name)),
        Reference::Volume => volume_on_node(source, name, node),
        Reference::Attachment => {
            let resource = GroupResource::new("storage.k8s.io", "volumeattachments");
            source.get(&resource, "", name).is_some_and(|a| text(&a["spec"]["nodeName"]) == node)
        }
        Reference::ResourceSlice => {
            let resource = GroupResource::new("resource.k8s.io", "resourceslices");
            source.get(&resource, "", name).is_some_and(|s| text(&s["spec"]["nodeName"]) == node)
        }
    }
}

fn volume_on_node(source: &dyn ObjectSource, name: &str, node: &str) -> bool {
    let Some(volume) = source.get(&core("persistentvolumes"), "", name) else { return false };
    let claim = &volume["spec"]["claimRef"];
    let (namespace, claim) = (text(&claim["namespace"]), text(&claim["name"]));
    !claim.is_empty() && reach(source, Reference::Claim, namespace, claim, node)
}

/// Secrets that a bound volume's driver needs: `secretRef`, `nodeStageSecretRef` and their kin.
fn secret_of_volume(source: &dyn ObjectSource, namespace: &str, name: &str, node: &str) -> bool {
    source.list(&core("persistentvolumes"), None).iter().any(|volume| {
        let claim_namespace = text(&volume["spec"]["claimRef"]["namespace"]);
        let refers = volume["spec"].as_object().into_iter().flatten().any(|(_, plugin)| {
            let azure_or_plain = plugin["secretName"].as_str().is_some_and(|s| {
                let of = plugin["secretNamespace"].as_str().unwrap_or(claim_namespace);
                s == name && of == namespace
            });
            azure_or_plain
                || plugin.as_object().into_iter().flatten().any(|(key, reference)| {
                    let key_names_secret = key == "secretRef" || key.ends_with("SecretRef");
                    let of = reference["namespace"].as_str().unwrap_or(claim_namespace);
                    key_names_secret && text(&reference["name"]) == name && of == namespace
                })
        });
        refers && volume_on_node(source, text(&volume["metadata"]["name"]), node)
    })
}

fn pod_claims(pod: &Value, claim: &str) -> bool {
    volumes(pod).any(|volume| {
        let named = text(&volume["persistentVolumeClaim"]["claimName"]) == claim;
        let ephemeral = !volume["ephemeral"].is_null()
            && claim
                .strip_prefix(text(&pod["metadata"]["name"]))
                .and_then(|rest| rest.strip_prefix('-'))
                == Some(text(&volume["name"]));
        named || ephemeral
    })
}

fn pod_resource_claims(pod: &Value, claim: &str) -> bool {
    let direct =
        list(&pod["spec"]["resourceClaims"]).any(|c| text(&c["resourceClaimName"]) == claim);
    direct
        || list(&pod["status"]["resourceClaimStatuses"])
            .any(|c| text(&c["resourceClaimName"]) == claim)
        || text(&pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"]) == claim
}

/// True when environment, volumes or image pull secrets name the Secret or ConfigMap.
fn pod_refers(pod: &Value, name: &str, what: Reference) -> bool {
    let (environment, environment_from, volume) = match what {
        Reference::Secret => ("secretKeyRef", "secretRef", "secret"),
        _ => ("configMapKeyRef", "configMapRef", "configMap"),
    };
    let spec = &pod["spec"];
    let containers = ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|key| list(&spec[key]));
    for container in containers {
        let by_key =
            list(&container["env"]).any(|env| text(&env["valueFrom"][environment]["name"]) == name);
        let whole =
            list(&container["envFrom"]).any(|env| text(&env[environment_from]["name"]) == name);
        if by_key || whole {
            return true;
        }
    }
    let volume_name = |v: &Value| match what {
        Reference::Secret => text(&v[volume]["secretName"]) == name || other_secret(v, name),
        _ => text(&v[volume]["name"]) == name,
    };
    let in_volumes = volumes(pod).any(|v| {
        volume_name(v) || list(&v["projected"]["sources"]).any(|s| text(&s[volume]["name"]) == name)
    });
    let pull_secret = what == Reference::Secret
        && list(&spec["imagePullSecrets"]).any(|s| text(&s["name"]) == name);
    in_volumes || pull_secret
}

/// Secrets of the other volume types that a pod can name in place.
fn other_secret(volume: &Value, name: &str) -> bool {
    volume.as_object().into_iter().flatten().any(|(plugin, source)| {
        plugin != "secret"
            && (text(&source["secretRef"]["name"]) == name
                || text(&source["nodePublishSecretRef"]["name"]) == name
                || text(&source["secretName"]) == name)
    })
}

fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["spec"]["volumes"])
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
