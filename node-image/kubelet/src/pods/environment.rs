//! The environment of one container, put together from the spec, ConfigMaps, Secrets, Services
//! and the downward API.

use std::collections::BTreeMap;

use component::events::EventType;
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use crate::node::Node;
use crate::node::objects::Age;
use crate::spec::{containers, downward, env};

/// Variables by name, in the order in which the container gets them.
pub type Environment = BTreeMap<String, String>;

fn from_bytes(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Builder<'a> {
    node: &'a Node,
    pod: &'a Pod,
    container: &'a Container,
    pod_ips: &'a [String],
    vars: Environment,
}

/// Builds the environment.
///
/// # Errors
/// What is missing, as the message of CreateContainerConfigError.
pub async fn build(
    node: &Node,
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
) -> Result<Environment, String> {
    let services = services(node, pod).await?;
    let mut builder = Builder { node, pod, container, pod_ips, vars: Environment::new() };
    builder.add_sources().await?;
    builder.own(&services).await?;
    let mut vars = services;
    vars.extend(builder.vars);
    Ok(vars)
}

async fn services(node: &Node, pod: &Pod) -> Result<Environment, String> {
    let namespace = containers::namespace(pod);
    let links = containers::spec(pod).enable_service_links.unwrap_or(true);
    let fail = |e: kube::Error| format!("services are not known yet: {e}");
    let mut all = node.objects.services("default").await.map_err(fail)?.to_vec();
    if links && namespace != "default" {
        all.extend(node.objects.services(namespace).await.map_err(fail)?.iter().cloned());
    }
    Ok(env::services(&all, namespace, links))
}

impl Builder<'_> {
    /// `envFrom`.
    async fn add_sources(&mut self) -> Result<(), String> {
        let namespace = containers::namespace(self.pod);
        for source in self.container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let mut found: Environment = BTreeMap::new();
            let (what, name) = if let Some(map) = &source.config_map_ref {
                let object = self.node.objects.config_map(namespace, &map.name, Age::Fresh).await;
                match object.map_err(|e| format!("configmap {:?}: {e}", map.name))? {
                    Some(object) => found
                        .extend(object.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone()))),
                    None if map.optional == Some(true) => {}
                    None => return Err(format!("configmap \"{}\" not found", map.name)),
                }
                ("ConfigMap", &map.name)
            } else if let Some(secret) = &source.secret_ref {
                let object = self.node.objects.secret(namespace, &secret.name, Age::Fresh).await;
                match object.map_err(|e| format!("secret {:?}: {e}", secret.name))? {
                    Some(object) => {
                        found.extend(
                            object
                                .data
                                .iter()
                                .flatten()
                                .map(|(k, v)| (k.clone(), from_bytes(&v.0))),
                        );
                    }
                    None if secret.optional == Some(true) => {}
                    None => return Err(format!("secret \"{}\" not found", secret.name)),
                }
                ("Secret", &secret.name)
            } else {
                continue;
            };
            let (good, bad): (Environment, Environment) = found
                .into_iter()
                .map(|(k, v)| (format!("{prefix}{k}"), v))
                .partition(|(k, _)| env::valid_name(k));
            self.vars.extend(good);
            if !bad.is_empty() {
                let names: Vec<_> = bad.into_keys().collect();
                let message = format!(
                    "Keys [{}] from the EnvFrom {what} {namespace}/{name} were skipped since they are considered invalid environment variable names.",
                    names.join(", ")
                );
                self.node.event(
                    self.pod,
                    EventType::Warning,
                    "InvalidEnvironmentVariableNames",
                    message,
                );
            }
        }
        Ok(())
    }

    /// `env`.
    async fn own(&mut self, services: &Environment) -> Result<(), String> {
        for var in self.container.env.iter().flatten() {
            let value = if let Some(source) = &var.value_from {
                match self.value_from(source).await? {
                    Some(value) => value,
                    None => continue,
                }
            } else {
                let lookup =
                    |name: &str| self.vars.get(name).or_else(|| services.get(name)).cloned();
                env::expand(var.value.as_deref().unwrap_or_default(), lookup)
            };
            self.vars.insert(var.name.clone(), value);
        }
        Ok(())
    }

    /// `valueFrom`; `None` when an optional source is missing.
    async fn value_from(&self, source: &EnvVarSource) -> Result<Option<String>, String> {
        let namespace = containers::namespace(self.pod);
        if let Some(field) = &source.field_ref {
            return downward::field(self.pod, field, &self.node.facts, self.pod_ips).map(Some);
        }
        if let Some(resource) = &source.resource_field_ref {
            let other = resource.container_name.as_deref().filter(|n| !n.is_empty());
            let found = other.map(|name| {
                containers::find(self.pod, name)
                    .ok_or_else(|| format!("no container {name:?} in this pod"))
            });
            return match found {
                Some(found) => downward::resource(resource, &found?.1, &self.node.facts).map(Some),
                None => downward::resource(resource, self.container, &self.node.facts).map(Some),
            };
        }
        let (what, name, key, optional, value) = if let Some(selector) = &source.config_map_key_ref
        {
            let object = self.node.objects.config_map(namespace, &selector.name, Age::Fresh).await;
            let object = object.map_err(|e| format!("configmap {:?}: {e}", selector.name))?;
            let value = object
                .as_ref()
                .map(|o| o.data.as_ref().and_then(|d| d.get(&selector.key)).cloned());
            ("configmap", &selector.name, &selector.key, selector.optional, value)
        } else if let Some(selector) = &source.secret_key_ref {
            let object = self.node.objects.secret(namespace, &selector.name, Age::Fresh).await;
            let object = object.map_err(|e| format!("secret {:?}: {e}", selector.name))?;
            let value = object.as_ref().map(|o| {
                o.data.as_ref().and_then(|d| d.get(&selector.key)).map(|b| from_bytes(&b.0))
            });
            ("secret", &selector.name, &selector.key, selector.optional, value)
        } else {
            return Err("this kind of valueFrom is not supported".into());
        };
        match value {
            Some(Some(value)) => Ok(Some(value)),
            _ if optional == Some(true) => Ok(None),
            Some(None) => Err(format!("couldn't find key {key} in {what} {namespace}/{name}")),
            None => Err(format!("{what} \"{name}\" not found")),
        }
    }
}
