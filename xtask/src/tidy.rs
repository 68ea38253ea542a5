//! The rules of the house, measured: lengths, layers, docs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::paths::Paths;

/// Lines of a source file that is not a test or generated.
const FILE_LINES: usize = 800;
/// Lines of a function, signature included.
const FUNCTION_LINES: usize = 70;

/// Crates by layer, lowest first. A crate depends only on crates of lower layers, so that wire
/// types never learn of storage and no component links another.
///
/// To add a crate, put its name into the layer just above the highest one that it depends on.
const LAYERS: &[&[&str]] = &[
    // Wire types: no input or output, no async.
    &["base2histogram", "machinery", "etcd-api", "cri", "provisioner-api", "driver-api"],
    // The table of kinds.
    &["schema"],
    // Pure logic.
    &[
        "patch",
        "printers",
        "admission",
        "auth",
        "expressions",
        "provisioner-plan",
        "provisioner-pki",
    ],
    // Clients and storage.
    &["component", "driver-local", "marina-db", "provisioner-gateway", "streaming"],
    // Components and servers. None of them depends on another.
    &[
        "cluster-dns",
        "demo",
        "driver-qemu",
        "driver-sandbox",
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-proxy",
        "kube-scheduler",
        "kubelet",
        "marina",
        "node-agent",
        "node-image",
        "node-init",
        "pause",
        "portal",
        "provisioner-agent",
        "provisioner-controller",
    ],
    // What puts servers into one executable, and what tests or drives all of them.
    &["provisioner", "e2e", "lab", "simulation", "xtask"],
    // What uses the lab.
    &["bench"],
];

/// Runs every check and lists all findings before it fails.
pub fn run(paths: &Paths) -> anyhow::Result<()> {
    let exceptions = exceptions(&paths.root.join("xtask/tidy-exceptions.txt"))?;
    let mut findings = layers(paths)?;
    let mut used = Vec::new();
    for file in sources(paths)? {
        let text = fs::read_to_string(paths.root.join(&file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        for (what, lines) in lengths(&file, &text) {
            match exceptions.get(&what) {
                Some(allowed) if lines <= *allowed => used.push(what),
                Some(allowed) => {
                    findings.push(format!("{what}: {lines} lines, {allowed} excepted"))
                }
                None => findings.push(format!("{what}: {lines} lines")),
            }
        }
        let is_root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
        if is_root && !text.starts_with("//!") {
            findings.push(format!("{}: opens without module docs (//!)", file.display()));
        }
    }
    for what in exceptions.keys().filter(|what| !used.contains(what)) {
        findings.push(format!("tidy-exceptions.txt: {what} is short now, remove its line"));
    }
    if findings.is_empty() {
        println!("tidy: nothing to say");
        return Ok(());
    }
    bail!("tidy found {}:\n  {}", findings.len(), findings.join("\n  "))
}

/// Tracked Rust files that are neither tests nor generated.
fn sources(paths: &Paths) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "*.rs"])
        .current_dir(&paths.root)
        .output()
        .context("git cannot be started")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let skipped = |path: &Path| {
        path.components().any(|part| {
            let part = part.as_os_str();
            part == "tests" || part == "generated" || part == "tests.rs" || part == "benches"
        })
    };
    Ok(String::from_utf8(output.stdout)
        .context("a file name is not UTF-8")?
        .lines()
        .map(PathBuf::from)
        .filter(|path| !skipped(path) && paths.root.join(path).exists())
        .collect())
}

/// `path lines` or `path::function lines` per line; the list may only shrink.
fn exceptions(file: &Path) -> anyhow::Result<BTreeMap<String, usize>> {
    let Ok(text) = fs::read_to_string(file) else { return Ok(BTreeMap::new()) };
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| {
            let (what, lines) = line.rsplit_once(' ').context("a line has no number")?;
            Ok((what.to_owned(), lines.parse().context("not a number of lines")?))
        })
        .collect()
}

/// What is too long in one file.
fn lengths(file: &Path, text: &str) -> Vec<(String, usize)> {
    let mut long = Vec::new();
    let lines = text.lines().take_while(|line| !line.starts_with("mod tests {")).count();
    if lines > FILE_LINES {
        long.push((file.display().to_string(), lines));
    }
    let Ok(parsed) = syn::parse_file(text) else { return long };
    let mut functions = Functions { file, long: &mut long };
    functions.visit_file(&parsed);
    long
}

struct Functions<'a> {
    file: &'a Path,
    long: &'a mut Vec<(String, usize)>,
}

impl Functions<'_> {
    fn measure(&mut self, name: &syn::Ident, span: proc_macro2::Span) {
        let lines = span.end().line + 1 - span.start().line;
        if lines > FUNCTION_LINES {
            self.long.push((format!("{}::{name}", self.file.display()), lines));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(
            &item.sig.ident,
            item.sig.span().join(item.block.span()).unwrap_or(item.block.span()),
        );
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(
            &item.sig.ident,
            item.sig.span().join(item.block.span()).unwrap_or(item.block.span()),
        );
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident != "tests" {
            syn::visit::visit_item_mod(self, item);
        }
    }
}

/// Dependencies that point upwards or sideways.
fn layers(paths: &Paths) -> anyhow::Result<Vec<String>> {
    let output = crate::cargo::cargo(paths)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cargo metadata cannot be started")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let layer_of = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let packages = metadata["packages"].as_array().context("no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(layer) = layer_of(name) else {
            findings.push(format!("{name}: not in a layer of xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            let local = dependency["path"].is_string() && dependency["kind"].is_null();
            if local && layer_of(other).is_some_and(|below| below >= layer) {
                findings.push(format!("{name} depends on {other}, which is not in a lower layer"));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_functions_are_found_and_test_modules_are_not_counted() {
        let body = "    x();\n".repeat(80);
        let text = format!("fn long() {{\n{body}}}\nmod tests {{\nfn t() {{\n{body}}}\n}}\n");
        let found = lengths(Path::new("a.rs"), &text);
        assert_eq!(found, [("a.rs::long".to_owned(), 82)]);
    }
}
