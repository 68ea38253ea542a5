//! The Debian files below most of the test images: a shell and the tools that upstream's tests
//! call inside of containers.
//!
//! The packages are unpacked, not installed: no maintainer script runs and no package manager is
//! there. What such scripts would make is made here. The shell and all small commands are
//! busybox's, as in the images that upstream's tests were written for. It is the package whose
//! shell looks commands up in PATH: that of `busybox-static` prefers its own `nc` to the real one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;
use node_image::command::run;
use node_image::oci::Layer;
use node_image::store::Store;
use node_image::{debian, elf, tree};

/// To be raised when this file makes something else of the same lists.
const RECIPE: &str = "2";

/// Beside these there is only what they depend on.
const PACKAGES: &[&str] = &[
    "bash",
    "bind9-dnsutils",
    "busybox",
    "curl",
    "iperf",
    "iproute2",
    "libc-bin",
    "netbase",
    "netcat-openbsd",
    "nginx",
];

/// What no test reads.
const PRUNED: &[&str] = &[
    "boot",
    "dev",
    "etc/apt",
    "etc/default",
    "etc/hostname",
    "etc/init.d",
    "etc/nginx",
    "etc/resolv.conf",
    "etc/ufw",
    "usr/games",
    "usr/include",
    "usr/lib/apt",
    "usr/lib/init",
    "usr/lib/systemd",
    "usr/share",
    "usr/src",
    "var",
];

/// Directories that the packages' scripts would make, or that were pruned with their content.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("root", 0o700),
    ("tmp", 0o1777),
    ("usr/local/bin", 0o755),
    ("var/lib/nginx", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// Links that Debian's alternatives would be, and the place where upstream's image has iperf.
const LINKS: &[(&str, &str)] = &[
    ("usr/bin/nc", "nc.openbsd"),
    ("usr/bin/netcat", "nc.openbsd"),
    ("usr/local/bin/iperf", "/usr/bin/iperf"),
    ("var/run", "/run"),
];

/// The files that a C library and a container runtime look users and names up in.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         www-data:x:33:33:www-data:/var/www:/sbin/nologin\n\
         nobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    ),
    ("etc/group", "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// The files in the cache, made when they are not there: a root file system.
///
/// # Errors
/// Packages cannot be fetched, or the cache cannot be written.
pub fn ensure(store: &Store, progress: &mut dyn FnMut(&str)) -> anyhow::Result<PathBuf> {
    let name = format!("base-{}", key());
    let dir = match store.find(&name) {
        Some(dir) => dir,
        None => {
            let work = store.scratch()?;
            make(&work.path().join("rootfs"), progress).context("base of the test images")?;
            store.keep(work, &name)?
        }
    };
    store.collect("base-", &dir, 0)?;
    Ok(dir.join("rootfs"))
}

/// Changes with what [`ensure`] makes, but for the versions of the packages.
pub fn key() -> String {
    let lists = format!("{PACKAGES:?}{PRUNED:?}{DIRECTORIES:?}{LINKS:?}{FILES:?}");
    super::key([RECIPE, node_image::SUITE, &lists])
}

fn make(rootfs: &Path, progress: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    progress("test images: fetching Debian packages (some seconds, once)");
    let command = debian::mmdebstrap("extract", PACKAGES);
    debian::install(command, rootfs, None, "test images", progress)?;
    for path in PRUNED {
        tree::remove(&rootfs.join(path))?;
    }
    for (path, mode) in DIRECTORIES {
        let dir = rootfs.join(path);
        fs::create_dir_all(&dir).with_context(|| format!("making {path}"))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(*mode))?;
    }
    for (path, target) in LINKS {
        symlink(target, rootfs.join(path)).with_context(|| format!("linking {path}"))?;
    }
    for (path, text) in FILES {
        tree::install(&rootfs.join(path), text.as_bytes(), 0o644)?;
    }
    // See `busybox` for why not busybox's own.
    symlink("bash", rootfs.join("usr/bin/sh")).context("linking the shell")?;
    for applet in applets(rootfs)? {
        let there = |dir: &str| fs::symlink_metadata(rootfs.join(dir).join(&applet)).is_ok();
        if !there("usr/bin") && !there("usr/sbin") {
            symlink("busybox", rootfs.join("usr/bin").join(&applet))?;
        }
    }
    tree::clamp_times(rootfs)
}

/// Where busybox is in the base.
pub const BUSYBOX: &str = "usr/bin/busybox";

/// Where bash is in the base.
pub const SHELL: &str = "usr/bin/bash";

/// The shell of the busybox image. Debian's busybox does not hand variables such as `data-1` to what
/// its shell starts; the one of upstream's image does, and tests look for them. Bash does too, but its
/// errors read differently, and tests look at those as well.
const BUSYBOX_SH: &str = r#"#!/bin/bash
while IFS= read -rd '' variable; do
  if [[ ! ${variable%%=*} =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]]; then exec -a "$0" /bin/bash "$@"; fi
done </proc/self/environ
exec -a "$0" /bin/busybox "$@"
"#;

/// Busybox and the shell without their libraries, with a link for each of its commands and the files that name
/// users.
///
/// # Errors
/// The base has no busybox.
pub fn busybox(rootfs: &Path) -> anyhow::Result<Layer> {
    let mut layer = skeleton();
    let path = rootfs.join(BUSYBOX);
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    layer.file("bin/busybox", 0o755, bytes);
    for applet in applets(rootfs)? {
        layer.link(&format!("bin/{applet}"), "busybox");
    }
    let path = rootfs.join(SHELL);
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    layer.file("bin/bash", 0o755, bytes);
    layer.file("bin/sh", 0o755, BUSYBOX_SH.as_bytes().to_vec());
    layer.link("usr/bin/env", "../../bin/env");
    for dir in ["dev", "home", "usr/sbin", "var"] {
        layer.directory(dir, 0o755);
    }
    Ok(layer)
}

/// What every image has that is made from nothing.
pub fn skeleton() -> Layer {
    let mut layer = Layer::default();
    for (path, text) in FILES {
        layer.file(path, 0o644, text.as_bytes().to_vec());
    }
    layer.directory("root", 0o700);
    layer.directory("tmp", 0o1777);
    layer
}

/// The commands that busybox knows, without its own name.
fn applets(rootfs: &Path) -> anyhow::Result<Vec<String>> {
    let list = run(elf::program(rootfs, BUSYBOX).arg("--list"))?;
    let list = String::from_utf8(list).context("busybox printed no text")?;
    Ok(list.lines().filter(|name| *name != "busybox").map(str::to_owned).collect())
}
