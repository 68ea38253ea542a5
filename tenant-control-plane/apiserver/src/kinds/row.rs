//! One row of the table of kinds, and how a row is written down.

use std::borrow::Cow;

use serde_json::Value;

use crate::convert::webhook::Conversion;
use crate::strategy::Strategy;

/// A name of the built-in table or of a custom resource.
pub type Name = Cow<'static, str>;

/// A set of API verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbs(u8);

impl Verbs {
    /// `create`.
    pub const CREATE: Self = Self(1);
    /// `delete`.
    pub const DELETE: Self = Self(2);
    /// `deletecollection`.
    pub const DELETE_COLLECTION: Self = Self(4);
    /// `get`.
    pub const GET: Self = Self(8);
    /// `list`.
    pub const LIST: Self = Self(16);
    /// `patch`.
    pub const PATCH: Self = Self(32);
    /// `update`.
    pub const UPDATE: Self = Self(64);
    /// `watch`.
    pub const WATCH: Self = Self(128);
    /// What a stored kind offers.
    pub const ALL: Self = Self(255);
    /// What a status-like subresource offers.
    pub const STATUS: Self = Self(8 + 32 + 64);
    /// None.
    pub const NONE: Self = Self(0);

    /// In the order in which discovery lists them.
    const NAMES: [(&'static str, Self); 8] = [
        ("create", Self::CREATE),
        ("delete", Self::DELETE),
        ("deletecollection", Self::DELETE_COLLECTION),
        ("get", Self::GET),
        ("list", Self::LIST),
        ("patch", Self::PATCH),
        ("update", Self::UPDATE),
        ("watch", Self::WATCH),
    ];

    /// Both sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    pub const fn but(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True when the verb of that name is in the set.
    pub fn allows(self, verb: &str) -> bool {
        Self::NAMES.iter().any(|(name, v)| *name == verb && self.0 & v.0 != 0)
    }

    /// The names, sorted.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(_, v)| self.0 & v.0 != 0).map(|(name, _)| *name).collect()
    }
}

/// A field that field selectors may name, and where its value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in selectors.
    pub name: Name,
    /// JSON pointer to it. `a|b` means the first of the two that is there.
    pub pointer: Name,
    /// Value when it is absent.
    pub absent: &'static str,
}

impl Field {
    /// The field's value as text.
    pub fn extract(&self, object: &Value) -> String {
        let found =
            self.pointer.split('|').find_map(|p| object.pointer(p).filter(|v| !v.is_null()));
        match found {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Bool(b)) => b.to_string(),
            Some(Value::Number(n)) => n.to_string(),
            _ => self.absent.to_owned(),
        }
    }
}

/// What a subresource does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads the object, writes its status only.
    Status,
    /// `autoscaling/v1 Scale` view of `spec.replicas`.
    Scale,
    /// Assigns a pod to a node.
    Binding,
    /// Deletes a pod if its disruption budgets allow it.
    Eviction,
    /// Issues a token for a ServiceAccount.
    Token,
    /// Writes the conditions of a certificate signing request.
    Approval,
    /// Writes a namespace's `spec.finalizers`.
    Finalize,
    /// Adds ephemeral containers to a pod.
    EphemeralContainers,
    /// Changes a pod's resources in place.
    Resize,
    /// A container's log, from the kubelet.
    Log,
    /// A command in a container, through the kubelet.
    Exec,
    /// A container's terminal, through the kubelet.
    Attach,
    /// Ports of a pod, through the kubelet.
    PortForward,
    /// HTTP to a pod, Service or node.
    Proxy,
}

/// One subresource of a row.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// Name in the URL.
    pub name: &'static str,
    /// What it does.
    pub action: Action,
    /// Group and version of the kind it takes and returns, when not the row's own.
    pub group_version: Option<(&'static str, &'static str)>,
    /// Kind it takes and returns.
    pub kind: Name,
    /// Verbs.
    pub verbs: Verbs,
}

/// A kind that is computed, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// Who is this token?
    Token,
    /// Who am I?
    SelfSubject,
    /// May that user do this?
    SubjectAccess,
    /// May I do this?
    SelfSubjectAccess,
    /// May that user do this in this namespace?
    LocalSubjectAccess,
    /// What may I do in this namespace?
    SelfSubjectRules,
    /// `POST .../bindings`, the old form of `pods/binding`.
    Binding,
    /// `componentstatuses`, which are probed.
    ComponentStatus,
}

