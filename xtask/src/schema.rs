//! `cargo xtask schema`: makes `tenant-control-plane/schema/data/<minor>.txt`.
//!
//! Two packaged sources, fetched with their ecosystems' ordinary clients by package name:
//!
//! - PyPI `kubernetes-validate`: which types and fields each minor has, what is required, list
//!   kinds and keys, patch strategies, group-version-kinds;
//! - the Go modules `k8s.io/api`, `apimachinery`, `apiextensions-apiserver`, `kube-aggregator`: the
//!   struct tags (protobuf numbers, `omitempty`, pointers) and the `+default` and `+enum` markers.
//!
//! Only facts are taken (names, numbers, keys, defaults): no descriptions. The format is documented
//! in the schema crate's parser. To add a minor, add a line to [`MINORS`] and run the command; it
//! needs `go`, `pip` and `python3`, which only this command does.

mod go;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use go::{Package, StructField};

/// Kubernetes minor, and the version of the Go modules that describe it.
const MINORS: &[(&str, &str)] = &[("1.35", "v0.35.0")];

/// Carries definitions for every minor from 1.25 on.
const DEFINITIONS: &str = "kubernetes-validate==1.37.0";

/// Swagger package prefix, Go module, and the directory prefix inside the module.
const MODULES: &[(&str, &str, &str)] = &[
    ("io.k8s.api.", "k8s.io/api", ""),
    ("io.k8s.apimachinery.", "k8s.io/apimachinery", ""),
    ("io.k8s.apiextensions-apiserver.", "k8s.io/apiextensions-apiserver", ""),
    ("io.k8s.kube-aggregator.", "k8s.io/kube-aggregator", ""),
];

/// Types that are values in JSON, by the end of their swagger name.
const SCALARS: &[(&str, &str)] = &[
    (".api.resource.Quantity", "quantity"),
    (".intstr.IntOrString", "intstr"),
    (".meta.v1.Time", "time"),
    (".meta.v1.MicroTime", "microtime"),
    (".meta.v1.Duration", "duration"),
    (".meta.v1.FieldsV1", "raw"),
    (".meta.v1.Patch", "raw"),
    (".runtime.RawExtension", "raw"),
    (".apiextensions.v1.JSON", "raw"),
    (".apiextensions.v1.JSONSchemaPropsOrArray", "schema-or-array"),
    (".apiextensions.v1.JSONSchemaPropsOrBool", "schema-or-bool"),
    (".apiextensions.v1.JSONSchemaPropsOrStringArray", "schema-or-strings"),
];

