//! The node image of a lab: the product's, with upstream's containerd and all test images.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use node_image::oci::archive;
use node_image::preload::{self, Archive};
use node_image::store::Store;
use node_image::{Manifest, tree};

use super::TestImages;
use super::list::Reference;
use super::programs::{self, Programs};

/// To be raised when this file makes something else of the same inputs.
const RECIPE: &str = "1";

/// Upstream's programs that replace Debian's. runc stays.
const RUNTIME: &[&str] = &["containerd", "containerd-shim-runc-v2", "ctr"];

/// How many variants are kept beside the current one: they cost little more than what differs.
const SPARE_VARIANTS: usize = 4;

/// containerd's state in a root file system.
const CONTAINERD: &str = "var/lib/containerd";

/// A node image as the sandbox driver wants it: `rootfs`, `manifest.json` and `lock` in a
/// directory. It stays there while this value lives.
#[derive(Debug)]
pub struct LabImage {
    /// The directory.
    pub dir: PathBuf,
    _lock: File,
}

impl LabImage {
    fn open(dir: PathBuf) -> anyhow::Result<Self> {
        Ok(Self { _lock: super::hold(&dir)?, dir })
    }
}

/// Makes the node image in the cache directory `cache`, or finds it there. `product` is the baked image, the
/// directory or a link to it. Nodes ask `registry`, `host:port` and without encryption, for what
/// they do not have.
///
/// # Errors
/// An input is missing or not built, or containerd refuses an image.
pub fn node_image(
    cache: &Path,
    product: &Path,
    programs: Programs<'_>,
    images: &TestImages,
    registry: &str,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<LabImage> {
    for name in RUNTIME {
        programs.get(name)?;
    }
    let product = product.canonicalize().with_context(|| {
        format!("there is no node image at {}: run `cargo xtask image`", product.display())
    })?;
    let _in_use = super::hold(&product)?;
    let store = Store::open(cache, progress)?;
    let manifest = manifest(&product)?;
    let digests = programs.digests(&store, RUNTIME)?;
    let key =
        super::key([RECIPE, &manifest.inputs, &format!("{digests:?}"), &images.key(), registry]);
    let name = format!("node-{key}");
    let dir = match store.find(&name) {
        Some(dir) => dir,
        None => {
            let work = store.scratch()?;
            let rootfs = work.path().join("rootfs");
            progress("lab image: root file system");
            root_file_system(&product, programs, images, registry, &rootfs)?;
            progress("lab image: importing container images (some seconds, once)");
            import(&rootfs, images, work.path())?;
            let lab = lab_manifest(manifest, &key, digests, images);
            finish(work.path(), &lab)?;
            store.keep(work, &name)?
        }
    };
    store.collect("node-", &dir, super::SPARE)?;
    LabImage::open(dir)
}

/// Makes an image that differs from `image` in some files, or finds it in the cache. Each
/// replacement is a path in the root file system and the file that is to be there, executable.
///
/// # Errors
/// A file is missing, or the cache cannot be written.
pub fn variant(
    cache: &Path,
    image: &LabImage,
    replacements: &[(&str, &Path)],
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<LabImage> {
    let store = Store::open(cache, progress)?;
    let manifest = manifest(&image.dir)?;
    let mut files = Vec::new();
    for (path, file) in replacements {
        let file = file.canonicalize().with_context(|| format!("no {}", file.display()))?;
        files.push((path.trim_start_matches('/'), file));
    }
    files.sort();
    let paths: Vec<PathBuf> = files.iter().map(|(_, file)| file.clone()).collect();
    let digests = store.digests(&paths)?;
    let digests: Vec<(&str, &str)> =
        files.iter().map(|(path, file)| (*path, digests[file].as_str())).collect();
    let key = super::key([RECIPE, &manifest.inputs, &format!("{digests:?}")]);
    let name = format!("variant-{key}");
    let dir = match store.find(&name) {
        Some(dir) => dir,
        None => {
            progress("lab image: a variant of it");
            let work = store.scratch()?;
            let rootfs = work.path().join("rootfs");
            tree::link_or_copy(&image.dir.join("rootfs"), &rootfs)?;
            for (path, file) in &files {
                tree::install(&rootfs.join(path), &programs::content(file)?, 0o755)?;
            }
            let mut manifest = manifest;
            manifest.inputs = key;
            let name_of = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
            let names = digests.iter().map(|(path, digest)| (name_of(path), (*digest).to_owned()));
            manifest.programs.extend(names);
            finish(work.path(), &manifest)?;
            store.keep(work, &name)?
        }
    };
    store.collect("variant-", &dir, SPARE_VARIANTS)?;
    LabImage::open(dir)
}

fn manifest(image: &Path) -> anyhow::Result<Manifest> {
    let path = image.join("manifest.json");
    let bytes = fs::read(&path).with_context(|| {
        format!("{} is no finished node image: run `cargo xtask image`", image.display())
    })?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
}

/// Everything but the test images. Files are the product's own by hard links, other than what is
/// replaced and containerd's state, which containerd is going to write into.
fn root_file_system(
    product: &Path,
    programs: Programs<'_>,
    images: &TestImages,
    registry: &str,
    rootfs: &Path,
) -> anyhow::Result<()> {
    let from = product.join("rootfs");
    tree::link_or_copy(&from, rootfs)?;
    tree::remove(&rootfs.join(CONTAINERD))?;
    tree::copy(&from.join(CONTAINERD), &rootfs.join(CONTAINERD))?;
    for name in RUNTIME {
        let path = programs.get(name)?;
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        tree::install(&rootfs.join("usr/bin").join(name), &bytes, 0o755)?;
    }
    let mirror = mirror(registry);
    for host in hosts(images) {
        let path = rootfs.join("etc/containerd/certs.d").join(host).join("hosts.toml");
        tree::install(&path, mirror.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// The registries that the images are named after.
fn hosts(images: &TestImages) -> Vec<&str> {
    let host = |text| Reference::parse(text).map(|parts| parts.host);
    let mut hosts: Vec<&str> = images.images.iter().filter_map(|i| host(&i.reference)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// What makes containerd ask the lab's registry instead of a host of the world.
fn mirror(registry: &str) -> String {
    format!(
        "server = \"http://{registry}\"\n\n\
         [host.\"http://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    )
}

fn import(rootfs: &Path, images: &TestImages, work: &Path) -> anyhow::Result<()> {
    let file = work.join("images.tar");
    archive(&images.dir.join("layout"), &file)?;
    let references = images.images.iter().map(|image| image.reference.clone()).collect();
    let archives = [Archive { file: file.clone(), references }];
    preload::import(rootfs, &archives, &rootfs.join(CONTAINERD))?;
    fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
}

fn lab_manifest(
    product: Manifest,
    key: &str,
    runtime: std::collections::BTreeMap<&str, String>,
    images: &TestImages,
) -> Manifest {
    let mut lab = Manifest { inputs: key.to_owned(), ..product };
    // A sandbox boots from the tree alone.
    lab.files.clear();
    lab.images.extend(images.images.iter().map(|image| image.reference.clone()));
    lab.programs.extend(runtime.into_iter().map(|(name, digest)| (name.to_owned(), digest)));
    lab
}

/// Writes what makes a directory an image.
fn finish(work: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let path = work.join("manifest.json");
    fs::write(&path, serde_json::to_vec_pretty(manifest)?)
        .and_then(|()| fs::write(work.join("lock"), ""))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image directory with one program.
    fn image(dir: &Path) -> PathBuf {
        let image = dir.join("image");
        tree::install(&image.join("rootfs/usr/local/bin/kubelet"), b"old", 0o755).unwrap();
        tree::install(&image.join("rootfs/etc/f"), b"same", 0o644).unwrap();
        let manifest = r#"{"version": 1, "inputs": "x", "suite": "s", "kernel": "k", "images": [],
            "programs": {"kubelet": "0"}, "files": {}, "packages": {}}"#;
        fs::write(image.join("manifest.json"), manifest).unwrap();
        fs::write(image.join("lock"), "").unwrap();
        image
    }

    #[test]
    fn a_variant_differs_in_the_replaced_files_and_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let image = LabImage::open(image(dir.path())).unwrap();
        let (cache, other) = (dir.path().join("cache"), dir.path().join("other"));
        fs::write(&other, "new").unwrap();
        let mut steps = 0;
        let mut make = || {
            let replacements = [("/usr/local/bin/kubelet", other.as_path())];
            variant(&cache, &image, &replacements, &mut |_| steps += 1).unwrap()
        };
        let (first, second) = (make(), make());
        assert_eq!((first.dir.as_path(), steps), (second.dir.as_path(), 1));
        let read = |dir: &Path, path: &str| fs::read_to_string(dir.join(path)).unwrap();
        assert_eq!(read(&first.dir, "rootfs/usr/local/bin/kubelet"), "new");
        assert_eq!(read(&first.dir, "rootfs/etc/f"), "same");
        assert_eq!(read(&image.dir, "rootfs/usr/local/bin/kubelet"), "old");
        assert_ne!(manifest(&first.dir).unwrap().programs["kubelet"], "0");
    }

    #[test]
    fn a_variant_in_use_stays_whatever_comes_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let image = LabImage::open(image(dir.path())).unwrap();
        let cache = dir.path().join("cache");
        let make = |content: usize| {
            let file = dir.path().join("f");
            fs::write(&file, content.to_string()).unwrap();
            variant(&cache, &image, &[("etc/f", &file)], &mut |_| {}).unwrap()
        };
        let held = make(0);
        for content in 1..4 + SPARE_VARIANTS {
            make(content);
        }
        assert!(held.dir.join("rootfs/etc/f").exists());
        let kept = fs::read_dir(&cache).unwrap().flatten();
        let variants = kept.filter(|e| e.file_name().to_string_lossy().starts_with("variant-"));
        assert!(variants.count() <= SPARE_VARIANTS + 2);
    }

    #[test]
    fn the_mirror_is_asked_without_encryption() {
        let text = mirror("10.0.0.1:5000");
        assert!(text.starts_with("server = \"http://10.0.0.1:5000\"\n"), "{text}");
        assert!(text.contains("[host.\"http://10.0.0.1:5000\"]"), "{text}");
    }
}
