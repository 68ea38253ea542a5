//! Which shared libraries a program needs, answered by the image's own dynamic loader, so that the
//! answer is about the image and not about the machine that builds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command::run;

/// Where the kernel looks for the loader of a 64-bit x86 program.
pub const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

const LIBRARY_DIR: &str = "usr/lib/x86_64-linux-gnu";

/// One file that a program needs beside itself.
pub struct Library {
    /// Absolute path at which the program finds it.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// A command that runs one of the image's own programs with the image's libraries, without
/// changing root: nothing of the host's C library is involved.
pub fn program(rootfs: &Path, path: &str) -> Command {
    let mut command = Command::new(rootfs.join(LOADER.trim_start_matches('/')));
    command.arg("--library-path").arg(rootfs.join(LIBRARY_DIR)).arg(rootfs.join(path));
    command
}

/// Everything that `program` must find at run time: the loader and its shared libraries.
///
/// # Errors
/// It is no dynamic program, or the image lacks a library or a symbol version that it needs.
pub fn libraries(rootfs: &Path, program: &Path) -> anyhow::Result<Vec<Library>> {
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
    fn a_missing_library_is_named() {
        let error = parse("\tlibssl.so.3 => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "the image has no libssl.so.3");
    }
}
