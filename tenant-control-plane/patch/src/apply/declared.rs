//! Fields that a configuration has and its type has not: server-side apply refuses them, since
//! nobody could own them.

use schema::{FieldType, ListKind, Schema, Type};
use serde_json::Value;

use super::set::FieldSet;
use super::typed::{Shape, Typed};

/// The paths of all undeclared fields: `.spec.ports[port=80].nmae`.
pub fn undeclared(schema: &Schema, ty: &Type, config: &Value) -> Vec<String> {
    let mut set = FieldSet::default();
    Undeclared { typed: Typed { schema } }.in_type(ty, config, &mut set);
    set.paths()
}

/// What is said about undeclared fields, in the words of upstream's structured merge.
pub fn undeclared_text(paths: &[String]) -> String {
    let text = |path: &String| format!("{path}: field not declared in schema");
    match paths {
        [one] => text(one),
        many => {
            let lines = many.iter().map(|path| format!("\n  {}", text(path)));
            format!("errors:{}", lines.collect::<String>())
        }
    }
}

struct Undeclared<'s> {
    typed: Typed<'s>,
}

impl<'s> Undeclared<'s> {
    fn in_type(&self, ty: &'s Type, value: &Value, set: &mut FieldSet) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let place = format!("f:{name}");
            match ty.field(name) {
                Some(field) => self.below(&field.ty, field.list.as_ref(), value, set.at(place)),
                None if ty.open => {}
                None => set.at(place).here = true,
            }
        }
    }

    fn below(
        &self,
        ty: &'s FieldType,
        list: Option<&'s ListKind>,
        value: &Value,
        set: &mut FieldSet,
    ) {
        match (ty, value) {
            (FieldType::Object(id), value) => {
                self.in_type(self.typed.schema.resolve(*id), value, set);
            }
            (FieldType::Map(inner), Value::Object(entries)) => {
                for (key, value) in entries {
                    self.below(inner, None, value, set.at(format!("f:{key}")));
                }
            }
            (FieldType::List(inner), Value::Array(items)) if inner.object().is_some() => {
                for (index, item) in items.iter().enumerate() {
                    let identity = match list {
                        Some(ListKind::Map(keys)) => {
                            self.typed.identity(Shape::Keyed(keys, inner), item).ok()
                        }
                        _ => None,
                    };
                    let place = identity.unwrap_or_else(|| format!("i:{index}"));
                    self.below(inner, None, item, set.at(place));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn undeclared_fields_are_named_by_their_path() {
        let schema = Schema::get("1.35").expect("table");
        let ty = schema.type_of("apps", "v1", "Deployment").expect("kind");
        let config = json!({"metadata": {"labels": {"any": "x"}, "colour": 1}, "spec": {"template": {"spec": {
            "containers": [{"name": "a", "imagge": "x"}], "tolerations": [{"kee": 1}]}}}});
        let paths = undeclared(schema, ty, &config);
        assert_eq!(
            paths,
            [
                ".metadata.colour",
                ".spec.template.spec.containers[name=\"a\"].imagge",
                ".spec.template.spec.tolerations[0].kee"
            ]
        );
        assert_eq!(undeclared_text(&paths[..1]), ".metadata.colour: field not declared in schema");
        assert!(undeclared_text(&paths).starts_with("errors:\n  .metadata.colour: field"));
    }
}
