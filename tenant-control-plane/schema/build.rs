//! Takes the descriptions of types and fields, for `kubectl explain`, out of the source of the
//! `k8s-openapi` crate. They are not ours to commit, and only needed compressed in the binary.
//!
//! Without that source (a vendored build that dropped it) the build succeeds and `explain` shows no
//! descriptions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The feature of `k8s-openapi` whose texts are used: the newest minor that we have a table for.
const SOURCE: &str = "src/v1_35";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut packages = BTreeMap::new();
    match source_directory() {
        Some(dir) => collect(&dir.join(SOURCE), &mut packages),
        None => {
            println!("cargo::warning=k8s-openapi's source was not found: explain has no texts");
            // A file that is never there: the next build looks again.
            println!("cargo::rerun-if-changed=source-of-k8s-openapi");
        }
    }
    let mut index = String::from("&[\n");
    for (package, text) in &packages {
        let file = out.join(format!("{package}.docs"));
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text.as_bytes()).expect("writing to memory");
        fs::write(&file, encoder.finish().expect("writing to memory"))
            .expect("OUT_DIR is writable");
        writeln!(index, "({package:?}, include_bytes!({file:?})),").expect("writing to memory");
    }
    index.push(']');
    fs::write(out.join("docs.rs"), index).expect("OUT_DIR is writable");
}

/// Where cargo unpacked `k8s-openapi`, which other crates of the workspace compile; asked of cargo
/// itself: nothing is downloaded.
fn source_directory() -> Option<PathBuf> {
    let cargo = env::var_os("CARGO")?;
    let manifest = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let out = Command::new(cargo)
        .args(["metadata", "--offline", "--format-version", "1"])
        // Of other platforms' crates nothing was downloaded.
        .arg("--filter-platform")
        .arg(env::var_os("TARGET")?)
        .arg("--manifest-path")
        .arg(manifest)
        .output()
        .ok()?;
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
    let package = metadata["packages"].as_array()?.iter().find(|p| p["name"] == "k8s-openapi")?;
    Some(Path::new(package["manifest_path"].as_str()?).parent()?.to_owned())
}

/// Adds the texts of every type below a directory, grouped by API package.
fn collect(dir: &Path, packages: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, packages);
        } else if let Ok(text) = fs::read_to_string(&path) {
            read_type(&text, packages);
        }
    }
}

/// One file holds one type: its name in the first line, its doc comment, then fields with theirs.
fn read_type(text: &str, packages: &mut BTreeMap<String, String>) {
    let Some(name) =
        text.lines().next().and_then(|l| l.strip_prefix("// Generated from definition "))
    else {
        return;
    };
    let Some((package, short)) = name.rsplit_once('.') else { return };
    let json_names = json_names(text);
    let out = packages.entry(package.to_owned()).or_default();
    let mut doc = String::new();
    let mut inside = false;
    for line in text.lines().skip(1) {
        let trimmed = line.trim_start();
        if let Some(more) = trimmed.strip_prefix("///") {
            if !doc.is_empty() {
                doc.push('\u{1}');
            }
            doc.push_str(&plain(more.strip_prefix(' ').unwrap_or(more)));
        } else if line.starts_with("pub struct") || line.starts_with("pub enum") {
            writeln!(out, "@{short}\t{}", std::mem::take(&mut doc)).expect("writing to memory");
            inside = line.ends_with('{');
            if !inside {
                return;
            }
        } else if line.starts_with('}') && inside {
            return;
        } else if let (true, Some(field)) = (inside, trimmed.strip_prefix("pub ")) {
            let rust = field.split(':').next().unwrap_or_default();
            if let Some(json) = json_names.get(rust) {
                writeln!(out, "{json}\t{doc}").expect("writing to memory");
            }
            doc.clear();
        }
    }
}

/// Rust field name to JSON field name, from the lines `"json" => Field::Key_rust,`.
fn json_names(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| {
            let (json, rust) = line.trim().split_once(" => Field::Key_")?;
            Some((rust.trim_end_matches(','), json.trim_matches('"')))
        })
        .collect()
}

/// Undoes the escapes that rustdoc needs.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('<' | '>' | '[' | ']' | '*' | '_' | '`')) => {}
            ('\t', _) => out.push(' '),
            (c, _) => out.push(c),
        }
    }
    out
}