/// Regenerates the table of every minor.
pub fn run() -> Result<()> {
    let work = std::env::temp_dir().join(format!("marina-schema-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let done = generate_all(&work);
    std::fs::remove_dir_all(&work)?;
    done
}

fn generate_all(work: &Path) -> Result<()> {
    let definitions = fetch_definitions(work)?;
    for (minor, module_version) in MINORS {
        let file = definitions.join(format!(
            "kubernetes_validate/kubernetes-json-schema/v{minor}.0-local/_definitions.json"
        ));
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let document: Value = serde_json::from_str(&text)?;
        let modules = fetch_modules(work, module_version)?;
        let table =
            Generator { modules, packages: BTreeMap::new() }.table(minor, &document["$defs"])?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in the workspace")?;
        let target = root.join(format!("tenant-control-plane/schema/data/{minor}.txt"));
        std::fs::write(&target, table)?;
        println!("wrote {}", target.display());
    }
    Ok(())
}

fn fetch_definitions(work: &Path) -> Result<PathBuf> {
    let target = work.join("definitions");
    run_in(work, "pip", &["download", "--quiet", "--no-deps", "--dest", ".", DEFINITIONS])?;
    let wheel = std::fs::read_dir(work)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .context("pip left no wheel")?;
    run_in(work, "python3", &["-m", "zipfile", "-e", &wheel.to_string_lossy(), "definitions"])?;
    Ok(target)
}

/// Downloads the Go modules and returns the directory of each, keyed by swagger prefix.
fn fetch_modules(work: &Path, version: &str) -> Result<BTreeMap<&'static str, PathBuf>> {
    std::fs::write(work.join("go.mod"), "module schema\n\ngo 1.21\n")?;
    let mut found = BTreeMap::new();
    for (prefix, module, below) in MODULES {
        let out =
            run_in(work, "go", &["mod", "download", "-json", &format!("{module}@{version}")])?;
        let answer: Value = serde_json::from_str(&out)?;
        let dir = answer["Dir"].as_str().context("go names the module's directory")?;
        found.insert(*prefix, Path::new(dir).join(below));
    }
    Ok(found)
}

fn run_in(dir: &Path, program: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .with_context(|| format!("start {program}: is it installed?"))?;
    ensure!(
        out.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(String::from_utf8(out.stdout)?)
}

struct Generator {
    modules: BTreeMap<&'static str, PathBuf>,
    /// Parsed Go packages by swagger package name (`io.k8s.api.core.v1`).
    packages: BTreeMap<String, Package>,
}

impl Generator {
    fn table(&mut self, minor: &str, definitions: &Value) -> Result<String> {
        let definitions = definitions.as_object().context("definitions is an object")?;
        let mut out = format!("# Kubernetes {minor}. Made by `cargo xtask schema`; do not edit.\n");
        let mut kinds = Vec::new();
        // Other groups use their allowed values.
        for shared in ["io.k8s.api.core.v1", "io.k8s.apimachinery.pkg.apis.meta.v1"] {
            self.package(shared)?;
        }
        for (name, definition) in definitions {
            if scalar(name).is_some() {
                continue;
            }
            let atomic = definition["x-kubernetes-map-type"] == "atomic";
            writeln!(out, "@type {name}{}", if atomic { " atomic" } else { "" })?;
            self.fields(name, definition, &mut out)?;
            for gvk in
                definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten()
            {
                let part = |key: &str| gvk[key].as_str().unwrap_or_default().to_owned();
                let group = if part("group").is_empty() { "-".to_owned() } else { part("group") };
                kinds.push(format!("@kind {group} {} {} {name}", part("version"), part("kind")));
            }
        }
        kinds.sort();
        out.push_str(&kinds.join("\n"));
        out.push('\n');
        Ok(out)
    }

    fn fields(&mut self, ty: &str, definition: &Value, out: &mut String) -> Result<()> {
        let required: Vec<&str> = definition["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, property) in definition["properties"].as_object().into_iter().flatten() {
            let found = self.go_field(ty, name)?;
            let mut text = field_type(property);
            let mut flags = Vec::new();
            if required.contains(&name.as_str()) {
                flags.push("!".to_owned());
            }
            let mut tags = "-".to_owned();
            let mut default = None;
            if let Some((path, field)) = found {
                if !path.is_empty() {
                    tags = path.iter().map(u32::to_string).collect::<Vec<_>>().join("/");
                }
                if field.go_type.trim_start_matches('*').ends_with("metav1.Duration") {
                    text = "duration".to_owned();
                }
                // Go never omits a struct that is not behind a pointer, `omitempty` or not.
                let is_value = field.go_type.starts_with(|c: char| c.is_ascii_alphabetic());
                let is_struct = is_value
                    && (text.contains('.')
                        || ["quantity", "intstr", "time"].contains(&text.as_str()))
                    && !text.starts_with(['[', '{']);
                let omitted = if is_struct { field.omit_zero } else { field.omit_empty };
                flags.extend((!omitted).then(|| "z".to_owned()));
                flags.extend(field.go_type.starts_with('*').then(|| "?".to_owned()));
                if field.go_type.ends_with("ExtraValue") || field.go_type == "Verbs" {
                    flags.push("w".to_owned());
                }
                let values = self.enumeration(ty, &field);
                flags.extend(
                    (!values.is_empty())
                        .then(|| format!("enum={}", values.join("|").replace(' ', "~"))),
                );
                default = self.default(ty, &field);
            }
            list_flags(property, &mut flags);
            if let Some(default) = default {
                flags.push(format!("default={default}"));
            }
            writeln!(
                out,
                "{}",
                [name.as_str(), &tags, &text, &flags.join(" ")].join(" ").trim_end()
            )?;
        }
        Ok(())
    }

    fn package(&mut self, name: &str) -> Result<Option<&Package>> {
        if !self.packages.contains_key(name) {
            let Some((prefix, dir)) = self.modules.iter().find(|(p, _)| name.starts_with(**p))
            else {
                return Ok(None);
            };
            let dir = dir.join(name[prefix.len()..].replace('.', "/"));
            self.packages.insert(name.to_owned(), Package::read(&dir)?);
        }
        Ok(self.packages.get(name))
    }

    /// Finds a JSON field in a Go struct, through inlined structs. The path holds protobuf tags.
    fn go_field(&mut self, ty: &str, json: &str) -> Result<Option<(Vec<u32>, StructField)>> {
        let Some((package, short)) = ty.rsplit_once('.') else { return Ok(None) };
        let Some(source) = self.package(package)? else { return Ok(None) };
        let Some(fields) = source.structs.get(short).cloned() else {
            // Beta packages alias some types of the stable one.
            let stable = package.rsplit_once('.').map(|(group, _)| format!("{group}.v1"));
            return match stable {
                Some(stable) if stable != package => {
                    self.go_field(&format!("{stable}.{short}"), json)
                }
                _ => Ok(None),
            };
        };
        if let Some(field) = fields.iter().find(|f| f.json == json) {
            return Ok(Some((field.tag.into_iter().collect(), field.clone())));
        }
        for inline in fields.iter().filter(|f| f.inline) {
            let inner = match inline.go_type.rsplit_once('.') {
                None => format!("{package}.{}", inline.go_type.trim_start_matches('*')),
                Some((_, name)) if name == "TypeMeta" => {
                    format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}")
                }
                Some((_, name)) => format!("io.k8s.api.core.v1.{name}"),
            };
            if let Some((mut path, field)) = self.go_field(&inner, json)? {
                // An embedded struct without a tag (TypeMeta) is not in protobuf at all.
                match inline.tag {
                    Some(tag) => path.insert(0, tag),
                    None => path.clear(),
                }
                return Ok(Some((path, field)));
            }
        }
        Ok(None)
    }

    fn enumeration(&self, ty: &str, field: &StructField) -> Vec<String> {
        let name = field.go_type.trim_start_matches(['*', '[', ']']);
        let package = match name.split_once('.') {
            Some(("v1" | "corev1" | "core", _)) => "io.k8s.api.core.v1",
            Some(("metav1", _)) => "io.k8s.apimachinery.pkg.apis.meta.v1",
            Some(_) => return Vec::new(),
            None => ty.rsplit_once('.').map_or("", |(package, _)| package),
        };
        let short = name.rsplit('.').next().unwrap_or(name);
        self.packages.get(package).and_then(|p| p.enums.get(short)).cloned().unwrap_or_default()
    }

    fn default(&self, ty: &str, field: &StructField) -> Option<String> {
        let text = field.default.clone()?;
        let Some(constant) = text.strip_prefix("ref(").and_then(|t| t.strip_suffix(')')) else {
            return serde_json::from_str::<Value>(&text).is_ok().then_some(text);
        };
        let (package, _) = ty.rsplit_once('.')?;
        let value = self.packages.get(package)?.constants.get(constant)?;
        Some(Value::from(value.as_str()).to_string())
    }
}

fn scalar(name: &str) -> Option<&'static str> {
    SCALARS.iter().find(|(end, _)| name.ends_with(end)).map(|(_, text)| *text)
}

