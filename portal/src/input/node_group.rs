//! A node group that somebody wants.

use std::collections::BTreeMap;

use marina_db::clusters::Driver;
use marina_db::node_groups::{NodeGroupSpec, Taint};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{check_name, check_range};
use crate::problem::FieldError;

/// Workers in one node group.
const COUNT: std::ops::RangeInclusive<i64> = 0..=100;
/// Labels, and taints, of one node group.
const LABELS_MAX: usize = 50;

/// Body of `POST /clusters/{cluster}/node-groups`.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNodeGroup {
    /// Unique in the cluster: 1 to 40 lower-case letters, digits and `-`.
    #[schema(example = "workers")]
    pub name: String,
    /// How many workers, 0 to 100.
    #[schema(example = 2)]
    pub count: i64,
    /// `qemu` or `sandbox`. Default: the cluster's.
    pub driver: Option<String>,
    /// Virtual CPUs of each worker, 1 to 64. Default: 1.
    pub vcpus: Option<i64>,
    /// Memory of each worker in MiB, 512 to 262144. Default: 1024.
    pub memory_mib: Option<i64>,
    /// Disk of each worker in GiB, 4 to 1024. Default: 10.
    pub disk_gib: Option<i64>,
    /// Labels of the Nodes (Kubernetes label syntax; `kubernetes.io` and `k8s.io` are reserved).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints of the Nodes.
    #[serde(default)]
    pub taints: Vec<NewTaint>,
}

/// A taint of a group's Nodes.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTaint {
    /// Key (Kubernetes label syntax).
    pub key: String,
    /// Value, may be empty.
    #[serde(default)]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// Body of `PATCH /clusters/{cluster}/node-groups/{group}`.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleNodeGroup {
    /// How many workers, 0 to 100.
    pub count: i64,
}

impl ScaleNodeGroup {
    /// Checks the count.
    ///
    /// # Errors
    /// The field and what is allowed.
    pub fn check(&self) -> Result<i64, Vec<FieldError>> {
        let mut errors = Vec::new();
        check_range("count", self.count, COUNT, "", &mut errors);
        if errors.is_empty() { Ok(self.count) } else { Err(errors) }
    }
}

impl NewNodeGroup {
    /// Checks everything and fills in defaults.
    ///
    /// # Errors
    /// One entry per field that is not valid.
    pub fn check(&self, cluster_driver: Driver) -> Result<NodeGroupSpec, Vec<FieldError>> {
        let mut errors = Vec::new();
        check_name("name", &self.name, &mut errors);
        check_range("count", self.count, COUNT, "", &mut errors);
        let driver = match self.driver.as_deref().map(str::parse) {
            None => cluster_driver,
            Some(Ok(driver)) => driver,
            Some(Err(_)) => {
                errors.push(FieldError::new("driver", "must be `qemu` or `sandbox`."));
                cluster_driver
            }
        };
        let spec = NodeGroupSpec {
            name: self.name.clone(),
            desired: self.count,
            driver,
            vcpus: self.vcpus.unwrap_or(1),
            memory_mib: self.memory_mib.unwrap_or(1024),
            disk_gib: self.disk_gib.unwrap_or(10),
            labels: self.labels.clone(),
            taints: self.taints.iter().map(NewTaint::to_taint).collect(),
        };
        check_range("vcpus", spec.vcpus, 1..=64, "", &mut errors);
        check_range("memory_mib", spec.memory_mib, 512..=262_144, " MiB", &mut errors);
        check_range("disk_gib", spec.disk_gib, 4..=1024, " GiB", &mut errors);
        self.check_labels(&mut errors);
        self.check_taints(&mut errors);
        if errors.is_empty() { Ok(spec) } else { Err(errors) }
    }

    fn check_labels(&self, errors: &mut Vec<FieldError>) {
        if self.labels.len() > LABELS_MAX {
            errors.push(FieldError::new("labels", format!("must be at most {LABELS_MAX}.")));
        }
        for (key, value) in &self.labels {
            let field = format!("labels.{key}");
            if !is_key(key) || is_reserved(key) {
                errors.push(FieldError::new(field, KEY_RULE));
            } else if !is_value(value) {
                errors.push(FieldError::new(field, VALUE_RULE));
            }
        }
    }

    fn check_taints(&self, errors: &mut Vec<FieldError>) {
        if self.taints.len() > LABELS_MAX {
            errors.push(FieldError::new("taints", format!("must be at most {LABELS_MAX}.")));
        }
        for (index, taint) in self.taints.iter().enumerate() {
            let mut refuse = |part: &str, rule: &str| {
                errors.push(FieldError::new(format!("taints[{index}].{part}"), rule));
            };
            if !is_key(&taint.key) || is_reserved(&taint.key) {
                refuse("key", KEY_RULE);
            }
            if !is_value(&taint.value) {
                refuse("value", VALUE_RULE);
            }
            if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str()) {
                refuse("effect", "must be `NoSchedule`, `PreferNoSchedule` or `NoExecute`.");
            }
            let is_same = |other: &NewTaint| other.key == taint.key && other.effect == taint.effect;
            if self.taints[..index].iter().any(is_same) {
                let rule = "must be unique by key and effect.";
                errors.push(FieldError::new(format!("taints[{index}]"), rule));
            }
        }
    }
}

impl NewTaint {
    fn to_taint(&self) -> Taint {
        Taint { key: self.key.clone(), value: self.value.clone(), effect: self.effect.clone() }
    }
}

const KEY_RULE: &str = "must be a Kubernetes label key: an optional DNS prefix and `/`, then 1 to 63 \
    letters, digits, `-`, `_` and `.`; prefixes ending in kubernetes.io, k8s.io and marina.dev are \
    reserved.";
const VALUE_RULE: &str = "must be a Kubernetes label value: at most 63 letters, digits, `-`, `_` and \
    `.`, beginning and ending with a letter or digit.";

/// Kubernetes label key (API conventions, "Label selector: syntax and character set").
fn is_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let dns = |prefix: &str| {
        let label = |l: &str| {
            !l.is_empty()
                && l.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        prefix.len() <= 253 && prefix.split('.').all(label)
    };
    !name.is_empty() && is_value(name) && prefix.is_none_or(dns)
}

fn is_value(value: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value.chars().all(inner)
        && edge(value.chars().next())
        && edge(value.chars().next_back())
}

fn is_reserved(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    ["kubernetes.io", "k8s.io", "marina.dev"]
        .iter()
        .any(|reserved| prefix == *reserved || prefix.ends_with(&format!(".{reserved}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_at_fault_is_named() {
        let body = json!({"name": "", "count": 101, "driver": "x", "vcpus": 0, "memory_mib": 1,
            "disk_gib": 5000, "labels": {"a b": "c", "team": "-x", "x.k8s.io/y": "z"},
            "taints": [{"key": "k", "effect": "Never"}, {"key": "d", "effect": "NoExecute"},
                {"key": "d", "value": "2", "effect": "NoExecute"}]});
        let new: NewNodeGroup = serde_json::from_value(body).expect("a body");
        let errors = new.check(Driver::Qemu).expect_err("refused");
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        let expected = [
            "name",
            "count",
            "driver",
            "vcpus",
            "memory_mib",
            "disk_gib",
            "labels.a b",
            "labels.team",
            "labels.x.k8s.io/y",
            "taints[0].effect",
            "taints[2]",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_name_and_a_count_are_enough() {
        let new: NewNodeGroup =
            serde_json::from_value(json!({"name": "w", "count": 2})).expect("a body");
        assert_eq!(new.check(Driver::Sandbox).expect("accepted").driver, Driver::Sandbox);
    }
}
