//! Objects seen through the schema: which fields they have, how two of them merge and differ.

use std::collections::HashMap;

use schema::{Field, FieldType, ListKind, Schema, Type};
use serde_json::{Map, Value};

use super::set::FieldSet;

/// How a value merges.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'s> {
    /// As a whole: scalars, atomic lists and maps.
    Whole,
    /// Field by field.
    Fields(&'s Type),
    /// Entry by entry.
    Entries(&'s FieldType),
    /// Element by element, found by the values of these fields.
    Keyed(&'s [schema::table::Name], &'s FieldType),
    /// Each element is its own identity.
    Unique,
}

/// The three ways in which a place can differ between two objects.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) added: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) removed: FieldSet,
}

/// An element of a keyed list does not say which one it is.
#[derive(Debug)]
pub(crate) struct NoKey(pub(crate) String);

pub(crate) struct Typed<'s> {
    pub(crate) schema: &'s Schema,
}

impl<'s> Typed<'s> {
    fn shape_of_field(&self, field: &'s Field) -> Shape<'s> {
        match (&field.ty, &field.list) {
            _ if field.atomic_map => Shape::Whole,
            (FieldType::List(inner), Some(ListKind::Map(keys))) => Shape::Keyed(keys, inner),
            (FieldType::List(_), Some(ListKind::Set)) => Shape::Unique,
            (ty, _) => self.shape_of_type(ty),
        }
    }

    fn shape_of_type(&self, ty: &'s FieldType) -> Shape<'s> {
        match ty {
            FieldType::Object(id) => {
                let ty = self.schema.resolve(*id);
                if ty.atomic || ty.fields.is_empty() { Shape::Whole } else { Shape::Fields(ty) }
            }
            FieldType::Map(inner) => Shape::Entries(inner),
            FieldType::List(_) | FieldType::Scalar(_) => Shape::Whole,
        }
    }

    /// The shape below a field or map key.
    fn below(&self, shape: Shape<'s>, name: &str) -> Shape<'s> {
        match shape {
            Shape::Fields(ty) => ty.field(name).map_or(Shape::Whole, |f| self.shape_of_field(f)),
            Shape::Entries(inner) => self.shape_of_type(inner),
            _ => Shape::Whole,
        }
    }

    /// The identities of a list's elements, as path elements.
    fn identities(&self, shape: Shape<'s>, items: &[Value]) -> Result<Vec<String>, NoKey> {
        items.iter().map(|item| self.identity(shape, item)).collect()
    }

    pub(super) fn identity(&self, shape: Shape<'s>, item: &Value) -> Result<String, NoKey> {
        let Shape::Keyed(keys, inner) = shape else { return Ok(format!("v:{item}")) };
        let ty = inner.object().map(|id| self.schema.resolve(id));
        let mut names: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        names.sort_unstable();
        let mut parts = Vec::with_capacity(names.len());
        let mut given = false;
        for name in names {
            let default = || ty.and_then(|t| t.field(name)).and_then(|f| f.default.as_deref());
            given |= item.get(name).is_some();
            if let Some(value) = item.get(name).or_else(default) {
                parts.push(format!("{}:{value}", Value::from(name)));
            }
        }
        if !given {
            let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
            return Err(NoKey(format!(
                "element of an associative list with keys ({}) has none of them",
                keys.join(", ")
            )));
        }
        Ok(format!("k:{{{}}}", parts.join(",")))
    }

    /// Every field that an object has.
    pub(crate) fn fields(&self, ty: &'s Type, object: &Value) -> Result<FieldSet, NoKey> {
        let mut set = FieldSet::default();
        self.collect(Shape::Fields(ty), object, &mut set)?;
        set.here = false;
        Ok(set)
    }

    fn collect(&self, shape: Shape<'s>, value: &Value, set: &mut FieldSet) -> Result<(), NoKey> {
        match (shape, value) {
            (Shape::Fields(_) | Shape::Entries(_), Value::Object(fields)) if !fields.is_empty() => {
                for (name, inner) in fields {
                    let place = set.at(format!("f:{name}"));
                    self.collect(self.below(shape, name), inner, place)?;
                    place.here |= matches!(shape, Shape::Entries(_));
                }
            }
            (Shape::Keyed(_, inner), Value::Array(items)) if !items.is_empty() => {
                for item in items {
                    let place = set.at(self.identity(shape, item)?);
                    self.collect(self.shape_of_type(inner), item, place)?;
                    place.here = true;
                }
            }
            (Shape::Unique, Value::Array(items)) if !items.is_empty() => {
                for item in items {
                    set.at(self.identity(shape, item)?).here = true;
                }
            }
            _ => set.here = true,
        }
        Ok(())
    }

    /// The live object with a configuration laid over it.
    pub(crate) fn merge(&self, ty: &'s Type, live: &Value, config: &Value) -> Result<Value, NoKey> {
        self.merged(Shape::Fields(ty), live, config)
    }

    fn merged(&self, shape: Shape<'s>, live: &Value, config: &Value) -> Result<Value, NoKey> {
        match (shape, live, config) {
            (Shape::Fields(_) | Shape::Entries(_), Value::Object(old), Value::Object(new)) => {
                let mut result = old.clone();
                for (name, value) in new {
                    let merged = match old.get(name) {
                        Some(before) => self.merged(self.below(shape, name), before, value)?,
                        None => value.clone(),
                    };
                    result.insert(name.clone(), merged);
                }
                Ok(Value::Object(result))
            }
            (Shape::Keyed(..) | Shape::Unique, Value::Array(old), Value::Array(new)) => {
                self.merged_list(shape, old, new).map(Value::Array)
            }
            _ => Ok(config.clone()),
        }
    }

    /// Elements of the configuration in its order; elements that only the live list has stay
    /// where they were between them.
    fn merged_list(
        &self,
        shape: Shape<'s>,
        old: &[Value],
        new: &[Value],
    ) -> Result<Vec<Value>, NoKey> {
        let (old_ids, new_ids) = (self.identities(shape, old)?, self.identities(shape, new)?);
        let wanted: HashMap<&str, usize> =
            new_ids.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let known: HashMap<&str, usize> =
            old_ids.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let element = match shape {
            Shape::Keyed(_, inner) => self.shape_of_type(inner),
            _ => Shape::Whole,
        };
        let mut result = Vec::with_capacity(old.len() + new.len());
        let mut rest = old.iter().zip(&old_ids).peekable();
        for (value, id) in new.iter().zip(&new_ids) {
            while let Some((item, _)) = rest.next_if(|(_, id)| !wanted.contains_key(id.as_str())) {
                result.push(item.clone());
            }
            // One place of the old list is used up for each element that both have.
            if known.contains_key(id.as_str()) {
                rest.next();
            }
            result.push(match known.get(id.as_str()) {
                Some(at) => self.merged(element, &old[*at], value)?,
                None => value.clone(),
            });
        }
        let left = rest.filter(|(_, id)| !wanted.contains_key(id.as_str()));
        result.extend(left.map(|(item, _)| item.clone()));
        Ok(result)
    }

    /// What changed from one object to another.
    pub(crate) fn compare(
        &self,
        ty: &'s Type,
        old: &Value,
        new: &Value,
    ) -> Result<Difference, NoKey> {
        let mut difference = Difference::default();
        self.differ(Shape::Fields(ty), Some(old), Some(new), &mut difference)?;
        Ok(difference)
    }

    fn differ(
        &self,
        shape: Shape<'s>,
        old: Option<&Value>,
        new: Option<&Value>,
        out: &mut Difference,
    ) -> Result<(), NoKey> {
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) if old == new => return Ok(()),
            (Some(old), Some(new)) => (old, new),
            (None, Some(new)) => return self.collect(shape, new, &mut out.added),
            (Some(old), None) => return self.collect(shape, old, &mut out.removed),
            (None, None) => return Ok(()),
        };
        match (shape, old, new) {
            (Shape::Fields(_) | Shape::Entries(_), Value::Object(before), Value::Object(after)) => {
                let gone = before.keys().filter(|name| !after.contains_key(*name));
                for name in after.keys().chain(gone) {
                    let element = format!("f:{name}");
                    let is_entry = matches!(shape, Shape::Entries(_));
                    let pair = (before.get(name), after.get(name));
                    self.differ_below(self.below(shape, name), pair, element, is_entry, out)?;
                }
                Ok(())
            }
            (Shape::Keyed(..) | Shape::Unique, Value::Array(before), Value::Array(after)) => {
                let element = match shape {
                    Shape::Keyed(_, inner) => self.shape_of_type(inner),
                    _ => Shape::Whole,
                };
                let old_ids = self.identities(shape, before)?;
                let new_ids = self.identities(shape, after)?;
                let mut left: HashMap<&str, &Value> =
                    old_ids.iter().map(String::as_str).zip(before).collect();
                for (id, value) in new_ids.iter().zip(after) {
                    let pair = (left.remove(id.as_str()), Some(value));
                    self.differ_below(element, pair, id.clone(), true, out)?;
                }
                for (id, value) in left {
                    self.differ_below(element, (Some(value), None), id.to_owned(), true, out)?;
                }
                Ok(())
            }
            _ => {
                out.modified.here = true;
                Ok(())
            }
        }
    }

    /// Compares one place and hangs what it finds below its path element. `is_member` says that
    /// the place itself is owned, as entries of maps and elements of lists are.
    fn differ_below(
        &self,
        shape: Shape<'s>,
        (old, new): (Option<&Value>, Option<&Value>),
        element: String,
        is_member: bool,
        out: &mut Difference,
    ) -> Result<(), NoKey> {
        let mut inner = Difference::default();
        self.differ(shape, old, new, &mut inner)?;
        if is_member {
            inner.added.here |= old.is_none() && new.is_some();
            inner.removed.here |= old.is_some() && new.is_none();
        }
        for (set, target) in [
            (inner.added, &mut out.added),
            (inner.modified, &mut out.modified),
            (inner.removed, &mut out.removed),
        ] {
            if !set.is_empty() {
                target.at(element.clone()).union(&set);
            }
        }
        Ok(())
    }

    /// Removes what was in `last` and nobody keeps any more.
    pub(crate) fn prune(&self, ty: &'s Type, object: &mut Value, last: &FieldSet, keep: &FieldSet) {
        self.pruned(Shape::Fields(ty), object, last, keep);
    }

    fn pruned(&self, shape: Shape<'s>, value: &mut Value, last: &FieldSet, keep: &FieldSet) {
        match (shape, value) {
            (Shape::Fields(_) | Shape::Entries(_), Value::Object(fields)) => {
                for (element, inner) in &last.below {
                    let Some(name) = element.strip_prefix("f:") else { continue };
                    match (keep.below.get(element), fields.get_mut(name)) {
                        (None, _) => drop(fields.remove(name)),
                        (Some(kept), Some(value)) => {
                            self.pruned(self.below(shape, name), value, inner, kept);
                        }
                        (Some(_), None) => {}
                    }
                }
            }
            (Shape::Keyed(..) | Shape::Unique, Value::Array(items)) => {
                let element = match shape {
                    Shape::Keyed(_, inner) => self.shape_of_type(inner),
                    _ => Shape::Whole,
                };
                items.retain_mut(|item| {
                    let Ok(id) = self.identity(shape, item) else { return true };
                    match (last.below.get(&id), keep.below.get(&id)) {
                        (Some(_), None) => false,
                        (Some(inner), Some(kept)) => {
                            self.pruned(element, item, inner, kept);
                            true
                        }
                        (None, _) => true,
                    }
                });
            }
            _ => {}
        }
    }
}

/// An empty object, to compare a new one with.
pub(crate) fn nothing() -> Value {
    Value::Object(Map::new())
}
