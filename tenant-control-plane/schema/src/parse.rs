//! Reads the table's text form.
//!
//! ```text
//! @type io.k8s.api.core.v1.Container [atomic]
//! <json name> <tag[/tag…] or -> <type> [!] [z] [?] [w] [a] [list=…] [keys=a,b] [patch=…] [mk=…] [default=json] [enum=a|b]
//! @kind <group or -> <version> <kind> <type name>
//! ```
//!
//! Types are `string`, `[]string`, `{}string`, or the name of another type without the prefix
//! `io.k8s.`. `!` = required, `z` = written when zero, `?` = absent differs from zero, `a` = atomic
//! map, `w` = list wrapped in a protobuf message. `~` stands for a space in allowed values.

use std::collections::HashMap;

use serde_json::Value;

use crate::table::{Field, FieldType, Kind, ListKind, Name, Patch, Scalar, Schema, Type, TypeId};

/// What is wrong with a table, with its line number.
#[derive(Debug, thiserror::Error)]
#[error("schema table, line {line}: {what}")]
pub(crate) struct Malformed {
    line: usize,
    what: String,
}

/// Parses a whole table.
pub(crate) fn parse(version: &'static str, text: &'static str) -> Result<Schema, Malformed> {
    let mut schema = Schema { version: Name::Borrowed(version), ..Schema::default() };
    let type_lines = || text.lines().filter_map(|line| line.strip_prefix("@type "));
    for (index, line) in type_lines().enumerate() {
        let name = line.split(' ').next().unwrap_or_default();
        schema.by_name.insert(Name::Borrowed(name), TypeId(index as u32));
    }
    for (number, line) in text.lines().enumerate() {
        let malformed = |what: String| Malformed { line: number + 1, what };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("@type ") {
            let (name, flags) = rest.split_once(' ').unwrap_or((rest, ""));
            let name = Name::Borrowed(name);
            schema.types.push(Type {
                name,
                fields: Vec::new(),
                atomic: flags == "atomic",
                open: false,
            });
        } else if let Some(rest) = line.strip_prefix("@kind ") {
            schema.kinds.push(kind(rest, &schema.by_name).map_err(malformed)?);
        } else {
            let field = field(line, &schema.by_name).map_err(malformed)?;
            let ty = schema
                .types
                .last_mut()
                .ok_or_else(|| malformed("a field before its type".into()))?;
            ty.fields.push(field);
        }
    }
    for ty in &mut schema.types {
        ty.fields.sort_by(|a, b| a.name.cmp(&b.name));
        ty.fields.shrink_to_fit();
    }
    let key = |k: &Kind| (k.group.clone(), k.version.clone(), k.kind.clone());
    schema.kinds.sort_by_key(key);
    Ok(schema)
}

fn kind(rest: &'static str, types: &HashMap<Name, TypeId>) -> Result<Kind, String> {
    let parts: Vec<&'static str> = rest.split(' ').collect();
    let [group, version, kind, name] = parts[..] else {
        return Err("a kind needs group, version, kind and type".into());
    };
    Ok(Kind {
        group: Name::Borrowed(if group == "-" { "" } else { group }),
        version: Name::Borrowed(version),
        kind: Name::Borrowed(kind),
        ty: *types.get(name).ok_or_else(|| format!("no type {name}"))?,
    })
}

fn field(line: &'static str, types: &HashMap<Name, TypeId>) -> Result<Field, String> {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().ok_or("a field needs name, tag and type");
    let (name, tags, ty) = (word()?, word()?, word()?);
    let tags = match tags {
        "-" => Vec::new(),
        some => some
            .split('/')
            .map(|t| t.parse().map_err(|_| format!("bad tag {t}")))
            .collect::<Result<_, _>>()?,
    };
    let mut field = Field {
        name: Name::Borrowed(name),
        tags: tags.into(),
        ty: field_type(ty, types)?,
        required: false,
        always_written: false,
        nullable: false,
        wrapped: false,
        list: None,
        atomic_map: false,
        patch: Patch::default(),
        default: None,
        values: Box::default(),
    };
    // A default may hold spaces, so it comes last.
    let flags = words.next().unwrap_or_default();
    let (flags, default) = match flags.split_once("default=") {
        Some((before, json)) => (before, Some(json)),
        None => (flags, None),
    };
    if let Some(json) = default {
        let value: Value =
            serde_json::from_str(json).map_err(|e| format!("default of {name}: {e}"))?;
        field.default = Some(Box::new(value));
    }
    for flag in flags.split(' ').filter(|f| !f.is_empty()) {
        apply_flag(&mut field, flag)?;
    }
    Ok(field)
}

