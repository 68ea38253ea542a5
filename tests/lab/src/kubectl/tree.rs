//! Upstream's scripts and their data, laid out as in upstream's repository, and the list of tests
//! that they hold.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::places::Places;

/// What the tests read.
const DIRECTORIES: [&str; 6] = [
    "hack/lib",
    "hack/testdata",
    "test/cmd",
    "test/e2e/testing-manifests",
    "test/fixtures",
    "third_party/forked/shell2junit",
];
/// Runs one test; see its head.
const DRIVER: &str = include_str!("driver.sh");
/// What upstream checks between two tests, as a test of its own.
pub const BETWEEN: &str = "between";

/// A test: a shell function of upstream's.
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    /// `run_pod_tests`.
    pub function: String,
    /// The script that defines it, without its ending: `core`.
    pub script: String,
}

impl Suite {
    /// The name in the results.
    pub fn name(&self) -> String {
        format!("[{}] {}", self.script, self.function)
    }
}

/// A copy of upstream's scripts: they write beside themselves.
pub struct Tree {
    dir: PathBuf,
}

impl Tree {
    /// Copies scripts and data from upstream's source into `dir` and puts kubectl beside them.
    ///
    /// # Errors
    /// Upstream's source lacks something, or `dir` cannot be written.
    pub fn make(source: &Path, places: &Places, dir: &Path) -> anyhow::Result<Self> {
        for name in DIRECTORIES {
            copy(&source.join(name), &dir.join(name))?;
        }
        let bin = dir.join("_output/bin");
        fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
        for name in ["kubectl", "kubectl-convert"] {
            let program = places.upstream_tool(name)?;
            symlink(&program, bin.join(name)).with_context(|| format!("linking {name}"))?;
        }
        let tree = Self { dir: dir.to_owned() };
        fs::write(tree.driver(), DRIVER).context("writing the driver")?;
        Ok(tree)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The script that runs one test.
    pub fn driver(&self) -> PathBuf {
        self.dir.join("driver.sh")
    }

    /// All tests in upstream's order, and [`BETWEEN`].
    ///
    /// # Errors
    /// The scripts are not what this expects.
    pub fn suites(&self) -> anyhow::Result<Vec<Suite>> {
        let scripts = self.dir.join("test/cmd");
        let mut texts = Vec::new();
        for entry in fs::read_dir(&scripts).context("reading test/cmd")?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "sh") {
                let script = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                texts.push((script, fs::read_to_string(&path).context("reading a script")?));
            }
        }
        let main = texts.iter().find(|(script, _)| script == "legacy-script");
        let (_, main) = main.context("no legacy-script.sh")?;
        let mut suites = Vec::new();
        for function in recorded(main) {
            let definer = texts.iter().find(|(_, text)| defines(text, function));
            let script =
                definer.with_context(|| format!("{function} is defined nowhere"))?.0.clone();
            suites.push(Suite { function: function.to_owned(), script });
        }
        ensure!(!suites.is_empty(), "legacy-script.sh records no test");
        suites.push(Suite { function: BETWEEN.into(), script: "legacy-script".into() });
        Ok(suites)
    }
}

/// The functions that upstream's main script records, each once, in its order.
fn recorded(script: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for line in script.lines() {
        if let Some(function) = line.trim().strip_prefix("record_command run_")
            && function.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            let function = &line.trim()["record_command ".len()..];
            if !found.contains(&function) {
                found.push(function);
            }
        }
    }
    found
}

fn defines(script: &str, function: &str) -> bool {
    script.lines().any(|line| {
        let line = line.trim_start_matches("function ").trim_start();
        line.strip_prefix(function).is_some_and(|rest| rest.trim_start().starts_with("()"))
    })
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            // Modules say nothing of permissions; some scripts here are to be executed.
            let bytes = fs::read(entry.path()).context("reading a file of upstream's")?;
            let mode = if bytes.starts_with(b"#!") { 0o755 } else { 0o644 };
            fs::write(&target, bytes)
                .and_then(|()| fs::set_permissions(&target, Permissions::from_mode(mode)))
                .with_context(|| format!("writing {}", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_where_upstream_records_and_defines_them() {
        let script = "  record_command run_b_tests\n# record_command run_x\n\
                      if true; then\n    record_command run_a_test\n  record_command run_b_tests\n\
                      record_command \"run_${pkg}_tests\"\n";
        assert_eq!(recorded(script), ["run_b_tests", "run_a_test"]);
        assert!(defines("x\nrun_a_test() {\n", "run_a_test"));
        assert!(defines("function run_a_test () {\n", "run_a_test"));
        assert!(!defines("run_a_tests() {\n  run_a_test\n", "run_a_test"));
    }
}
