//! PodSecurity: a namespace's labels say how much its pods may do.
//!
//! Source: Kubernetes documentation, "Pod Security Admission". Of
//! older versions of the standards only what 1.34 added is taken back.

use machinery::{Cause, GroupResource, Status};
use serde_json::Value;

use super::Plugin;
use super::pod_standards::{Level, is_significant, violations};
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::text;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace that are looked at when its level is raised.
const MOST_PODS: usize = 3000;

pub(super) struct PodSecurity;

/// A level and the version that it is meant in.
#[derive(Clone, PartialEq, Eq)]
struct Policy {
    level: Level,
    version: String,
}

impl Policy {
    /// The policy of a mode (`enforce`, `audit`, `warn`). An unknown level enforces the strictest
    /// and warns of nothing.
    fn of(namespace: &Value, mode: &str) -> Self {
        let label = |key: String| namespace["metadata"]["labels"][key].as_str();
        let level = match label(format!("{PREFIX}{mode}")) {
            None => Level::Privileged,
            Some(name) => Level::parse(name).unwrap_or(match mode {
                "enforce" => Level::Restricted,
                _ => Level::Privileged,
            }),
        };
        let version = label(format!("{PREFIX}{mode}-version")).unwrap_or("latest").to_owned();
        Self { level, version }
    }

    fn minor(&self) -> Option<u16> {
        minor(&self.version)
    }

    fn shown(&self) -> String {
        format!("\"{}:{}\"", self.level.as_str(), self.version)
    }
}

impl Plugin for PodSecurity {
    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let writes = matches!(attributes.operation(), Operation::Create | Operation::Update);
        if !writes {
            return Ok(());
        }
        if attributes.is("", "namespaces") {
            return namespace(context, attributes, object, warnings);
        }
        let is_pod =
            attributes.is("", "pods") || attributes.is_sub("", "pods", "ephemeralcontainers");
        let template = (!is_pod && attributes.subresource.is_empty())
            .then(|| pod_template(attributes, object))
            .flatten();
        if !is_pod && template.is_none() {
            return Ok(());
        }
        let Some(labels) = context.core("namespaces", "", attributes.namespace) else {
            return Ok(());
        };
        if is_pod
            && attributes.subresource.is_empty()
            && attributes.old.is_some_and(|old| !is_significant(old, object))
        {
            return Ok(());
        }
        let pod = template.unwrap_or(object);
        let enforce = Policy::of(&labels, "enforce");
        let found = violations(enforce.level, enforce.minor(), pod);
        if is_pod && !found.is_empty() {
            let why = format!("violates PodSecurity {}: {found}", enforce.shown());
            return Err(attributes.forbidden(Some(object), &why));
        }
        let warn = Policy::of(&labels, "warn");
        let found = violations(warn.level, warn.minor(), pod);
        if !found.is_empty() {
            warnings.push(format!("would violate PodSecurity {}: {found}", warn.shown()));
        }
        Ok(())
    }
}

/// The pod that a workload makes, for warnings.
fn pod_template<'a>(attributes: &Attributes<'_>, object: &'a Value) -> Option<&'a Value> {
    let spec = &object["spec"];
    let template = match (attributes.gvr.group.as_str(), attributes.gvr.resource.as_str()) {
        ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs")
        | ("", "replicationcontrollers") => &spec["template"],
        ("batch", "cronjobs") => &spec["jobTemplate"]["spec"]["template"],
        ("", "podtemplates") => &object["template"],
        _ => return None,
    };
    (!template.is_null()).then_some(template)
}

fn namespace(
    context: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let name = text(&object["metadata"]["name"]);
    let faults = label_faults(object, attributes.old);
    if !faults.is_empty() {
        return Err(Status::invalid("", "Namespace", name, faults));
    }
    let Some(old) = attributes.old else { return Ok(()) };
    let (before, now) = (Policy::of(old, "enforce"), Policy::of(object, "enforce"));
    if now == before || now.level <= before.level {
        return Ok(());
    }
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let pods = context.source.list(&GroupResource::new("", "pods"), Some(name));
    for pod in pods.iter().take(MOST_PODS) {
        let what = violations(now.level, now.minor(), pod);
        if what.is_empty() {
            continue;
        }
        let pod = text(&pod["metadata"]["name"]).to_owned();
        match found.iter_mut().find(|(same, _)| *same == what) {
            Some((_, pods)) => pods.push(pod),
            None => found.push((what, vec![pod])),
        }
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{name}\" violate the new PodSecurity enforce level {}",
            now.shown()
        ));
    }
    for (what, mut pods) in found {
        pods.sort();
        let first = pods[0].clone();
        warnings.push(match pods.len() {
            1 => format!("{first}: {what}"),
            2 => format!("{first} (and 1 other pod): {what}"),
            n => format!("{first} (and {} other pods): {what}", n - 1),
        });
    }
    Ok(())
}

/// Labels of this plugin that say nothing it knows. Those that were there before are let be.
fn label_faults(namespace: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut faults = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        for (key, is_version) in
            [(format!("{PREFIX}{mode}"), false), (format!("{PREFIX}{mode}-version"), true)]
        {
            let label = &namespace["metadata"]["labels"][&key];
            let Some(value) = label.as_str() else { continue };
            let kept = old.is_some_and(|old| old["metadata"]["labels"][&key] == *label);
            let good =
                if is_version { is_known_version(value) } else { Level::parse(value).is_some() };
            if kept || good {
                continue;
            }
            let allowed = match is_version {
                true => "must be \"latest\" or \"v1.x\"",
                false => "must be one of privileged, baseline, restricted",
            };
            faults.push(Cause {
                reason: "FieldValueInvalid".into(),
                message: format!("Invalid value: \"{value}\": {allowed}"),
                field: format!("metadata.labels[{key}]"),
            });
        }
    }
    faults
}

fn is_known_version(version: &str) -> bool {
    version == "latest" || minor(version).is_some()
}

/// The minor of `v1.x`.
fn minor(version: &str) -> Option<u16> {
    version.strip_prefix("v1.")?.parse().ok()
}
