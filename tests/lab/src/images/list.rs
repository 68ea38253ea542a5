//! References of images, and the list that `e2e.test` prints.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use node_image::command::run;

/// A reference such as `registry.example/team/image:tag`, in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The registry, with a port if it has one.
    pub host: &'a str,
    /// Everything between host and tag.
    pub repository: &'a str,
    /// What follows the colon.
    pub tag: &'a str,
}

impl<'a> Reference<'a> {
    /// Takes a full reference apart; nothing for one without host or tag.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, rest) = text.split_once('/')?;
        let (repository, tag) = rest.rsplit_once(':')?;
        let full = !host.is_empty() && !repository.is_empty() && !tag.contains('/');
        full.then_some(Self { host, repository, tag })
    }

    /// Whether the repository is `name`, or ends with it below some other path.
    pub fn is_of(&self, name: &str) -> bool {
        let rest = self.repository.strip_suffix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    }
}

/// Asks `e2e.test` for the images of its tests.
///
/// # Errors
/// It does not run.
pub fn ask(e2e_test: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new(e2e_test);
    // Both replace the names that the tests are written with.
    command.arg("--list-images").env_remove("KUBE_TEST_REPO").env_remove("KUBE_TEST_REPO_LIST");
    let output = run(&mut command).context("asking upstream's tests for their images")?;
    let found = parse(&String::from_utf8_lossy(&output));
    anyhow::ensure!(!found.is_empty(), "{} --list-images prints no images", e2e_test.display());
    Ok(found)
}

/// The references among the lines, sorted.
fn parse(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    let mut found: Vec<String> = lines
        .filter(|line| !line.contains(' ') && Reference::parse(line).is_some())
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let reference = Reference::parse("r.test:5000/a/b:1.2-3").unwrap();
        let parts = (reference.host, reference.repository, reference.tag);
        assert_eq!(parts, ("r.test:5000", "a/b", "1.2-3"));
        assert!(reference.is_of("b") && reference.is_of("a/b"));
        assert!(!reference.is_of("r.test:5000/a/b") && !reference.is_of("/b"));
        assert!(!Reference::parse("r.test/ab:1").unwrap().is_of("b"));
        for not in ["busybox", "busybox:1", "r.test/a", "r.test:5000/a", "/a:1"] {
            assert_eq!(Reference::parse(not), None, "{not}");
        }
    }

    #[test]
    fn the_list_is_sorted_and_other_lines_are_left_out() {
        let text = "I1128 main.go:1] a remark\nr.test/b:2\nr.test/a:1\n\nr.test/b:2\nPASS\n";
        assert_eq!(parse(text), ["r.test/a:1", "r.test/b:2"]);
    }
}
