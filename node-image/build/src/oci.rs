//! Container images, as OCI image layouts and as archives of them that containerd imports; and
//! the ones that a worker carries from the start.
//!
//! Two layers each: the C library, which all share, and the program. Layers are not compressed:
//! they are never sent over a network.

mod layer;
mod layout;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::elf;
pub use layer::{Layer, archive};
pub use layout::{Config, Descriptor, Layout, MANIFEST_TYPE};

/// A container image to make: to add one, add a row to [`RECIPES`].
pub struct Recipe {
    /// The full reference under which the worker knows it.
    pub reference: &'static str,
    /// The program's file in the directory of binaries.
    pub binary: &'static str,
    /// The program's path in the image; started without arguments.
    pub path: &'static str,
    /// Whether busybox and a minimal `/etc` come along, for `kubectl exec` and `kubectl cp`.
    pub shell: bool,
}

/// Every preloaded image.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        reference: "registry.k8s.io/pause:3.10",
        binary: "pause",
        path: "/pause",
        shell: false,
    },
    Recipe {
        reference: "marina.dev/dns:v1",
        binary: "cluster-dns",
        path: "/cluster-dns",
        shell: false,
    },
    Recipe { reference: "marina.dev/demo:v1", binary: "demo", path: "/demo", shell: true },
];

/// The busybox commands that get a link in an image with a shell.
const APPLETS: &str = "[ ash awk basename cat chmod chown clear cp cut date dd df dirname du echo \
    env expr false find free fuser grep gunzip gzip head hostname id ip kill less ln ls md5sum \
    mkdir mkfifo mktemp more mount mv nc netstat nproc nslookup od ping ping6 printenv printf ps \
    pwd readlink realpath reset rm rmdir route sed seq sh sha256sum sleep sort stat stty sync tail \
    tar tee telnet test time timeout top touch tr traceroute true tty umount uname uniq uptime vi \
    watch wc wget which whoami xargs yes zcat";

/// Writes the archive of one image. `binaries` holds the programs, stripped; libraries and busybox
/// come out of `rootfs`.
///
/// # Errors
/// The program is missing or needs a library that the image lacks.
pub fn write(recipe: &Recipe, rootfs: &Path, binaries: &Path, out: &Path) -> anyhow::Result<()> {
    let program = binaries.join(recipe.binary);
    let mut own = Layer::default();
    let bytes =
        std::fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    own.file(recipe.path, 0o755, bytes);
    if recipe.shell {
        add_shell(&mut own, rootfs)?;
    }
    let parent = out.parent().context("the archive's path has no directory")?;
    let dir = tempfile::tempdir_in(parent).context("making a work directory")?;
    let layers = [libraries(rootfs, &program)?, own];
    write_layout(recipe, &layers, dir.path())?;
    archive(dir.path(), out)
}

/// The layer with everything that `program` must find at run time, from `rootfs`; an empty one for
/// a static program.
///
/// # Errors
/// `rootfs` lacks a library.
pub fn libraries(rootfs: &Path, program: &Path) -> anyhow::Result<Layer> {
    let mut layer = Layer::default();
    for library in elf::libraries(rootfs, program)? {
        layer.file(&library.name, 0o755, library.bytes);
    }
    Ok(layer)
}

fn add_shell(layer: &mut Layer, rootfs: &Path) -> anyhow::Result<()> {
    let busybox: PathBuf = rootfs.join("usr/bin/busybox");
    let bytes =
        std::fs::read(&busybox).with_context(|| format!("reading {}", busybox.display()))?;
    layer.file("bin/busybox", 0o755, bytes);
    for applet in APPLETS.split_whitespace() {
        layer.link(&format!("bin/{applet}"), "busybox");
    }
    let nobody = "nobody:x:65534:65534:nobody:/:/bin/sh\n";
    let passwd = format!("root:x:0:0:root:/root:/bin/sh\n{nobody}");
    layer.file("etc/passwd", 0o644, passwd.into_bytes());
    layer.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n".to_vec());
    layer.directory("root", 0o700);
    layer.directory("tmp", 0o1777);
    Ok(())
}

fn write_layout(recipe: &Recipe, layers: &[Layer], dir: &Path) -> anyhow::Result<()> {
    let mut layout = Layout::create(dir)?;
    let layers =
        layers.iter().map(|layer| layout.layer(layer)).collect::<anyhow::Result<Vec<_>>>()?;
    let config = Config {
        entrypoint: vec![recipe.path.to_owned()],
        env: vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()],
        working_dir: "/".to_owned(),
        ..Config::default()
    };
    layout.image(recipe.reference, &config, &layers)?;
    layout.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::store::hex;

    #[test]
    fn archives_are_complete_and_equal_for_equal_content() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let mut layer = Layer::default();
            layer.file("/a/b/prog", 0o755, b"elf".to_vec());
            layer.link("bin/sh", "busybox");
            let work = dir.path().join(name);
            write_layout(&RECIPES[0], &[layer], &work).unwrap();
            let out = dir.path().join(format!("{name}.tar"));
            archive(&work, &out).unwrap();
            std::fs::read(out).unwrap()
        };
        let bytes = make("one");
        assert_eq!(bytes, make("two"));
        let mut names = Vec::new();
        let mut index = Value::Null;
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            if name == "index.json" {
                index = serde_json::from_reader(entry).unwrap();
            } else if let Some(digest) = name.strip_prefix("blobs/sha256/") {
                if digest.is_empty() {
                    continue;
                }
                let mut body = Vec::new();
                std::io::copy(&mut { entry }, &mut body).unwrap();
                assert_eq!(hex(&Sha256::digest(&body)), digest);
            }
            names.push(name);
        }
        assert_eq!(names.iter().filter(|n| n.starts_with("blobs/sha256/")).count(), 3);
        let annotations = &index["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], "registry.k8s.io/pause:3.10");
    }
}
