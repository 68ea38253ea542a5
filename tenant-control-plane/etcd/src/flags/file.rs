//! The configuration file: the flags in YAML, with those about TLS in two sections.

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

/// Sections, what their flags begin with, and names that differ.
const SECTIONS: &[(&str, &str)] =
    &[("client-transport-security", ""), ("peer-transport-security", "peer-")];
const RENAMED: &[(&str, &str)] = &[
    ("allowed-cn", "cert-allowed-cn"),
    ("allowed-hostname", "cert-allowed-hostname"),
    ("client-allowed-hostname", "client-cert-allowed-hostname"),
];

/// The command line that says the same as a file.
///
/// # Errors
/// When the file cannot be read or is no mapping of names to plain values.
pub fn arguments(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let said: Option<Map<String, Value>> =
        serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())?;
    let mut arguments = Vec::new();
    for (name, value) in said.unwrap_or_default() {
        let section = SECTIONS.iter().find(|(section, _)| *section == name);
        match (section, value) {
            (Some((_, prefix)), Value::Object(inner)) => {
                for (name, value) in inner {
                    let renamed = RENAMED.iter().find(|(inside, _)| *inside == name);
                    let name = renamed.map_or(&name[..], |(_, flag)| flag);
                    let flag = match name.strip_prefix("client-cert-allowed") {
                        Some(_) => name.to_owned(),
                        None => format!("{prefix}{name}"),
                    };
                    arguments.extend(argument(&flag, &value)?);
                }
            }
            (Some(_), Value::Null) => {}
            (Some(_), _) => bail!("{}: {name} is a section", path.display()),
            (None, value) => arguments.extend(argument(&name, &value)?),
        }
    }
    Ok(arguments)
}

fn argument(name: &str, value: &Value) -> anyhow::Result<Option<String>> {
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    let text = match value {
        Value::Null => return Ok(None),
        Value::Array(items) => {
            items.iter().map(plain).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        value => plain(value),
    };
    let text = text.with_context(|| format!("{name}: must be a plain value or a list of them"))?;
    Ok(Some(format!("--{name}={text}")))
}
