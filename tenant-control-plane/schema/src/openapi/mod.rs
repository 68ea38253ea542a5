//! OpenAPI documents built from the table and the served resources.

/// One served resource, as the API server's table of kinds has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRow {
    /// API group, `""` for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// CamelCase kind.
    pub kind: String,
    /// Lower-case plural, as in URLs.
    pub plural: String,
    /// True when objects live in namespaces.
    pub namespaced: bool,
    /// `create`, `get`, `list`, `watch`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: Vec<String>,
    /// Subresources by their name in URLs.
    pub subresources: Vec<Subresource>,
}

/// One subresource of a [`ResourceRow`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subresource {
    /// Name in URLs, such as `status`.
    pub name: String,
    /// Group of its kind.
    pub group: String,
    /// Version of its kind.
    pub version: String,
    /// Its kind: the parent's for `status`, `Scale` for `scale`.
    pub kind: String,
    /// `get`, `create`, `update`, `patch`.
    pub verbs: Vec<String>,
}
