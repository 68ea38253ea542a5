//! Debian packages: what is missing gets installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::paths::Paths;
use crate::process::run_logged;
use crate::progress::Step;

/// What a running Marina needs on its host.
pub const RUN: &[&str] = &[
    "ca-certificates",
    "cpio",
    "debian-archive-keyring",
    "e2fsprogs",
    "iproute2",
    "mmdebstrap",
    "qemu-system-x86",
    "qemu-utils",
    "xz-utils",
];

/// What the tests need beyond that.
pub const TEST: &[&str] = &["chromium", "chromium-driver", "curl", "etcd-client", "jq", "nftables"];

/// Installs those of `packages` that are missing.
pub fn ensure(paths: &Paths, packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<_> = packages.iter().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        let names = missing.iter().map(|name| **name).collect::<Vec<_>>().join(" ");
        bail!("missing Debian packages: {names}. Run as root, or: sudo apt-get install {names}");
    }
    let step = Step::start(format!("Installing {} Debian packages", missing.len()));
    let log = paths.cache.join("logs/apt.log");
    run_logged(&step, apt_get().arg("update"), &log)?;
    run_logged(
        &step,
        apt_get().args(["install", "-y", "--no-install-recommends"]).args(missing),
        &log,
    )?;
    step.done();
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Packages such as etcd would otherwise start a system service.
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${Status}", package])
        .output()
        .is_ok_and(|out| out.status.success() && out.stdout.ends_with(b"install ok installed"))
}

/// True for root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self")
        .map(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
        .unwrap_or(false)
}

/// Downloads a package of another Debian suite and unpacks it into `dir`, without installing it.
/// The mirror is the one that this machine already uses.
pub fn unpack_from_suite(
    paths: &Paths,
    suite: &str,
    package: &str,
    dir: &Path,
) -> anyhow::Result<()> {
    let state = paths.cache.join("apt").join(suite);
    for sub in ["lists/partial", "cache/archives/partial", "debs"] {
        std::fs::create_dir_all(state.join(sub)).context("cannot make apt's directories")?;
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let list = state.join("sources.list");
    std::fs::write(&list, format!("deb [signed-by={keyring}] {} {suite} main\n", mirror()?))
        .context("cannot write sources.list")?;
    let step = Step::start(format!("Downloading {package} of Debian {suite}"));
    let log = paths.cache.join("logs").join(format!("apt-{package}.log"));
    let configured = || {
        let mut apt = apt_get();
        apt.arg("-o").arg("Dir::Etc::sourceparts=/dev/null");
        apt.arg("-o").arg(format!("Dir::Etc::sourcelist={}", list.display()));
        apt.arg("-o").arg(format!("Dir::State::lists={}", state.join("lists").display()));
        apt.arg("-o").arg(format!("Dir::Cache={}", state.join("cache").display()));
        apt.arg("-o").arg("APT::Sandbox::User=root");
        apt.current_dir(state.join("debs"));
        apt
    };
    run_logged(&step, configured().arg("update"), &log)?;
    run_logged(&step, configured().arg("download").arg(format!("{package}/{suite}")), &log)?;
    let deb = std::fs::read_dir(state.join("debs"))
        .context("no download directory")?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(&format!("{package}_")))
        })
        .with_context(|| format!("apt-get downloaded no {package}"))?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    run_logged(&step, Command::new("dpkg-deb").arg("-x").arg(&deb).arg(dir), &log)?;
    step.done();
    Ok(())
}

/// The address of the Debian mirror in this machine's own sources.
fn mirror() -> anyhow::Result<String> {
    let mut files = vec![std::path::PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(dir.filter_map(Result::ok).map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
        .context("no Debian mirror in /etc/apt: add Debian's main archive to the apt sources")
}

/// Finds the main archive in one sources file, in deb822 or one-line format.
fn mirror_in(text: &str) -> Option<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            match words.next()? {
                "URIs:" => words.next(),
                "deb" => words.find(|word| word.contains("://")),
                _ => None,
            }
        })
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn finds_the_main_archive_in_both_formats() {
        let deb822 = "Types: deb\n# URIs: http://old/debian\nURIs: http://mirror.example/debian\n";
        assert_eq!(mirror_in(deb822).as_deref(), Some("http://mirror.example/debian"));
        let line = "deb [arch=amd64] http://mirror.example/debian bookworm main\n";
        assert_eq!(mirror_in(line).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in("deb http://mirror.example/debian-security x main\n"), None);
    }
}
