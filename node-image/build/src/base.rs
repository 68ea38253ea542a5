//! The base system: Debian packages and a kernel, before anything of ours is added.
//!
//! The kernel package is unpacked without being installed: installed, it would bring an initramfs
//! generator, udev and systemd along, none of which a worker runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::command::run;
use crate::store::Store;
use crate::{SUITE, debian, tree};

/// To be raised when this file changes what the base contains without changing the lists below.
const RECIPE: &str = "1";

/// What the base installs, beside Debian's essential packages and their dependencies.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "mount",
    "nftables",
    "runc",
];

/// Small flavour for virtual machines; it has virtio, NVMe and ENA.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What no worker reads.
const PRUNED: &[&str] = &[
    "boot",
    "etc/containerd",
    "etc/machine-id",
    "etc/hostname",
    "usr/include",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/common-licenses",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/perl5",
    "usr/share/zoneinfo",
    "var/cache",
    "var/lib/apt",
    "var/log",
];

/// Modules that every worker loads while it boots or starts its first pod. They are stored
/// unpacked, because unpacking xz costs an emulated processor more than reading the file.
const HOT_MODULES: &[&str] = &[
    "br_netfilter",
    "bridge",
    "button",
    "evdev",
    "nf_conntrack",
    "nf_nat",
    "nf_tables",
    "nft_chain_nat",
    "nft_compat",
    "nft_ct",
    "nft_fib_ipv4",
    "nft_hash",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_redir",
    "nft_reject_inet",
    "overlay",
    "qemu_fw_cfg",
    "veth",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "xt_MASQUERADE",
    "xt_comment",
    "xt_conntrack",
    "xt_mark",
    "xt_nat",
    "xt_tcpudp",
];

/// A base system in the cache. Read only: its files may be hard-linked into images.
pub struct Base {
    /// Changes with everything that can change the content.
    pub key: String,
    pub rootfs: PathBuf,
    pub vmlinuz: PathBuf,
    pub kernel_version: String,
    /// `name version` per line, sorted.
    pub packages: String,
}

/// The base system for the current lists, made when the cache has none.
///
/// # Errors
/// A program is missing, packages cannot be fetched, or the cache cannot be written.
pub fn ensure(
    store: &Store,
    mirror: Option<&str>,
    refresh: bool,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Base> {
    let name = format!("base-{}", recipe_key());
    let dir = match store.find(&name).filter(|_| !refresh) {
        Some(dir) => dir,
        None => {
            let work = store.scratch()?;
            make(work.path(), mirror, progress)?;
            store.keep(work, &name)?
        }
    };
    load(&dir)
}

fn recipe_key() -> String {
    let mut hash = Sha256::new();
    for part in [&[RECIPE, SUITE, KERNEL], PACKAGES, PRUNED, HOT_MODULES].concat() {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(crate::SOURCE_DATE_EPOCH.to_le_bytes());
    crate::store::hex(&hash.finalize())[..16].to_owned()
}

fn load(dir: &Path) -> anyhow::Result<Base> {
    let text = |name: &str| {
        fs::read_to_string(dir.join(name))
            .with_context(|| format!("reading {}", dir.join(name).display()))
    };
    let packages = text("packages.txt")?;
    let kernel_version = text("kernel-version.txt")?.trim().to_owned();
    // A refreshed base has the same recipe but other versions, hence both.
    let versions = Sha256::digest(format!("{packages}{kernel_version}"));
    Ok(Base {
        key: format!("{}-{}", recipe_key(), &crate::store::hex(&versions)[..16]),
        rootfs: dir.join("rootfs"),
        vmlinuz: dir.join("vmlinuz"),
        kernel_version,
        packages,
    })
}

fn make(work: &Path, mirror: Option<&str>, progress: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    progress("base system: fetching and installing Debian packages (about a minute, once)");
    let rootfs = work.join("rootfs");
    bootstrap(work, &rootfs, mirror, progress)?;
    let admin = format!("--admindir={}", rootfs.join("var/lib/dpkg").display());
    let mut listing = Command::new("dpkg-query");
    listing.args([&admin, "-W", "-f", "${Package} ${Version}\n"]);
    let packages = run(&mut listing)?;
    let text = String::from_utf8(packages).context("package names are not UTF-8")?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    fs::write(work.join("packages.txt"), lines.join("\n") + "\n")?;

    progress("base system: kernel and modules");
    let version = kernel(work, &rootfs)?;
    fs::write(work.join("kernel-version.txt"), &version)?;
    for path in PRUNED {
        tree::remove(&rootfs.join(path))?;
    }
    for dir in ["boot", "etc/containerd", "var/cache", "var/log"] {
        fs::create_dir_all(rootfs.join(dir))?;
    }
    tree::clamp_times(&rootfs)
}

/// Runs mmdebstrap; the kernel package ends up in `work/kernel`.
fn bootstrap(
    work: &Path,
    rootfs: &Path,
    mirror: Option<&str>,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let kernel_dir = work.join("kernel");
    fs::create_dir(&kernel_dir)?;
    let mut command = debian::mmdebstrap("essential", PACKAGES);
    // The hook runs in a shell; the directory travels in the environment, not in its text.
    command.env("MARINA_KERNEL_DIR", &kernel_dir);
    command.arg(format!(
        "--customize-hook=cd \"$MARINA_KERNEL_DIR\" && export APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" \
         && apt-get download $(apt-cache depends {KERNEL} | sed -n 's/.*Depends: //p')"
    ));
    debian::install(command, rootfs, mirror, "base system", progress)
}

/// Unpacks the kernel and its modules; returns its version.
fn kernel(work: &Path, rootfs: &Path) -> anyhow::Result<String> {
    let deb = fs::read_dir(work.join("kernel"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .context("apt downloaded no kernel package")?;
    let unpacked = work.join("kernel/unpacked");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&unpacked))?;
    let image = fs::read_dir(unpacked.join("boot"))?
        .flatten()
        .find(|e| e.file_name().to_string_lossy().starts_with("vmlinuz-"))
        .context("the kernel package has no vmlinuz")?;
    let name = image.file_name().to_string_lossy().into_owned();
    let version = name.trim_start_matches("vmlinuz-").to_owned();
    fs::rename(image.path(), work.join("vmlinuz"))?;

    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|d| unpacked.join(d))
        .into_iter()
        .find(|d| d.is_dir())
        .context("the kernel package has no modules")?;
    let target = rootfs.join("usr/lib/modules");
    fs::create_dir_all(&target)?;
    run(Command::new("cp").args(["-a", "-T"]).arg(&modules).arg(&target))?;
    depmod(rootfs, &version)?;
    unpack_hot_modules(rootfs, &version)?;
    depmod(rootfs, &version)?;
    fs::remove_dir_all(work.join("kernel"))?;
    Ok(version)
}

fn depmod(rootfs: &Path, version: &str) -> anyhow::Result<()> {
    run(Command::new("chroot").arg(rootfs).args(["/usr/sbin/depmod", version]))?;
    Ok(())
}

fn unpack_hot_modules(rootfs: &Path, version: &str) -> anyhow::Result<()> {
    let dir = rootfs.join("usr/lib/modules").join(version);
    let order = crate::initrd::load_order(&dir, HOT_MODULES)?;
    for path in order.iter().filter(|p| p.extension().is_some_and(|e| e == "xz")) {
        let packed = dir.join(path);
        let bytes = crate::initrd::unpacked_module(rootfs, &packed)?;
        fs::write(packed.with_extension(""), bytes)?;
        fs::remove_file(&packed)?;
    }
    Ok(())
}
