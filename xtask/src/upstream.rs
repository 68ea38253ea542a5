//! Upstream's programs, built from Go modules into the user's cache directory.
//!
//! What is built is pinned by the `go.mod` and `go.sum` files below `tests/upstream/`. To add a
//! program, add a line to [`MODULES`] and, unless it is in a module that is required already, run
//! `go get -tool <package>@<version>` in that module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use crate::apt;
use crate::paths::Paths;
use crate::process::run_logged;
use crate::progress::Step;

/// One of our Go modules that pin upstream's.
struct Module {
    /// Its directory below `tests/upstream`.
    dir: &'static str,
    /// What comes out of it.
    programs: &'static [Program],
}

enum Program {
    /// A `main` package: file name, package.
    Main(&'static str, &'static str),
    /// A package's test program.
    Test(&'static str, &'static str),
    /// A test program that reads files beside its source, and so has to know where that is.
    InPlace(&'static str, &'static str),
}

use Program::{InPlace, Main, Test};

const MODULES: &[Module] = &[
    Module {
        dir: "kubernetes",
        programs: &[
            Main("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            Main("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            Main("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            Main("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            Main("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            Main("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            Main("kubectl-convert", "k8s.io/kubernetes/cmd/kubectl-convert"),
            Main("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
            Main("nonewprivs", "k8s.io/kubernetes/test/images/nonewprivs"),
            Main("sample-apiserver", "k8s.io/sample-apiserver"),
            Main("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"),
            Test("e2e.test", "k8s.io/kubernetes/test/e2e"),
            InPlace(
                "integration-apimachinery.test",
                "k8s.io/kubernetes/test/integration/apimachinery",
            ),
            InPlace("integration-etcd.test", "k8s.io/kubernetes/test/integration/etcd"),
        ],
    },
    Module {
        dir: "etcd",
        programs: &[
            Main("etcd", "go.etcd.io/etcd/server/v3"),
            Main("etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
            Main("etcdutl", "go.etcd.io/etcd/etcdutl/v3"),
        ],
    },
    // A module of its own: the newest release of the tool that the module proxy serves is older
    // than the newest etcd.
    Module {
        dir: "etcd-benchmark",
        programs: &[Main("etcd-benchmark", "go.etcd.io/etcd/v3/tools/benchmark")],
    },
    Module {
        dir: "containerd",
        programs: &[
            Main("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            Main(
                "containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            ),
            Main("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        ],
    },
    Module {
        dir: "coredns",
        programs: &[
            Main("coredns", "github.com/coredns/coredns"),
            Main("registry", "github.com/distribution/distribution/v3/cmd/registry"),
        ],
    },
];

/// The oldest Go that builds all modules.
const GO_MINIMUM: (u32, u32) = (1, 26);

/// Where the programs are put.
pub fn dir(paths: &Paths) -> PathBuf {
    paths.cache.join("upstream/bin")
}

/// True when everything that a cluster and its tests consist of is there, as it is pinned.
pub fn is_complete(paths: &Paths) -> anyhow::Result<bool> {
    for module in MODULES {
        let missing = module.missing(paths)?;
        if missing.iter().any(|(program, _)| !matches!(program, InPlace(..))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Builds what is missing and returns the directory of the programs.
pub fn build(paths: &Paths) -> anyhow::Result<PathBuf> {
    let dir = dir(paths);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut go = None;
    for module in MODULES {
        for (program, digest) in module.missing(paths)? {
            let go = match &go {
                Some(go) => go,
                None => go.insert(ensure_go(paths)?),
            };
            module.build(paths, go, program)?;
            fs::write(program.stamp(paths), digest).context("cannot write a stamp")?;
        }
    }
    Ok(dir)
}

/// The source of the Kubernetes that is pinned, as the module proxy serves it.
pub fn kubernetes_source(paths: &Paths) -> anyhow::Result<PathBuf> {
    const MODULE: &str = "k8s.io/kubernetes";
    let go = ensure_go(paths)?;
    let run = |args: &[&str]| -> anyhow::Result<String> {
        let dir = paths.root.join("tests/upstream/kubernetes");
        let mut command = Command::new(&go);
        command.args(args).arg(MODULE).current_dir(dir).env("GOWORK", "off");
        let output = command.output().context("go cannot be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "go {}: {}", args.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    run(&["mod", "download"])?;
    let dir = run(&["list", "-m", "-f", "{{.Dir}}"])?;
    ensure!(!dir.is_empty(), "go does not say where {MODULE} is");
    Ok(dir.into())
}

/// A Go that is new enough: the machine's, or Debian's.
fn ensure_go(paths: &Paths) -> anyhow::Result<PathBuf> {
    let machine = PathBuf::from("go");
    if go_version(&machine).is_some_and(|version| version >= GO_MINIMUM) {
        return Ok(machine);
    }
    apt::ensure(paths, &["golang-go"])?;
    match go_version(&machine) {
        Some(version) if version >= GO_MINIMUM => Ok(machine),
        found => bail!(
            "upstream's programs need Go {}.{}; this machine has {}. Install a newer one and put \
             it first in PATH",
            GO_MINIMUM.0,
            GO_MINIMUM.1,
            found.map_or("none".to_owned(), |(major, minor)| format!("{major}.{minor}"))
        ),
    }
}

fn go_version(go: &Path) -> Option<(u32, u32)> {
    let output = Command::new(go).args(["env", "GOVERSION"]).output().ok()?;
    parse_version(std::str::from_utf8(&output.stdout).ok()?)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split(['.', 'r', '-', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl Module {
    fn source(&self, paths: &Paths) -> PathBuf {
        paths.root.join("tests/upstream").join(self.dir)
    }

    /// The programs that are not there, or are not the ones that are pinned.
    fn missing(&self, paths: &Paths) -> anyhow::Result<Vec<(&Program, String)>> {
        let mut missing = Vec::new();
        for program in self.programs {
            let digest = self.digest(paths, program)?;
            let stamp = fs::read_to_string(program.stamp(paths)).unwrap_or_default();
            if stamp != digest || !dir(paths).join(program.name()).is_file() {
                missing.push((program, digest));
            }
        }
        Ok(missing)
    }

    /// Of everything that decides what a program is.
    fn digest(&self, paths: &Paths, program: &Program) -> anyhow::Result<String> {
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum"] {
            let path = self.source(paths).join(file);
            hash.update(fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
        }
        hash.update(program.package());
        if matches!(program, InPlace(..)) {
            hash.update("in place");
        }
        Ok(hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
    }

    fn build(&self, paths: &Paths, go: &Path, program: &Program) -> anyhow::Result<()> {
        let step = Step::start(format!("Building upstream's {}", program.name()));
        let mut command = Command::new(go);
        match program {
            Main(..) => command.arg("build"),
            Test(..) | InPlace(..) => command.args(["test", "-c", "-vet=off"]),
        };
        if !matches!(program, InPlace(..)) {
            command.arg("-trimpath");
        }
        let version = self.kubernetes_version(paths)?;
        let partial = dir(paths).join(format!(".{}.partial", program.name()));
        command.current_dir(self.source(paths)).env("CGO_ENABLED", "0").env("GOWORK", "off");
        command.args(["-ldflags", &link_flags(version.as_deref())]);
        command.arg("-o").arg(&partial).arg(program.package());
        let log = paths.cache.join("logs").join(format!("upstream-{}.log", program.name()));
        run_logged(&step, &mut command, &log)?;
        fs::rename(&partial, dir(paths).join(program.name()))
            .with_context(|| format!("publishing {}", program.name()))?;
        step.done();
        Ok(())
    }

    /// The release that this module pins, if it is Kubernetes'.
    fn kubernetes_version(&self, paths: &Paths) -> anyhow::Result<Option<String>> {
        let text = fs::read_to_string(self.source(paths).join("go.mod")).context("go.mod")?;
        Ok(required_version(&text, "k8s.io/kubernetes"))
    }
}

impl Program {
    fn stamp(&self, paths: &Paths) -> PathBuf {
        paths.cache.join("upstream").join(format!("{}.stamp", self.name()))
    }

    fn name(&self) -> &'static str {
        match self {
            Main(name, _) | Test(name, _) | InPlace(name, _) => name,
        }
    }

    fn package(&self) -> &'static str {
        match self {
            Main(_, package) | Test(_, package) | InPlace(_, package) => package,
        }
    }
}

/// The version of a module that a `go.mod` requires.
fn required_version(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next()? == module).then(|| words.next().map(str::to_owned))?
    })
}

/// What upstream's own build tells its programs about their version.
fn link_flags(version: Option<&str>) -> String {
    let mut flags = "-s -w".to_owned();
    let Some(version) = version else { return flags };
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [
            ("gitVersion", version),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        ] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

/// `cargo xtask upstream`.
pub fn run(paths: &Paths) -> anyhow::Result<()> {
    let dir = build(paths)?;
    ensure!(is_complete(paths)?, "a program is missing although everything was built");
    println!("{}", dir.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_go_and_from_its_files() {
        assert_eq!(parse_version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(parse_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(parse_version("devel"), None);
        let text = "module m\n\nrequire k8s.io/kubernetes v1.35.4\n\nrequire (\n\ta.b/c v1.0.0 // indirect\n)\n";
        assert_eq!(required_version(text, "k8s.io/kubernetes").as_deref(), Some("v1.35.4"));
        assert_eq!(required_version(text, "a.b/c").as_deref(), Some("v1.0.0"));
        assert_eq!(required_version(text, "a.b"), None);
    }

    #[test]
    fn kubernetes_programs_know_their_version() {
        let flags = link_flags(Some("v1.35.4"));
        assert!(flags.contains("-X k8s.io/component-base/version.gitMinor=35 "), "{flags}");
        assert_eq!(link_flags(None), "-s -w");
    }
}
