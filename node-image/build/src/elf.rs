//! Which shared libraries a program needs, answered by the image's own dynamic loader, so that the
//! answer is about the image and not about the machine that builds it. Static programs need none.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command::run;

/// Where the kernel looks for the loader of a 64-bit x86 program.
pub const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

const LIBRARY_DIR: &str = "usr/lib/x86_64-linux-gnu";

/// The type of the program header that names a dynamic loader.
const PT_INTERP: u32 = 3;

/// One file that a program needs beside itself.
pub struct Library {
    /// Absolute path at which the program finds it.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A command that runs one of the image's own programs with the image's libraries, without
/// changing root: nothing of the host's C library is involved.
pub fn program(rootfs: &Path, path: &str) -> Command {
    let program = rootfs.join(path);
    // What cannot be read is left to the loader, which says so.
    if is_static(&program).unwrap_or(false) {
        return Command::new(program);
    }
    let mut command = Command::new(rootfs.join(LOADER.trim_start_matches('/')));
    command.arg("--library-path").arg(rootfs.join(LIBRARY_DIR)).arg(program);
    command
}

/// Whether a program runs without a dynamic loader: its headers ask for none (PT_INTERP).
///
/// # Errors
/// It cannot be read, or is no program for a 64-bit little-endian machine.
pub fn is_static(program: &Path) -> anyhow::Result<bool> {
    let context = || format!("reading {}", program.display());
    let mut file = std::fs::File::open(program).with_context(context)?;
    // The program headers follow the file's own in practice, well within the first pages.
    let mut head = Vec::new();
    file.by_ref().take(16 << 10).read_to_end(&mut head).with_context(context)?;
    let interpreters = program_headers(&head)
        .with_context(|| format!("{} is no 64-bit ELF program", program.display()))?
        .filter(|kind| *kind == PT_INTERP)
        .count();
    Ok(interpreters == 0)
}

/// The types of the program headers (`e_phoff`, `e_phentsize`, `e_phnum` of the ELF header).
fn program_headers(head: &[u8]) -> Option<impl Iterator<Item = u32>> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let offset = u64::from_le_bytes(head.get(32..40)?.try_into().ok()?);
    let (offset, size) = (usize::try_from(offset).ok()?, usize::from(u16_at(54)?));
    let table = head.get(offset..offset.checked_add(size * usize::from(u16_at(56)?))?)?;
    let kind = |entry: &[u8]| Some(u32::from_le_bytes(entry.get(..4)?.try_into().ok()?));
    let kinds: Option<Vec<u32>> = table.chunks(size.max(1)).map(kind).collect();
    Some(kinds?.into_iter())
}

/// Everything that `program` must find at run time: the loader and its shared libraries; nothing
/// for a static program.
///
/// # Errors
/// It is no program, or the image lacks a library or a symbol version that it needs.
pub fn libraries(rootfs: &Path, program: &Path) -> anyhow::Result<Vec<Library>> {
    if is_static(program)? {
        return Ok(Vec::new());
    }
    let mut command = Command::new(rootfs.join(LOADER.trim_start_matches('/')));
    command.args(["--inhibit-cache", "--library-path"]).arg(rootfs.join(LIBRARY_DIR));
    command.arg("--list").arg(program);
    let listing = run(&mut command)
        .with_context(|| format!("{} does not run on the image's C library", program.display()))?;
    let mut found = BTreeMap::new();
    found.insert(LOADER.to_owned(), rootfs.join(LOADER.trim_start_matches('/')));
    for (name, path) in parse(&String::from_utf8_lossy(&listing))? {
        if name != LOADER {
            found.insert(format!("/lib/x86_64-linux-gnu/{name}"), path);
        }
    }
    found
        .into_iter()
        .map(|(name, path)| {
            let bytes =
                std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            Ok(Library { name, bytes })
        })
        .collect()
}

/// Copies a program without its debug information, which is most of its size and stays on the
/// machine that built it.
///
/// # Errors
/// It is no program, or `to` cannot be written.
pub fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    run(Command::new("strip").args(["--strip-debug", "-o"]).arg(to).arg(from))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("writing {}", to.display()))
}

/// Reads lines such as `libm.so.6 => /path/libm.so.6 (0x7f…)`.
fn parse(listing: &str) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for line in listing.lines() {
        let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
        if rest.starts_with("not found") {
            bail!("the image has no {name}");
        }
        let path = rest.rsplit_once(" (").map_or(rest, |(path, _)| path);
        found.push((name.to_owned(), PathBuf::from(path)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_listing_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007f05f4a64000)\n\
                    \tlibc.so.6 => /r/usr/lib/libc.so.6 (0x00007f05f4868000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 => /r/ld.so (0x00007f05f4a66000)\n";
        let found = parse(text).unwrap();
        assert_eq!(found[0], ("libc.so.6".to_owned(), PathBuf::from("/r/usr/lib/libc.so.6")));
        assert_eq!(found[1].0, LOADER);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_loader_is_seen_in_the_headers() {
        let program = |kinds: &[u32]| {
            let mut head = b"\x7fELF\x02\x01".to_vec();
            head.resize(64, 0);
            head[32..40].copy_from_slice(&64_u64.to_le_bytes());
            head[54..56].copy_from_slice(&56_u16.to_le_bytes());
            head[56..58].copy_from_slice(&u16::try_from(kinds.len()).unwrap().to_le_bytes());
            for kind in kinds {
                head.extend(kind.to_le_bytes());
                head.resize(head.len() + 52, 0);
            }
            head
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, program(&[6, PT_INTERP, 1])).unwrap();
        assert!(!is_static(&path).unwrap());
        std::fs::write(&path, program(&[1, 1])).unwrap();
        assert!(is_static(&path).unwrap());
        std::fs::write(&path, &program(&[1, 1])[..100]).unwrap();
        assert!(is_static(&path).is_err());
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert!(is_static(&path).is_err());
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibssl.so.3 => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "the image has no libssl.so.3");
    }
}
