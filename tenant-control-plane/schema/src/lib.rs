//! The shape of every built-in kind, as data.
//!
//! One generated table per Kubernetes minor (`data/<minor>.txt`, made by `cargo xtask schema`)
//! holds, for each type, its fields with JSON name, protobuf tag, type, list and patch semantics,
//! default and allowed values. Everything that must know the shape of an object reads this table:
//! strict decoding, pruning, defaulting, strategic merge, OpenAPI and `kubectl explain`. Rules that
//! are computed rather than declared (an image's pull policy, immutable fields) stand beside the
//! table as one function per kind, in `defaults` and `validate`.
//!
//! ```text
//!  body ─► strict (types, unknown and duplicate fields) ─► defaults ─► validate ─► storage
//!                    ▲                                        ▲
//!                    └───────────── table (data/1.35.txt) ────┴──► patch, openapi, explain
//! ```
//!
//! It never does I/O, holds no object, and knows nothing of requests, users or storage. Invariants:
//! a table is parsed once, on first use, and never changes; every type that a field names exists
//! in the same table. From here a request goes on to admission.

pub mod convert;
pub mod custom;
pub mod defaults;
pub mod duplicates;
mod duration;

pub mod normalize;
pub mod openapi;
mod parse;
mod place;
pub mod protobuf;
pub mod strict;
pub mod table;
pub mod validate;

pub use openapi::ResourceRow;
pub use table::{Field, FieldType, Kind, ListKind, Patch, Scalar, Schema, Type, TypeId};