/// Converts an object in place from one version of its kind to another.
pub type Convert = fn(&mut Value);

/// One kind in one version.
#[derive(Clone, Debug)]
pub struct Row {
    /// API group, `""` for core.
    pub group: Name,
    /// API version.
    pub version: Name,
    /// Kind.
    pub kind: Name,
    /// Kind of its lists.
    pub list_kind: Name,
    /// Plural name, as in the URL.
    pub plural: Name,
    /// Singular name.
    pub singular: Name,
    /// Abbreviations that kubectl takes.
    pub short_names: Vec<Name>,
    /// Categories, such as `all`.
    pub categories: Vec<Name>,
    /// False for cluster-scoped kinds.
    pub namespaced: bool,
    /// Verbs on the kind itself.
    pub verbs: Verbs,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Key prefix in etcd without the trailing slash; `None` for reviews.
    pub prefix: Option<Name>,
    /// Fields that selectors may name beside `metadata.name` and `metadata.namespace`.
    pub fields: Vec<Field>,
    /// The kind's own rules.
    pub strategy: Strategy,
    /// Group and version of the stored form, and the conversions from and to it, when this
    /// version is not what is stored.
    pub stored_as: Option<StoredAs>,
    /// What computes it, for reviews.
    pub review: Option<Review>,
    /// True for rows made from a custom resource definition.
    pub custom: bool,
    /// JSON pointers to replicas wanted, replicas there and selector, where not the usual ones.
    pub scale_paths: Option<(String, String, Option<String>)>,
    /// Printed columns of custom resources.
    pub columns: Vec<Column>,
    /// `apiVersion` under which a custom resource with several versions is stored.
    pub storage_version: Option<String>,
    /// `openAPIV3Schema` of custom resources.
    pub schema: Option<std::sync::Arc<Value>>,
    /// The webhook that converts a custom resource between its versions, if one does.
    pub conversion: Option<std::sync::Arc<Conversion>>,
    /// The same schema as a table of types.
    pub types: Option<std::sync::Arc<schema::Schema>>,
    /// Schema of the stored version of a custom resource, when it has defaults: objects are read
    /// with them.
    pub stored_defaults: Option<std::sync::Arc<Value>>,
}

/// A printed column of a custom resource.
#[derive(Clone, Debug)]
pub struct Column {
    /// `columnDefinitions` entry.
    pub definition: Value,
    /// `jsonPath`.
    pub path: String,
}

/// How a row whose objects are stored in another version gets at them.
#[derive(Clone, Debug)]
pub struct StoredAs {
    /// `apiVersion` of what is stored.
    pub api_version: &'static str,
    /// From the stored form to this row's.
    pub from_stored: Convert,
    /// From this row's form to the stored one.
    pub to_stored: Convert,
}

impl Row {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        match self.group.as_ref() {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The resource without its version.
    pub fn group_resource(&self) -> machinery::GroupResource {
        machinery::GroupResource::new(self.group.clone(), self.plural.clone())
    }

    /// True when what is stored is not what is served, byte for byte.
    pub fn converts(&self) -> bool {
        self.stored_as.is_some() || self.storage_version.is_some()
    }

    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// True when the kind has a status that only its subresource writes.
    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|s| s.action == Action::Status)
    }

    /// The key in etcd. `namespace` is ignored for cluster-scoped kinds.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        if self.namespaced {
            format!("{prefix}/{namespace}/{name}")
        } else {
            format!("{prefix}/{name}")
        }
    }
}

/// The rows of one group, written as a chain.
pub struct Rows(pub Vec<Row>);

impl Rows {
    /// One version of a group.
    pub fn of(group: &'static str, version: &'static str, rows: Vec<RowBuilder>) -> Self {
        let finish = |b: RowBuilder| {
            let mut row = b.0;
            row.group = group.into();
            row.version = version.into();
            row
        };
        Self(rows.into_iter().map(finish).collect())
    }

