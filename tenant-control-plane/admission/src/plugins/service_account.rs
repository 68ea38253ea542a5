//! ServiceAccount: every pod runs as one, and finds its token, the cluster's authority and its
//! namespace mounted.

use machinery::{GroupResource, Status};
use serde_json::{Value, json};

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{annotation, is_mirror_pod, items, list_mut, random_suffix, text};

const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Clients that renew are content with this; others are only warned (KEP-1205).
const TOKEN_SECONDS: i64 = 3607;
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn awaits(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        pod: &Value,
    ) -> Option<(GroupResource, String, String)> {
        let creates = attributes.operation() == Operation::Create;
        let named = text(&pod["spec"]["serviceAccountName"]);
        let relevant = attributes.is("", "pods") && creates && !is_mirror_pod(pod);
        if !relevant || !matches!(named, "" | DEFAULT) {
            return None;
        }
        let namespace = attributes.namespace;
        let there = context.core("serviceaccounts", namespace, DEFAULT).is_some();
        // Without the namespace there will be no account either.
        let waiting = !there && context.core("namespaces", "", namespace).is_some();
        let resource = GroupResource::new("", "serviceaccounts");
        waiting.then(|| (resource, namespace.to_owned(), DEFAULT.to_owned()))
    }

    fn mutate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        pod: &mut Value,
    ) -> Result<(), Status> {
        let creates = attributes.operation() == Operation::Create;
        if !attributes.is("", "pods") || !creates || is_mirror_pod(pod) {
            return Ok(());
        }
        if text(&pod["spec"]["serviceAccountName"]).is_empty() {
            // `serviceAccount` is the field's former name, kept in step by conversion.
            let name = match text(&pod["spec"]["serviceAccount"]) {
                "" => DEFAULT,
                name => name,
            };
            pod["spec"]["serviceAccountName"] = name.to_owned().into();
        }
        pod["spec"]["serviceAccount"] = pod["spec"]["serviceAccountName"].clone();
        let account = account(context, attributes, pod)?;
        let wants = |object: &Value| object["automountServiceAccountToken"].as_bool();
        if wants(&pod["spec"]).or_else(|| wants(&account)).unwrap_or(true) {
            mount_token(pod);
        }
        let has_pull_secrets = items(&pod["spec"]["imagePullSecrets"]).next().is_some();
        if !has_pull_secrets && items(&account["imagePullSecrets"]).next().is_some() {
            pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(())
    }

    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| attributes.is("", "pods")) else { return Ok(()) };
        if attributes.operation() != Operation::Create {
            return Ok(());
        }
        let refuse = |why: &str| Err(attributes.forbidden(object, why));
        if is_mirror_pod(pod) {
            let spec = &pod["spec"];
            if !text(&spec["serviceAccountName"]).is_empty() {
                return refuse("a mirror pod may not reference service accounts");
            }
            if names_secret(spec) {
                return refuse("a mirror pod may not reference secrets");
            }
            let projects_token = items(&spec["volumes"])
                .flat_map(|v| items(&v["projected"]["sources"]))
                .any(|source| !source["serviceAccountToken"].is_null());
            if projects_token {
                return refuse("a mirror pod may not use ServiceAccountToken volume projections");
            }
            return Ok(());
        }
        let account = account(context, attributes, pod)?;
        let enforced = annotation(&account, ENFORCE).is_some_and(|v| matches!(v, "true" | "1"));
        match enforced.then(|| unlisted_secret(&account, &pod["spec"])).flatten() {
            Some(why) => refuse(&why),
            None => Ok(()),
        }
    }
}

fn account(
    context: &Context,
    attributes: &Attributes<'_>,
    pod: &Value,
) -> Result<std::sync::Arc<Value>, Status> {
    let (namespace, name) = (attributes.namespace, text(&pod["spec"]["serviceAccountName"]));
    context.core("serviceaccounts", namespace, name).ok_or_else(|| {
        let missing = Status::not_found(&GroupResource::new("", "serviceaccount"), name);
        let why =
            format!("error looking up service account {namespace}/{name}: {}", missing.message);
        attributes.forbidden(Some(pod), &why)
    })
}

fn mount_token(pod: &mut Value) {
    let spec = &mut pod["spec"];
    let existing = items(&spec["volumes"])
        .map(|volume| text(&volume["name"]))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", random_suffix()));
    let mut needed = false;
    for key in ["initContainers", "containers"] {
        for container in spec[key].as_array_mut().into_iter().flatten() {
            let mounted =
                items(&container["volumeMounts"]).any(|m| text(&m["mountPath"]) == MOUNT_PATH);
            if !mounted {
                let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
                list_mut(container, "volumeMounts").push(mount);
                needed = true;
            }
        }
    }
    if needed && existing.is_none() {
        list_mut(spec, "volumes").push(json!({"name": name, "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
        }}));
    }
}

fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    [("init container", "initContainers"), ("container", "containers")]
        .into_iter()
        .flat_map(|(label, key)| items(&spec[key]).map(move |c| (label, c)))
}

fn names_secret(spec: &Value) -> bool {
    let in_containers = containers(spec).any(|(_, c)| {
        items(&c["env"]).any(|e| !e["valueFrom"]["secretKeyRef"].is_null())
            || items(&c["envFrom"]).any(|e| !e["secretRef"].is_null())
    });
    let in_volumes = items(&spec["volumes"]).any(|v| {
        !v["secret"].is_null()
            || items(&v["projected"]["sources"]).any(|s| !s["secret"].is_null())
            || v.as_object().into_iter().flatten().any(|(_, p)| !p["secretRef"].is_null())
    });
    in_containers || in_volumes || items(&spec["imagePullSecrets"]).next().is_some()
}

/// Why a pod of an account that lists its Secrets is refused: it uses another one.
fn unlisted_secret(account: &Value, spec: &Value) -> Option<String> {
    let account_name = text(&account["metadata"]["name"]);
    let listed = |secret: &str| items(&account["secrets"]).any(|s| text(&s["name"]) == secret);
    let because =
        format!("is not allowed because service account {account_name} does not reference that");
    for volume in items(&spec["volumes"]).filter(|v| !v["secret"].is_null()) {
        let secret = text(&volume["secret"]["secretName"]);
        if !listed(secret) {
            return Some(format!("volume with secret.secretName=\"{secret}\" {because} secret"));
        }
    }
    for (label, container) in containers(spec) {
        let name = text(&container["name"]);
        for env in items(&container["env"]) {
            let secret = &env["valueFrom"]["secretKeyRef"];
            if !secret.is_null() && !listed(text(&secret["name"])) {
                return Some(format!(
                    "{label} {name} with envVar {} referencing secret.secretName=\"{}\" {because} \
                     secret",
                    text(&env["name"]),
                    text(&secret["name"])
                ));
            }
        }
        for secret in items(&container["envFrom"]).map(|e| &e["secretRef"]) {
            if !secret.is_null() && !listed(text(&secret["name"])) {
                return Some(format!(
                    "{label} {name} with envFrom referencing secret.secretName=\"{}\" {because} \
                     secret",
                    text(&secret["name"])
                ));
            }
        }
    }
    items(&spec["imagePullSecrets"]).enumerate().find_map(|(at, secret)| {
        let secret = text(&secret["name"]);
        let known = items(&account["imagePullSecrets"]).any(|s| text(&s["name"]) == secret);
        (!known)
            .then(|| format!("imagePullSecrets[{at}].name=\"{secret}\" {because} imagePullSecret"))
    })
}
