//! Reads struct tags, constants and markers out of Go source, line by line: enough for the API
//! packages, whose layout is fixed by their own generators.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

/// One field of a Go struct.
#[derive(Clone, Debug, Default)]
pub struct StructField {
    pub json: String,
    pub go_type: String,
    pub tag: Option<u32>,
    pub omit_empty: bool,
    pub omit_zero: bool,
    pub inline: bool,
    /// The `+default=` marker's text.
    pub default: Option<String>,
}

/// What one Go package declares.
#[derive(Debug, Default)]
pub struct Package {
    pub structs: BTreeMap<String, Vec<StructField>>,
    /// Values of each type marked `+enum`, sorted.
    pub enums: BTreeMap<String, Vec<String>>,
    pub constants: BTreeMap<String, String>,
}

impl Package {
    /// Reads all hand-written files of a package directory.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut package = Self::default();
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .with_context(|| format!("read {}", dir.display()))?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "go"))
            .collect();
        files.sort();
        let texts = files.iter().map(std::fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
        for text in &texts {
            package.read_types(text);
        }
        for text in &texts {
            package.read_constants(text);
        }
        for values in package.enums.values_mut() {
            values.sort();
            values.dedup();
        }
        Ok(package)
    }

    fn read_types(&mut self, text: &str) {
        let mut open: Option<(String, Vec<StructField>)> = None;
        let mut markers: Vec<&str> = Vec::new();
        for line in text.lines() {
            let trimmed = line.trim();
            if let Some(comment) = trimmed.strip_prefix("//") {
                markers.extend(comment.trim().strip_prefix('+'));
                continue;
            }
            if let Some((name, fields)) = &mut open {
                if line.starts_with('}') {
                    self.structs.insert(std::mem::take(name), std::mem::take(fields));
                    open = None;
                } else if let Some(mut field) = struct_field(trimmed) {
                    let default = markers.iter().find_map(|m| m.strip_prefix("default="));
                    field.default = default.map(str::to_owned);
                    fields.push(field);
                }
            } else if let Some(rest) = line.strip_prefix("type ") {
                let mut words = rest.split_whitespace();
                let name = words.next().unwrap_or_default().to_owned();
                let what = words.next().unwrap_or_default();
                if what == "struct" && !rest.ends_with('}') {
                    open = Some((name, Vec::new()));
                } else if what == "string" && markers.contains(&"enum") {
                    self.enums.insert(name, Vec::new());
                }
            }
            // A blank line between a comment and what it describes does not part them: upstream's
            // markers are read the same way.
            if !trimmed.is_empty() {
                markers.clear();
            }
        }
    }

    /// `Name Type = "value"`, inside or outside of a block.
    fn read_constants(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.trim().trim_start_matches("const ");
            let Some((left, right)) = line.split_once(" = \"") else { continue };
            let Some((value, _)) = right.split_once('"') else { continue };
            let words: Vec<&str> = left.split_whitespace().collect();
            let [name, ty] = words[..] else { continue };
            self.constants.insert(name.to_owned(), value.to_owned());
            if let Some(values) = self.enums.get_mut(ty) {
                values.push(value.to_owned());
            }
        }
    }
}

/// A field with a tag: `Name Type` or an embedded `Type`, then `` `json:"…" protobuf:"…"` ``.
fn struct_field(line: &str) -> Option<StructField> {
    let (declaration, tags) = line.split_once('`')?;
    let json = quoted(tags, "json:\"")?;
    let mut parts = json.split(',');
    let name = parts.next().unwrap_or_default();
    if name == "-" {
        return None;
    }
    let options: Vec<&str> = parts.collect();
    let tag = quoted(tags, "protobuf:\"").and_then(|p| p.split(',').nth(1)?.parse().ok());
    Some(StructField {
        json: name.to_owned(),
        go_type: declaration.split_whitespace().last()?.to_owned(),
        tag,
        omit_empty: options.iter().any(|o| *o == "omitempty" || *o == "omitzero"),
        omit_zero: options.contains(&"omitzero"),
        inline: options.contains(&"inline") || name.is_empty(),
        default: None,
    })
}

fn quoted<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    rest.split('"').next()
}
