//! The content of configMap, secret, downwardAPI and projected volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume,
    VolumeProjection,
};

use super::atomic::{Entry, Payload, check_path};
use super::tokens;
use crate::node::Node;
use crate::node::objects::Age;
use crate::spec::{containers, downward};

/// What a volume's files may not be made from: a sentence for the FailedMount event.
pub type Problem = String;

/// What the content of a pod's volumes depends on.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Context<'a> {
    pub node: &'a Node,
    pub pod: &'a Pod,
    pub pod_ips: &'a [String],
    /// How old the API's objects may be.
    pub age: Age,
}

const DEFAULT_MODE: i32 = 0o644;

fn bits(mode: i32) -> u32 {
    mode.cast_unsigned() & 0o777
}

/// Chooses keys by `items`, or all.
fn select(
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    default_mode: i32,
    optional: bool,
    what: &str,
) -> Result<Payload, Problem> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        let entry = |data| Entry { data, mode: bits(default_mode) };
        return Ok(data.into_iter().map(|(k, v)| (k, entry(v))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        check_path(&item.path)?;
        match data.get(&item.key) {
            Some(value) => {
                let mode = bits(item.mode.unwrap_or(default_mode));
                payload.insert(item.path.clone(), Entry { data: value.clone(), mode });
            }
            None if optional => {}
            None => return Err(format!("references non-existent {what} key: {}", item.key)),
        }
    }
    Ok(payload)
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    text.chain(binary).collect()
}

fn secret_data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()
}

impl Context<'_> {
    async fn config_map(
        &self,
        name: &str,
        items: Option<&Vec<KeyToPath>>,
        mode: i32,
        optional: bool,
    ) -> Result<Payload, Problem> {
        let found =
            self.node.objects.config_map(containers::namespace(self.pod), name, self.age).await;
        match found.map_err(|e| format!("configmap {name:?}: {e}"))? {
            Some(map) => select(config_map_data(&map), items, mode, optional, "config"),
            None if optional => Ok(Payload::new()),
            None => Err(format!("configmap \"{name}\" not found")),
        }
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&Vec<KeyToPath>>,
        mode: i32,
        optional: bool,
    ) -> Result<Payload, Problem> {
        let found = self.node.objects.secret(containers::namespace(self.pod), name, self.age).await;
        match found.map_err(|e| format!("secret {name:?}: {e}"))? {
            Some(secret) => select(secret_data(&secret), items, mode, optional, "secret"),
            None if optional => Ok(Payload::new()),
            None => Err(format!("secret \"{name}\" not found")),
        }
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<Payload, Problem> {
        let mut payload = Payload::new();
        for item in items {
            check_path(&item.path)?;
            let text = if let Some(field) = &item.field_ref {
                downward::field(self.pod, field, &self.node.facts, self.pod_ips)?
            } else if let Some(resource) = &item.resource_field_ref {
                let name = resource.container_name.as_deref().unwrap_or_default();
                let (_, container) = containers::find(self.pod, name)
                    .ok_or_else(|| format!("container {name:?} not found"))?;
                downward::resource(resource, &container, &self.node.facts)?
            } else {
                return Err(format!("{}: fieldRef or resourceFieldRef is needed", item.path));
            };
            let mode = bits(item.mode.unwrap_or(mode));
            payload.insert(item.path.clone(), Entry { data: text.into_bytes(), mode });
        }
        Ok(payload)
    }

    async fn projection(&self, source: &VolumeProjection, mode: i32) -> Result<Payload, Problem> {
        if let Some(map) = &source.config_map {
            return self
                .config_map(&map.name, map.items.as_ref(), mode, map.optional == Some(true))
                .await;
        }
        if let Some(secret) = &source.secret {
            return self
                .secret(&secret.name, secret.items.as_ref(), mode, secret.optional == Some(true))
                .await;
        }
        if let Some(downward) = &source.downward_api {
            return self.downward(downward.items.as_deref().unwrap_or_default(), mode);
        }
        if let Some(token) = &source.service_account_token {
            check_path(&token.path)?;
            let text = self.node.tokens.get(self.node, self.pod, token).await?;
            let mode = tokens::file_mode(self.pod, bits(mode));
            return Ok(Payload::from([(
                token.path.clone(),
                Entry { data: text.into_bytes(), mode },
            )]));
        }
        Err("clusterTrustBundle and podCertificate projections are not supported".into())
    }

    async fn projected(&self, source: &ProjectedVolumeSource) -> Result<Payload, Problem> {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut payload = Payload::new();
        for source in source.sources.iter().flatten() {
            payload.extend(self.projection(source, mode).await?);
        }
        Ok(payload)
    }

    /// The files of a volume that is made of API objects; `None` for other kinds of volume.
    ///
    /// # Errors
    /// What is missing, as a sentence.
    pub async fn payload(&self, volume: &Volume) -> Result<Option<Payload>, Problem> {
        if let Some(map) = &volume.config_map {
            let mode = map.default_mode.unwrap_or(DEFAULT_MODE);
            return self
                .config_map(&map.name, map.items.as_ref(), mode, map.optional == Some(true))
                .await
                .map(Some);
        }
        if let Some(secret) = &volume.secret {
            let mode = secret.default_mode.unwrap_or(DEFAULT_MODE);
            let name = secret.secret_name.as_deref().unwrap_or_default();
            return self
                .secret(name, secret.items.as_ref(), mode, secret.optional == Some(true))
                .await
                .map(Some);
        }
        if let Some(downward) = &volume.downward_api {
            let mode = downward.default_mode.unwrap_or(DEFAULT_MODE);
            return self.downward(downward.items.as_deref().unwrap_or_default(), mode).map(Some);
        }
        match &volume.projected {
            Some(projected) => self.projected(projected).await.map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_and_rename() {
        let data =
            || BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
        let all = select(data(), None, 0o600, false, "config").unwrap();
        assert_eq!((all.len(), all["a"].mode), (2, 0o600));
        let item =
            |key: &str| vec![KeyToPath { key: key.into(), path: "x/y".into(), mode: Some(0o400) }];
        let one = select(data(), Some(&item("b")), 0o600, false, "config").unwrap();
        assert_eq!(one["x/y"], Entry { data: b"2".to_vec(), mode: 0o400 });
        assert!(
            select(data(), Some(&item("c")), 0o600, false, "config")
                .unwrap_err()
                .contains("key: c")
        );
        assert!(select(data(), Some(&item("c")), 0o600, true, "config").unwrap().is_empty());
    }
}
