//! The initial RAM disk: node-init, the libraries it needs, and the few modules that stand between
//! the kernel and the root disk. A plain `newc` cpio archive, uncompressed: reading a few MiB is
//! cheaper than unpacking them on an emulated processor.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command::run;
use crate::elf;

/// What must work before the root disk is mounted and the modules on it can be read: the disk,
/// the user-data, the entropy that TLS needs, the network card.
const MODULES: &[&str] = &["virtio_blk", "qemu_fw_cfg", "virtio_rng", "virtio_net"];

/// Writes the archive for the kernel `version` whose modules are in `rootfs`.
///
/// # Errors
/// A module or library is missing, or the file cannot be written.
pub fn write(rootfs: &Path, version: &str, out: &Path) -> anyhow::Result<()> {
    let mut files: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::new();
    let init = rootfs.join("usr/local/bin/node-init");
    let bytes = std::fs::read(&init).with_context(|| format!("reading {}", init.display()))?;
    files.insert("init".into(), (0o100_755, bytes));
    for library in elf::libraries(rootfs, &init)? {
        files.insert(library.name.trim_start_matches('/').into(), (0o100_755, library.bytes));
    }
    let dir = rootfs.join("usr/lib/modules").join(version);
    let mut order = String::new();
    for path in load_order(&dir, MODULES)? {
        let bytes = unpacked_module(rootfs, &dir.join(&path))?;
        let plain = if path.extension().is_some_and(|e| e == "xz") {
            path.with_extension("")
        } else {
            path.clone()
        };
        let name = plain.file_name().context("a module has a name")?.to_string_lossy().into_owned();
        order.push_str(&format!("/modules/{name}\n"));
        files.insert(format!("modules/{name}"), (0o100_644, bytes));
    }
    files.insert("modules/order".into(), (0o100_644, order.into_bytes()));
    for dir in ["dev", "proc", "root", "sys"] {
        files.insert(dir.into(), (0o040_755, Vec::new()));
    }
    add_parents(&mut files);
    let file = std::fs::File::create(out).with_context(|| format!("creating {}", out.display()))?;
    let mut archive = std::io::BufWriter::new(file);
    for (number, (name, (mode, bytes))) in files.iter().enumerate() {
        entry(&mut archive, number as u32 + 1, name, *mode, bytes)?;
    }
    entry(&mut archive, 0, "TRAILER!!!", 0, &[])?;
    archive.flush()?;
    Ok(())
}

/// `modules` and all that they depend on, each after its dependencies, as paths below `dir`
/// (`/lib/modules/<version>`), read from `modules.dep`. Modules built into the kernel are left out.
///
/// # Errors
/// A module is neither a file nor built in.
pub fn load_order(dir: &Path, modules: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let read = |name: &str| {
        std::fs::read_to_string(dir.join(name))
            .with_context(|| format!("reading {}", dir.join(name).display()))
    };
    let dep = read("modules.dep")?;
    let table: BTreeMap<String, (&str, Vec<&str>)> = dep
        .lines()
        .filter_map(|line| {
            let (path, needs) = line.split_once(':')?;
            Some((module_name(path), (path, needs.split_whitespace().collect())))
        })
        .collect();
    let builtin: BTreeSet<String> = read("modules.builtin")?.lines().map(module_name).collect();
    let mut order = Vec::new();
    for module in modules {
        let wanted = module.replace('-', "_");
        match table.get(&wanted) {
            // modules.dep lists the nearest dependency first.
            Some((path, needs)) => {
                for path in needs.iter().rev().chain(std::iter::once(path)) {
                    let path = PathBuf::from(path);
                    if !order.contains(&path) {
                        order.push(path);
                    }
                }
            }
            None if builtin.contains(&wanted) => {}
            None => bail!("the kernel has no module {module}"),
        }
    }
    Ok(order)
}

/// `kernel/drivers/block/virtio_blk.ko.xz` is the module `virtio_blk`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// A module's bytes, decompressed if it is stored as xz.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn unpacked_module(rootfs: &Path, path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.extension().is_some_and(|e| e == "xz") {
        // The image's own static busybox: one program less to ask of the host.
        return run(Command::new(rootfs.join("usr/bin/busybox")).arg("xzcat").arg(path));
    }
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn add_parents(files: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    let names: Vec<String> = files.keys().cloned().collect();
    for name in names {
        for (at, _) in name.match_indices('/') {
            files.entry(name[..at].to_owned()).or_insert((0o040_755, Vec::new()));
        }
    }
}

/// One entry in the "new ASCII" cpio format, see cpio(5): fourteen hexadecimal fields, the name,
/// the content, name and content each padded to four bytes.
fn entry(
    out: &mut impl Write,
    inode: u32,
    name: &str,
    mode: u32,
    bytes: &[u8],
) -> anyhow::Result<()> {
    let size = u32::try_from(bytes.len()).context("a file of the initrd is over 4 GiB")?;
    let links = if mode & 0o040_000 != 0 && mode & 0o100_000 == 0 { 2 } else { 1 };
    let time = u32::try_from(crate::SOURCE_DATE_EPOCH).context("the fixed time fits 32 bits")?;
    let fields = [inode, mode, 0, 0, links, time, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    write!(out, "070701")?;
    for field in fields {
        write!(out, "{field:08X}")?;
    }
    out.write_all(name.as_bytes())?;
    let header = 6 + 8 * fields.len() + name.len();
    out.write_all(&[0; 4][..1 + (4 - (header + 1) % 4) % 4])?;
    out.write_all(bytes)?;
    out.write_all(&[0; 4][..(4 - bytes.len() % 4) % 4])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("modules.dep"),
            "kernel/net/core/failover.ko.xz:\n\
             kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz\n\
             kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz \
             kernel/net/core/failover.ko.xz\n\
             kernel/drivers/block/virtio_blk.ko.xz:\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let order =
            load_order(dir.path(), &["virtio-net", "ext4", "virtio_blk", "net_failover"]).unwrap();
        let names: Vec<String> = order.iter().map(|p| module_name(&p.to_string_lossy())).collect();
        assert_eq!(names, ["failover", "net_failover", "virtio_net", "virtio_blk"]);
        let error = load_order(dir.path(), &["nvme"]).unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no module nvme");
    }

    #[test]
    fn entries_are_padded_to_four_bytes() {
        for (name, bytes) in [("a", &b"x"[..]), ("abc", b"1234"), ("abcdef", b"12")] {
            let mut out = Vec::new();
            entry(&mut out, 1, name, 0o100_644, bytes).unwrap();
            assert_eq!(out.len() % 4, 0);
            let body = (110 + name.len() + 1).div_ceil(4) * 4;
            assert_eq!(&out[body..body + bytes.len()], bytes);
            assert_eq!(&out[110..110 + name.len()], name.as_bytes());
        }
    }
}