    /// Adds another version or group.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

/// A row under construction.
pub struct RowBuilder(Row);

/// A namespaced kind with every verb.
pub fn namespaced(kind: &'static str, plural: &'static str) -> RowBuilder {
    let prefix = match plural {
        // Names that the key space has kept from before the resources were renamed.
        "replicationcontrollers" => "controllers",
        "endpoints" => "services/endpoints",
        "nodes" => "minions",
        "services" => "services/specs",
        "ingresses" => "ingress",
        other => other,
    };
    let mut row = namespaced_row();
    row.kind = kind.into();
    row.list_kind = format!("{kind}List").into();
    row.plural = plural.into();
    row.singular = kind.to_lowercase().into();
    row.prefix = Some(format!("/registry/{prefix}").into());
    RowBuilder(row)
}

/// A namespaced row with every verb and no names yet.
pub fn namespaced_row() -> Row {
    Row {
        group: Name::default(),
        version: Name::default(),
        kind: Name::default(),
        list_kind: Name::default(),
        plural: Name::default(),
        singular: Name::default(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        verbs: Verbs::ALL,
        subresources: Vec::new(),
        prefix: None,
        fields: Vec::new(),
        strategy: Strategy::default(),
        stored_as: None,
        review: None,
        custom: false,
        scale_paths: None,
        columns: Vec::new(),
        storage_version: None,
        schema: None,
        conversion: None,
        types: None,
        stored_defaults: None,
    }
}

/// A cluster-scoped kind with every verb.
pub fn cluster(kind: &'static str, plural: &'static str) -> RowBuilder {
    let mut builder = namespaced(kind, plural);
    builder.0.namespaced = false;
    builder
}

impl RowBuilder {
    /// Abbreviations.
    pub fn short(mut self, names: &[&'static str]) -> Self {
        self.0.short_names = names.iter().map(|n| Name::Borrowed(n)).collect();
        self
    }

    /// In `kubectl get all`.
    pub fn in_all(self) -> Self {
        self.category("all")
    }

    /// In a category.
    pub fn category(mut self, name: &'static str) -> Self {
        self.0.categories.push(name.into());
        self
    }

    /// Other verbs than all.
    pub fn verbs(mut self, verbs: Verbs) -> Self {
        self.0.verbs = verbs;
        self
    }

    /// Another key prefix than the plural name.
    pub fn stored_below(mut self, prefix: &'static str) -> Self {
        self.0.prefix = Some(prefix.into());
        self
    }

    /// A status subresource.
    pub fn status(self) -> Self {
        let kind = self.0.kind.clone();
        self.sub("status", Action::Status, None, kind, Verbs::STATUS)
    }

    /// A scale subresource.
    pub fn scale(self) -> Self {
        let scale = Some(("autoscaling", "v1"));
        self.sub("scale", Action::Scale, scale, "Scale".into(), Verbs::STATUS)
    }

    /// Any other subresource.
    pub fn sub(
        mut self,
        name: &'static str,
        action: Action,
        group_version: Option<(&'static str, &'static str)>,
        kind: Name,
        verbs: Verbs,
    ) -> Self {
        self.0.subresources.push(Subresource { name, action, group_version, kind, verbs });
        self
    }

    /// A field for selectors.
    pub fn field(self, name: &'static str, pointer: &'static str) -> Self {
        self.field_or(name, pointer, "")
    }

    /// A field for selectors, with the value that it has when absent.
    pub fn field_or(
        mut self,
        name: &'static str,
        pointer: &'static str,
        absent: &'static str,
    ) -> Self {
        self.0.fields.push(Field { name: name.into(), pointer: pointer.into(), absent });
        self
    }

    /// The kind's own rules.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.0.strategy = strategy;
        self
    }

    /// Stored in another version.
    pub fn stored_as(
        mut self,
        api_version: &'static str,
        from_stored: Convert,
        to_stored: Convert,
    ) -> Self {
        self.0.stored_as = Some(StoredAs { api_version, from_stored, to_stored });
        self
    }

    /// Computed, not stored; only `create` unless verbs say otherwise.
    pub fn review(mut self, review: Review) -> Self {
        self.0.review = Some(review);
        self.0.prefix = None;
        self.0.verbs = Verbs::CREATE;
        self
    }
}