/// The table's notation for a property's type.
fn field_type(property: &Value) -> String {
    if let Some(reference) = property["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        return match scalar(name) {
            Some(text) => text.to_owned(),
            None => name.trim_start_matches("io.k8s.").to_owned(),
        };
    }
    let first = match &property["type"] {
        Value::Array(types) => types.first().and_then(Value::as_str),
        other => other.as_str(),
    };
    match (first, property["format"].as_str()) {
        (Some("array"), _) => format!("[]{}", field_type(&property["items"])),
        (Some("object"), _) => match property.get("additionalProperties") {
            Some(values) => format!("{{}}{}", field_type(values)),
            None => "raw".to_owned(),
        },
        (Some("string"), Some("byte")) => "bytes".to_owned(),
        (Some("string"), _) => "string".to_owned(),
        (Some("integer"), Some(width)) => width.to_owned(),
        (Some("integer"), None) => "int64".to_owned(),
        (Some("boolean"), _) => "bool".to_owned(),
        (Some("number"), _) => "double".to_owned(),
        _ => "raw".to_owned(),
    }
}

fn list_flags(property: &Value, flags: &mut Vec<String>) {
    let keys = property["x-kubernetes-list-map-keys"].as_array();
    match (property["x-kubernetes-list-type"].as_str(), keys) {
        (Some("map"), Some(keys)) => {
            let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
            flags.push(format!("keys={}", keys.join(",")));
        }
        (Some(kind @ ("atomic" | "set")), _) => flags.push(format!("list={kind}")),
        _ => {}
    }
    if property["x-kubernetes-map-type"] == "atomic" {
        flags.push("a".to_owned());
    }
    if let Some(strategy) = property["x-kubernetes-patch-strategy"].as_str() {
        flags.push(format!("patch={strategy}"));
    }
    if let Some(key) = property["x-kubernetes-patch-merge-key"].as_str() {
        flags.push(format!("mk={key}"));
    }
}
