//! The order of the steps, and what each is keyed by.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::base::{self, Base};
use crate::manifest::Manifest;
use crate::store::{self, Store, hex};
use crate::{disk, elf, initrd, oci, preload, tree};

/// To be raised when code in this crate changes an image without changing its inputs.
const RECIPE: &str = "1";

/// How many unused older images are kept, for a quick way back.
const SPARE_IMAGES: usize = 1;

/// What to build from and where to.
pub struct Options {
    /// Directory with our programs, one file each under its own name.
    pub bin_dir: PathBuf,
    /// Kept between builds; everything is in a directory `bake` in it.
    pub cache_dir: PathBuf,
    /// Becomes a link to the finished image directory.
    pub out: PathBuf,
    /// Debian mirror, instead of the one in the machine's own apt configuration.
    pub mirror: Option<String>,
    /// Whether to fetch packages although the list of packages is unchanged.
    pub refresh_base: bool,
}

/// A finished image.
pub struct Image {
    /// The directory itself, not the link to it.
    pub dir: PathBuf,
    /// Its content.
    pub manifest: Manifest,
}

/// Builds the image, or finds it in the cache; `progress` is told each step in words.
///
/// # Errors
/// A program is missing, packages cannot be fetched, a directory cannot be written, or this is not
/// run by root.
pub fn build(options: &Options, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Image> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the image is built as root: its files belong to root and to system users");
    }
    let store = Store::open(&options.cache_dir.join("bake"), progress)?;
    let digests = program_digests(&store, &options.bin_dir)?;
    let base = base::ensure(&store, options.mirror.as_deref(), options.refresh_base, progress)?;
    let inputs = digest_of(&base, &digests);
    let name = format!("node-{}", &inputs[..16]);
    let dir = match store.find(&name) {
        Some(dir) => {
            progress("node image: nothing has changed, reusing it");
            dir
        }
        None => make(&store, &base, options, &digests, &inputs, &name, progress)?,
    };
    store.publish(&dir, &options.out)?;
    store.collect("node-", &dir, SPARE_IMAGES)?;
    let bytes = fs::read(dir.join("manifest.json")).context("reading manifest.json")?;
    let manifest = serde_json::from_slice(&bytes).context("manifest.json")?;
    Ok(Image { dir, manifest })
}

/// Our programs: those of the node, and those that become container images.
fn programs() -> impl Iterator<Item = &'static str> {
    tree::PROGRAMS.iter().copied().chain(oci::RECIPES.iter().map(|r| r.binary))
}

fn program_digests(store: &Store, bin_dir: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let dir = bin_dir
        .canonicalize()
        .with_context(|| format!("the directory of binaries, {}", bin_dir.display()))?;
    let missing: Vec<&str> = programs().filter(|name| !dir.join(name).is_file()).collect();
    if !missing.is_empty() {
        bail!("{} has no {}: build them first", dir.display(), missing.join(", "));
    }
    let paths: Vec<PathBuf> = programs().map(|name| dir.join(name)).collect();
    let found = store.digests(&paths)?;
    Ok(programs().map(|name| (name.to_owned(), found[&dir.join(name)].clone())).collect())
}

fn digest_of(base: &Base, programs: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    add(RECIPE);
    add(&base.key);
    for (name, digest) in programs {
        add(name);
        add(digest);
    }
    for (path, text) in tree::FILES {
        add(path);
        add(text);
    }
    hex(&hash.finalize())
}

fn make(
    store: &Store,
    base: &Base,
    options: &Options,
    digests: &BTreeMap<String, String>,
    inputs: &str,
    name: &str,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<PathBuf> {
    let stripped = store.scratch()?;
    for program in programs() {
        elf::strip(&options.bin_dir.join(program), &stripped.path().join(program))?;
    }
    let images = container_images(store, base, digests, stripped.path(), progress)?;
    let work = store.scratch()?;
    progress("node image: root file system");
    let rootfs = work.path().join("rootfs");
    tree::make(base, stripped.path(), &images, &rootfs)?;
    progress("node image: initial RAM disk");
    initrd::write(&rootfs, &base.kernel_version, &work.path().join("initrd.img"))?;
    fs::copy(&base.vmlinuz, work.path().join("vmlinuz")).context("copying the kernel")?;
    progress("node image: disk");
    disk::write(&base.rootfs, &rootfs, &work.path().join("disk.raw"))?;
    // Workers hold a shared lock on it while they run, see `Store::collect`.
    fs::write(work.path().join("lock"), "")?;
    progress("node image: digests");
    let manifest = manifest(work.path(), base, digests, inputs)?;
    fs::write(work.path().join("manifest.json"), serde_json::to_vec_pretty(&manifest)?)?;
    store.keep(work, name)
}

/// containerd's store with the preloaded images; made again only when one of them changes.
fn container_images(
    store: &Store,
    base: &Base,
    digests: &BTreeMap<String, String>,
    binaries: &Path,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(RECIPE);
    hash.update(&base.key);
    for recipe in oci::RECIPES {
        hash.update(recipe.reference);
        hash.update(&digests[recipe.binary]);
    }
    let name = format!("images-{}", &hex(&hash.finalize())[..16]);
    let dir = match store.find(&name) {
        Some(dir) => dir,
        None => {
            progress("node image: container images");
            let work = store.scratch()?;
            let mut archives = Vec::new();
            for recipe in oci::RECIPES {
                let path = work.path().join(format!("{}.tar", recipe.binary));
                oci::write(recipe, &base.rootfs, binaries, &path)
                    .with_context(|| format!("container image {}", recipe.reference))?;
                let references = vec![recipe.reference.to_owned()];
                archives.push(preload::Archive { file: path, references });
            }
            let root = work.path().join("containerd");
            fs::create_dir(&root)?;
            preload::import(&base.rootfs, &archives, &root)?;
            for archive in archives {
                fs::remove_file(archive.file)?;
            }
            store.keep(work, &name)?
        }
    };
    store.collect("images-", &dir, 0)?;
    Ok(dir.join("containerd"))
}

fn manifest(
    dir: &Path,
    base: &Base,
    programs: &BTreeMap<String, String>,
    inputs: &str,
) -> anyhow::Result<Manifest> {
    let mut files = BTreeMap::new();
    for name in ["vmlinuz", "initrd.img", "disk.raw"] {
        files.insert(name.to_owned(), store::sha256_of(&dir.join(name))?);
    }
    let split = |line: &str| line.split_once(' ').map(|(n, v)| (n.to_owned(), v.to_owned()));
    Ok(Manifest {
        version: 1,
        inputs: inputs.to_owned(),
        suite: crate::SUITE.to_owned(),
        kernel: base.kernel_version.clone(),
        images: oci::RECIPES.iter().map(|r| r.reference.to_owned()).collect(),
        programs: programs.clone(),
        files,
        packages: base.packages.lines().filter_map(split).collect(),
    })
}
