//! The container images that a worker carries from the start, as OCI archives
//! (image-spec v1: a tar file with `oci-layout`, `index.json` and content-addressed blobs).
//!
//! Two layers each: the C library, which all share, and the program. Layers are not compressed:
//! they are never sent over a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::elf;
use crate::store::hex;

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

/// What goes into a tar archive, by path; sorted, so that equal contents give equal bytes.
#[derive(Default)]
struct Layer(BTreeMap<String, Entry>);

enum Entry {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(String),
}

impl Layer {
    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Entry::Directory(0o755));
        }
        self.0.insert(path.to_owned(), entry);
    }

    fn tar(&self) -> anyhow::Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_ustar();
            header.set_mtime(u64::try_from(crate::SOURCE_DATE_EPOCH)?);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match entry {
                Entry::Directory(mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    builder.append_data(&mut header, format!("{path}/"), &[][..])?;
                }
                Entry::File(mode, bytes) => {
                    header.set_mode(*mode);
                    header.set_size(bytes.len() as u64);
                    builder.append_data(&mut header, path, &bytes[..])?;
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(builder.into_inner()?)
    }
}

/// Writes the archive of one image. `binaries` holds the programs, stripped; libraries and busybox
/// come out of `rootfs`.
///
/// # Errors
/// The program is missing or needs a library that the image lacks.
pub fn write(recipe: &Recipe, rootfs: &Path, binaries: &Path, out: &Path) -> anyhow::Result<()> {
    let program = binaries.join(recipe.binary);
    let mut libraries = Layer::default();
    for library in elf::libraries(rootfs, &program)? {
        libraries.add(&library.name, Entry::File(0o755, library.bytes));
    }
    let mut own = Layer::default();
    let bytes =
        std::fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    own.add(recipe.path, Entry::File(0o755, bytes));
    if recipe.shell {
        add_shell(&mut own, rootfs)?;
    }
    archive(recipe, &[libraries.tar()?, own.tar()?], out)
}

fn add_shell(layer: &mut Layer, rootfs: &Path) -> anyhow::Result<()> {
    let busybox: PathBuf = rootfs.join("usr/bin/busybox");
    let bytes =
        std::fs::read(&busybox).with_context(|| format!("reading {}", busybox.display()))?;
    layer.add("bin/busybox", Entry::File(0o755, bytes));
    for applet in APPLETS.split_whitespace() {
        layer.add(&format!("bin/{applet}"), Entry::Link("busybox".into()));
    }
    let nobody = "nobody:x:65534:65534:nobody:/:/bin/sh\n";
    let passwd = format!("root:x:0:0:root:/root:/bin/sh\n{nobody}");
    layer.add("etc/passwd", Entry::File(0o644, passwd.into_bytes()));
    layer.add("etc/group", Entry::File(0o644, b"root:x:0:\nnogroup:x:65534:\n".to_vec()));
    layer.add("root", Entry::Directory(0o700));
    layer.add("tmp", Entry::Directory(0o1777));
    Ok(())
}

fn archive(recipe: &Recipe, layers: &[Vec<u8>], out: &Path) -> anyhow::Result<()> {
    let mut blobs = Layer::default();
    let mut keep = |bytes: Vec<u8>, media_type: &str| -> Value {
        let digest = hex(&Sha256::digest(&bytes));
        let size = bytes.len();
        blobs.add(&format!("blobs/sha256/{digest}"), Entry::File(0o644, bytes));
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
    };
    let descriptors: Vec<Value> = layers
        .iter()
        .map(|bytes| keep(bytes.clone(), "application/vnd.oci.image.layer.v1.tar"))
        .collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {
            "Entrypoint": [recipe.path],
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "WorkingDir": "/",
        },
        // Uncompressed layers: the digest of the content is the digest of the blob.
        "rootfs": {
            "type": "layers",
            "diff_ids": descriptors.iter().map(|d| d["digest"].clone()).collect::<Vec<_>>(),
        },
    });
    let config = keep(serde_json::to_vec(&config)?, "application/vnd.oci.image.config.v1+json");
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": descriptors,
    });
    let mut manifest = keep(serde_json::to_vec(&manifest)?, manifest_type);
    let tag = recipe.reference.rsplit(':').next().unwrap_or_default();
    manifest["platform"] = json!({"architecture": "amd64", "os": "linux"});
    manifest["annotations"] = json!({
        "io.containerd.image.name": recipe.reference,
        "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
    blobs.add("oci-layout", Entry::File(0o644, layout));
    blobs.add("index.json", Entry::File(0o644, serde_json::to_vec(&index)?));
    std::fs::write(out, blobs.tar()?).with_context(|| format!("writing {}", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_complete_and_equal_for_equal_content() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let mut layer = Layer::default();
            layer.add("/a/b/prog", Entry::File(0o755, b"elf".to_vec()));
            layer.add("bin/sh", Entry::Link("busybox".into()));
            let out = dir.path().join(name);
            archive(&RECIPES[0], &[layer.tar().unwrap()], &out).unwrap();
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
