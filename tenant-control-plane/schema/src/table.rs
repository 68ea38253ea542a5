//! The table in memory: types, their fields, and the kinds that are made of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;

use crate::parse;

/// A name that is either part of the built-in table or made at run time from a custom resource.
pub type Name = Cow<'static, str>;

/// Index of a type in its [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// Values that have no fields of their own in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// UTF-8 string.
    String,
    /// `true` or `false`.
    Bool,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// 64-bit floating point number.
    Double,
    /// Base64 in JSON.
    Bytes,
    /// `resource.Quantity`: string, or number on input.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// `meta/v1 Time`: RFC 3339, whole seconds.
    Time,
    /// `meta/v1 MicroTime`: RFC 3339 with six digits.
    MicroTime,
    /// `meta/v1 Duration`: Go's notation, such as `1m30s`.
    Duration,
    /// Any JSON; in protobuf a message with the JSON text in field 1 (`RawExtension`, `FieldsV1`,
    /// `apiextensions JSON`).
    Raw,
    /// `apiextensions JSONSchemaPropsOrArray`.
    SchemaOrArray,
    /// `apiextensions JSONSchemaPropsOrBool`.
    SchemaOrBool,
    /// `apiextensions JSONSchemaPropsOrStringArray`.
    SchemaOrStrings,
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// A value without fields.
    Scalar(Scalar),
    /// An object of another type of the table.
    Object(TypeId),
    /// A list.
    List(Box<FieldType>),
    /// An object with arbitrary keys.
    Map(Box<FieldType>),
}

impl FieldType {
    /// The type of the elements of a list or map, or the type itself.
    pub fn element(&self) -> &FieldType {
        match self {
            FieldType::List(inner) | FieldType::Map(inner) => inner,
            other => other,
        }
    }

    /// The object type that this is, or that its elements are.
    pub fn object(&self) -> Option<TypeId> {
        match self {
            FieldType::Object(id) => Some(*id),
            FieldType::List(inner) | FieldType::Map(inner) => inner.object(),
            FieldType::Scalar(_) => None,
        }
    }
}

/// How a list is merged (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Replaced as a whole, owned by one manager.
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Objects identified by these fields.
    Map(Box<[Name]>),
}

/// Strategic-merge-patch semantics of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// `patchStrategy` contains `merge`.
    pub merge: bool,
    /// `patchStrategy` contains `retainKeys`.
    pub retain_keys: bool,
    /// `patchMergeKey`, for lists of objects.
    pub merge_key: Option<Name>,
}

/// One field of a type.
#[derive(Clone, Debug)]
pub struct Field {
    /// JSON name.
    pub name: Name,
    /// Protobuf tag, or several: some objects are nested in protobuf but inline in JSON, and the
    /// path then leads through the nested message. Empty when the field is not in protobuf.
    pub tags: Box<[u32]>,
    /// Type.
    pub ty: FieldType,
    /// Must be present.
    pub required: bool,
    /// Written even when it has its zero value (no `omitempty` upstream).
    pub always_written: bool,
    /// Absent and zero are different values.
    pub nullable: bool,
    /// A list that protobuf wraps in a message of its own, as its field 1.
    pub wrapped: bool,
    /// List semantics; `None` when undeclared, which means atomic.
    pub list: Option<ListKind>,
    /// A map or object that is replaced as a whole (`x-kubernetes-map-type: atomic`).
    pub atomic_map: bool,
    /// Strategic merge patch semantics.
    pub patch: Patch,
    /// Declared constant default.
    pub default: Option<Box<Value>>,
    /// Allowed values, empty when any.
    pub values: Box<[Name]>,
}

/// One object type.
#[derive(Clone, Debug)]
pub struct Type {
    /// Full name as in upstream's OpenAPI: `io.k8s.api.core.v1.Pod`.
    pub name: Name,
    /// Fields in the order of their JSON names.
    pub fields: Vec<Field>,
    /// Replaced as a whole by server-side apply (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Fields that are not listed may hold anything (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
}

impl Type {
    /// A field by its JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|f| f.name.as_ref().cmp(name)).ok()?;
        Some(&self.fields[at])
    }

    /// The last part of the name: `Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// A kind and its type. One type may serve several kinds (`DeleteOptions`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group, `""` for core.
    pub group: Name,
    /// Version.
    pub version: Name,
    /// CamelCase kind.
    pub kind: Name,
    /// Its type.
    pub ty: TypeId,
}

/// All types and kinds of one Kubernetes minor, or of one custom resource definition.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub(crate) version: Name,
    pub(crate) types: Vec<Type>,
    pub(crate) by_name: HashMap<Name, TypeId>,
    /// Sorted by group, version, kind.
    pub(crate) kinds: Vec<Kind>,
}

/// The minors that have a table. To add one: `cargo xtask schema <minor>`, then a line here.
static TABLES: [(&str, &str, OnceSchema); 1] =
    [("1.35", include_str!("../data/1.35.txt"), OnceLock::new())];

type OnceSchema = OnceLock<Schema>;

impl Schema {
    /// The table of a Kubernetes minor such as `1.35`, or `None` when there is none.
    pub fn get(version: &str) -> Option<&'static Schema> {
        let (name, text, cell) = TABLES.iter().find(|(name, ..)| *name == version)?;
        Some(cell.get_or_init(|| {
            parse::parse(name, text).expect("the committed table parses: a test reads all of them")
        }))
    }

    /// The minors that have a table, oldest first.
    pub fn versions() -> impl Iterator<Item = &'static str> {
        TABLES.iter().map(|(name, ..)| *name)
    }

    /// The minor that this table describes.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The type of a kind. `group` is empty for core.
    pub fn type_of(&self, group: &str, version: &str, kind: &str) -> Option<&Type> {
        let wanted = (group, version, kind);
        let at = self
            .kinds
            .binary_search_by(|k| {
                (k.group.as_ref(), k.version.as_ref(), k.kind.as_ref()).cmp(&wanted)
            })
            .ok()?;
        Some(self.resolve(self.kinds[at].ty))
    }

    /// A type by its full name, such as `io.k8s.api.core.v1.Pod`.
    pub fn type_named(&self, name: &str) -> Option<&Type> {
        self.by_name.get(name).map(|id| self.resolve(*id))
    }

    /// The type behind an id of this schema.
    pub fn resolve(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// Every kind, sorted by group, version and kind.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Every type.
    pub fn types(&self) -> &[Type] {
        &self.types
    }

    /// The type of the field at a path of JSON names, seen through lists and maps: `["spec",
    /// "containers", "image"]`.
    pub fn field_at<'a>(&'a self, ty: &'a Type, path: &[&str]) -> Option<&'a Field> {
        let (first, rest) = path.split_first()?;
        let field = ty.field(first)?;
        match rest {
            [] => Some(field),
            _ => self.field_at(self.resolve(field.ty.object()?), rest),
        }
    }
}
