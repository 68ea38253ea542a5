//! Debian packages as a directory tree, by mmdebstrap and from the machine's own mirror.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::command::{run, run_with_lines};
use crate::{SUITE, sources};

/// mmdebstrap, set up for `packages` of [`SUITE`] without their documentation. More options may be
/// added before it is given to [`install`].
///
/// `variant` is mmdebstrap's: with `essential` the packages are installed in a system that has
/// Debian's essential packages, with `extract` they and what they depend on are unpacked and
/// nothing else.
pub fn mmdebstrap(variant: &str, packages: &[&str]) -> Command {
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--mode=root", "--architectures=amd64"])
        .arg(format!("--variant={variant}"))
        .arg(format!("--include={}", packages.join(",")))
        .args(["--aptopt=APT::Install-Recommends \"false\""])
        .args(
            ["doc", "man", "locale", "info", "lintian"]
                .map(|d| format!("--dpkgopt=path-exclude=/usr/share/{d}/*")),
        );
    for option in host_apt_options() {
        command.arg(format!("--aptopt={option}"));
    }
    command.env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
    command.env("SOURCE_DATE_EPOCH", crate::SOURCE_DATE_EPOCH.to_string());
    command
}

/// Runs `mmdebstrap` into the new directory `rootfs`. `mirror` is used instead of the mirror in
/// the machine's own apt configuration; `label` starts each line of progress.
///
/// # Errors
/// mmdebstrap is missing, or packages cannot be fetched.
pub fn install(
    mut mmdebstrap: Command,
    rootfs: &Path,
    mirror: Option<&str>,
    label: &str,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    mmdebstrap.arg(SUITE).arg(rootfs).arg("-");
    let sources = sources::for_suite(SUITE, mirror)?;
    run_with_lines(&mut mmdebstrap, &sources, &mut |line| {
        if let Some(step) = line.strip_prefix("I: ").filter(|s| s.ends_with("...")) {
            progress(&format!("{label}: {}", step.trim_end_matches('.')));
        }
    })
    .with_context(|| format!("{label}: installing packages"))
}

/// Proxies and clock leniency that this machine's administrator configured for apt.
fn host_apt_options() -> Vec<String> {
    let Ok(dump) = run(Command::new("apt-config").args(["dump", "Acquire"])) else {
        return Vec::new();
    };
    let wanted = |line: &&str| {
        let key = line.split(' ').next().unwrap_or("").to_ascii_lowercase();
        let value_set = !line.ends_with("\"\";");
        value_set
            && (key.ends_with("::proxy")
                || key == "acquire::check-valid-until"
                || key == "acquire::check-date")
    };
    String::from_utf8_lossy(&dump).lines().filter(wanted).map(str::to_owned).collect()
}
