//! One object as the cache holds it: serialised once, with the few values that selectors read.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use machinery::{FieldSelector, LabelSelector};
use serde_json::Value;

use crate::kinds::Field;

/// A cached object. Immutable; a change makes a new one.
pub struct Object {
    key: Box<str>,
    /// Revision of the write that produced it.
    pub revision: i64,
    /// The object as JSON in its stored version, resourceVersion included.
    pub json: Bytes,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[Box<str>]>,
    parsed: OnceLock<Arc<Value>>,
}

/// Sets `metadata.resourceVersion`.
pub fn set_revision(object: &mut Value, revision: i64) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
}

impl Object {
    /// From a value of the store. `key` is the part behind the resource's prefix; `defaults` is a
    /// schema whose defaults are filled in.
    pub fn from_stored(
        key: &str,
        stored: &[u8],
        revision: i64,
        fields: &[Field],
        defaults: Option<&Value>,
    ) -> Result<Self, serde_json::Error> {
        let mut value: Value = serde_json::from_slice(stored)?;
        if let Some(schema) = defaults {
            crate::structural::default(schema, &mut value);
        }
        Ok(Self::from_value(key, value, revision, fields))
    }

    /// From a tree that is not what is stored, such as a converted one.
    pub fn from_value(key: &str, mut value: Value, revision: i64, fields: &[Field]) -> Self {
        set_revision(&mut value, revision);
        let labels = value["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels
            .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()))
            .collect();
        let fields = fields.iter().map(|f| f.extract(&value).into_boxed_str()).collect();
        let json = serde_json::to_vec(&value).expect("a JSON value always serialises").into();
        Self { key: key.into(), revision, json, labels, fields, parsed: OnceLock::new() }
    }

    /// `namespace/name`, or `name` when cluster-scoped.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Namespace, or empty.
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| k.as_ref() == key).map(|(_, v)| v.as_ref())
    }

    /// The object as a tree, parsed when first asked for and kept.
    pub fn value(&self) -> Arc<Value> {
        self.parsed.get_or_init(|| Arc::new(self.parse())).clone()
    }

    /// The object as a tree of its own, for one who will change it.
    pub fn parse(&self) -> Value {
        match self.parsed.get() {
            Some(value) => Value::clone(value),
            None => serde_json::from_slice(&self.json).expect("written by this type from a value"),
        }
    }

    /// The same object under a later revision: what a watcher is told when it disappears.
    pub fn at_revision(&self, revision: i64) -> Self {
        let mut value = self.parse();
        set_revision(&mut value, revision);
        Self {
            key: self.key.clone(),
            revision,
            json: serde_json::to_vec(&value).expect("a JSON value always serialises").into(),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            parsed: OnceLock::new(),
        }
    }
}

/// Which objects a list or watch wants. Without conditions: all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Namespace, or all.
    pub namespace: Option<String>,
    /// Name, or all.
    pub name: Option<String>,
    /// Labels.
    pub labels: LabelSelector,
    /// Positions in the resource's field list, wanted value, negated.
    pub(super) fields: Vec<(FieldOf, String, bool)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum FieldOf {
    Name,
    Namespace,
    Indexed(usize),
}

impl Filter {
    /// Everything of one namespace, or of all.
    pub fn all(namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(str::to_owned), ..Self::default() }
    }

    /// The namespace and the name alone.
    pub fn without_selectors(&self) -> Self {
        Self { name: self.name.clone(), ..Self::all(self.namespace.as_deref()) }
    }

    /// Compiles selectors against a resource's fields. The error is the name of a field that the
    /// resource does not have.
    pub fn new(
        namespace: Option<String>,
        labels: LabelSelector,
        selector: &FieldSelector,
        fields: &[Field],
        allowed: &[Field],
    ) -> Result<Self, String> {
        let compile = |name: &str| match name {
            "metadata.name" => Some(FieldOf::Name),
            "metadata.namespace" => Some(FieldOf::Namespace),
            _ if !allowed.iter().any(|f| f.name == name) => None,
            _ => fields.iter().position(|f| f.name == name).map(FieldOf::Indexed),
        };
        let mut compiled = Vec::new();
        for r in selector.requirements() {
            let field = compile(&r.field).ok_or_else(|| r.field.clone())?;
            compiled.push((field, r.value.clone(), r.negated));
        }
        let name = selector.exact("metadata.name").map(str::to_owned);
        Ok(Self { namespace, name, labels, fields: compiled })
    }

    /// True when labels or fields are asked for, so that counting needs a look at each object.
    pub fn is_selective(&self) -> bool {
        !self.labels.is_everything() || !self.fields.is_empty()
    }

    /// True when the object is wanted.
    pub fn matches(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == object.namespace())
            && self.name.as_deref().is_none_or(|n| n == object.name())
            && self.labels.matches(|key| object.label(key))
            && self.fields.iter().all(|(field, wanted, negated)| {
                let actual = match field {
                    FieldOf::Name => object.name(),
                    FieldOf::Namespace => object.namespace(),
                    FieldOf::Indexed(i) => object.fields.get(*i).map_or("", |f| f.as_ref()),
                };
                (actual == wanted) != *negated
            })
    }
}