fn apply_flag(field: &mut Field, flag: &'static str) -> Result<(), String> {
    let names =
        |text: &'static str, by: char| text.split(by).map(Name::Borrowed).collect::<Box<[_]>>();
    match flag.split_once('=').unwrap_or((flag, "")) {
        ("!", _) => field.required = true,
        ("z", _) => field.always_written = true,
        ("?", _) => field.nullable = true,
        ("w", _) => field.wrapped = true,
        ("a", _) => field.atomic_map = true,
        ("list", "atomic") => field.list = Some(ListKind::Atomic),
        ("list", "set") => field.list = Some(ListKind::Set),
        ("keys", keys) => field.list = Some(ListKind::Map(names(keys, ','))),
        ("patch", how) => {
            field.patch.merge = how.contains("merge");
            field.patch.retain_keys = how.contains("retainKeys");
        }
        ("mk", key) => field.patch.merge_key = Some(Name::Borrowed(key)),
        ("enum", values) => {
            let with_spaces = |v: &'static str| match v.contains('~') {
                true => Name::Owned(v.replace('~', " ")),
                false => Name::Borrowed(v),
            };
            field.values = values.split('|').map(with_spaces).collect();
        }
        _ => return Err(format!("unknown flag {flag} of {}", field.name)),
    }
    Ok(())
}

fn field_type(text: &str, types: &HashMap<Name, TypeId>) -> Result<FieldType, String> {
    if let Some(inner) = text.strip_prefix("[]") {
        return Ok(FieldType::List(Box::new(field_type(inner, types)?)));
    }
    if let Some(inner) = text.strip_prefix("{}") {
        return Ok(FieldType::Map(Box::new(field_type(inner, types)?)));
    }
    let scalar = match text {
        "string" => Scalar::String,
        "bool" => Scalar::Bool,
        "int32" => Scalar::Int32,
        "int64" => Scalar::Int64,
        "double" => Scalar::Double,
        "bytes" => Scalar::Bytes,
        "quantity" => Scalar::Quantity,
        "intstr" => Scalar::IntOrString,
        "time" => Scalar::Time,
        "microtime" => Scalar::MicroTime,
        "duration" => Scalar::Duration,
        "raw" => Scalar::Raw,
        "schema-or-array" => Scalar::SchemaOrArray,
        "schema-or-bool" => Scalar::SchemaOrBool,
        "schema-or-strings" => Scalar::SchemaOrStrings,
        name => {
            let full = format!("io.k8s.{name}");
            let id = types.get(full.as_str()).ok_or_else(|| format!("no type {full}"))?;
            return Ok(FieldType::Object(*id));
        }
    };
    Ok(FieldType::Scalar(scalar))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_line_says_everything_about_a_field() {
        let text = "@type io.k8s.A\nports 6 []test.B ! z keys=port,protocol patch=merge mk=port\nmode 1/2 string ? enum=x|y default=\"a b\"\n@type io.k8s.test.B\nport 1 int32 !\n@kind - v1 A io.k8s.A\n";
        let schema = parse("test", text).expect("parses");
        let ty = schema.type_of("", "v1", "A").expect("kind");
        let ports = ty.field("ports").expect("ports");
        assert!(ports.required && ports.always_written && ports.patch.merge);
        assert_eq!(ports.list, Some(ListKind::Map(Box::new(["port".into(), "protocol".into()]))));
        let mode = ty.field("mode").expect("mode");
        assert_eq!((&*mode.tags, mode.values.len()), (&[1, 2][..], 2));
        assert_eq!(mode.default.as_deref(), Some(&Value::from("a b")));
        assert!(schema.field_at(ty, &["ports", "port"]).is_some());
    }

    #[test]
    fn every_committed_table_parses_and_serves_the_core_kinds() {
        for version in Schema::versions() {
            let schema = Schema::get(version).expect("listed");
            for (group, api, kind) in
                [("", "v1", "Pod"), ("apps", "v1", "Deployment"), ("batch", "v1", "CronJob")]
            {
                assert!(schema.type_of(group, api, kind).is_some(), "{version} {kind}");
            }
        }
    }
}
