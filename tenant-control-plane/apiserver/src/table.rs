//! `meta.k8s.io Table`: what `kubectl get` prints. Columns come from `printers`, or from the
//! definition of a custom resource.

use jiff::Timestamp;
use machinery::{GroupVersionKind, Status};
use serde_json::{Value, json};

use crate::jsonpath;
use crate::kinds::Column;
use crate::registry::{Call, present};

/// How much of each object a table row carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// Renders rows of one kind.
pub struct Printer {
    gvk: GroupVersionKind,
    built_in: printers::Printer,
    custom: Vec<Column>,
    include: Include,
}

impl Printer {
    /// The printer of a call's kind.
    pub fn new(call: &Call) -> Result<Self, Status> {
        let include = match call.query.get("includeObject") {
            None | Some("" | "Metadata") => Include::Metadata,
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "unrecognized includeObject value: {other:?}"
                )));
            }
        };
        let gvk = call.gvk();
        let built_in = printers::table(&gvk);
        Ok(Self { gvk, built_in, custom: call.row.columns.clone(), include })
    }

    /// `columnDefinitions`.
    pub fn columns(&self) -> Value {
        if self.custom.is_empty() {
            return self.built_in.columns.iter().map(|c| c.to_json()).collect();
        }
        let name = json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0});
        std::iter::once(name).chain(self.custom.iter().map(|c| c.definition.clone())).collect()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        if self.custom.is_empty() {
            return self.built_in.row(object, now);
        }
        let name = object["metadata"]["name"].clone();
        std::iter::once(name)
            .chain(self.custom.iter().map(|c| custom_cell(c, object, now)))
            .collect()
    }

    /// One row.
    pub fn row(&self, object: &Value) -> Value {
        let mut row = json!({"cells": self.cells(object, Timestamp::now())});
        let conditions = printers::row_conditions(&self.gvk, object);
        if !conditions.is_empty() {
            row["conditions"] = conditions.into();
        }
        match self.include {
            Include::None => {}
            Include::Metadata => row["object"] = present::partial(object),
            Include::Object => row["object"] = object.clone(),
        }
        row
    }

    /// A whole table.
    pub fn table(&self, objects: &[Value], metadata: Value, with_columns: bool) -> Value {
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "columnDefinitions": if with_columns { self.columns() } else { Value::Null },
            "rows": objects.iter().map(|o| self.row(o)).collect::<Vec<_>>(),
        })
    }
}

fn custom_cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = jsonpath::find(&column.path, object);
    let Some(first) = found.first() else { return Value::Null };
    match column.definition["type"].as_str() {
        Some("date") => {
            let at = first.as_str().and_then(|t| t.parse::<Timestamp>().ok());
            at.map_or(Value::Null, |at| {
                printers::human_duration(now.duration_since(at).as_secs()).into()
            })
        }
        Some("integer" | "number" | "boolean") => (*first).clone(),
        _ => {
            let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            found.iter().map(|v| text(v)).collect::<Vec<_>>().join(",").into()
        }
    }
}
