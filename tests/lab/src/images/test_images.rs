//! Makes all test images, or finds them in the cache.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use node_image::command::run;
use node_image::oci::{self, Config, Descriptor, Layer, Layout};
use node_image::store::Store;
use serde::{Deserialize, Serialize};

use super::list::{self, Reference};
use super::programs::{self, Programs};
use super::recipes::{Below, Item, RECIPES, Recipe};
use super::{base, registry};

/// To be raised when code here makes something else of the same recipes.
const RECIPE: &str = "2";

/// Prints which images the tests use.
const E2E_TEST: &str = "e2e.test";

/// What processes in the images find programs by.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The test images, as they are in the cache. They stay there while this value lives.
#[derive(Debug)]
pub struct TestImages {
    /// A directory with `layout` (an OCI image layout with all images) and `registry` (the same
    /// as the storage of upstream's `registry`; hard links).
    pub dir: PathBuf,
    /// What was made, by reference.
    pub images: Vec<TestImage>,
    /// What upstream's tests name and was not made.
    pub missing: Vec<Missing>,
    _lock: File,
}

/// An image that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestImage {
    /// Its full reference.
    pub reference: String,
    /// Its manifest.
    pub manifest: Descriptor,
}

/// An image that was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its full reference.
    pub reference: String,
    /// Why.
    pub reason: String,
}

/// `images.json` in the directory of the test images.
#[derive(Default, Serialize, Deserialize)]
struct Contents {
    images: Vec<TestImage>,
    missing: Vec<Missing>,
}

impl TestImages {
    /// The reference of the first image that is made by the recipe of `repository`.
    pub fn reference(&self, repository: &str) -> Option<&str> {
        let is_of = |text: &&str| Reference::parse(text).is_some_and(|r| r.is_of(repository));
        self.images.iter().map(|image| image.reference.as_str()).find(is_of)
    }

    /// Changes with everything in the images.
    pub(super) fn key(&self) -> String {
        super::key(self.images.iter().flat_map(|i| [&i.reference, &i.manifest.digest]))
    }
}

/// Makes the images in the cache directory `cache`, or finds them there.
///
/// # Errors
/// `e2e.test` is not built, Debian packages cannot be fetched, or the cache cannot be written.
pub fn test_images(
    cache: &Path,
    programs: Programs<'_>,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<TestImages> {
    let store = Store::open(cache, progress)?;
    let e2e_test = programs.get(E2E_TEST)?;
    progress("test images: looking at the programs");
    let name = format!("images-{}", key(&store, programs)?);
    let dir = match store.find(&name) {
        Some(dir) => dir,
        None => {
            let rootfs = base::ensure(&store, progress)?;
            let work = store.scratch()?;
            progress("test images: asking upstream's tests for their list");
            let mut wanted = list::ask(&e2e_test)?;
            wanted.extend(name_server(programs)?);
            make(work.path(), &rootfs, programs, &wanted, progress)?;
            store.keep(work, &name)?
        }
    };
    store.collect("images-", &dir, super::SPARE)?;
    let path = dir.join("images.json");
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let Contents { images, missing } =
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
    Ok(TestImages { _lock: super::hold(&dir)?, dir, images, missing })
}

fn key(store: &Store, programs: Programs<'_>) -> anyhow::Result<String> {
    let mut names: Vec<&str> = RECIPES.iter().flat_map(Recipe::programs).collect();
    names.push(E2E_TEST);
    let digests = programs.digests(store, &names)?;
    let recipes = format!("{RECIPES:?}{digests:?}");
    Ok(super::key([RECIPE, &base::key(), PATH, &recipes]))
}

/// The name of upstream's name server's image, if the program is built: no test asks for it.
fn name_server(programs: Programs<'_>) -> anyhow::Result<Option<String>> {
    let Some(coredns) = programs.find("coredns") else { return Ok(None) };
    let output = run(Command::new(&coredns).arg("-version")).context("asking for its version")?;
    let text = String::from_utf8_lossy(&output);
    let version = text.lines().find_map(|line| line.strip_prefix("CoreDNS-"));
    let version = version
        .with_context(|| format!("{} -version prints no version", coredns.display()))?
        .trim();
    Ok(Some(format!("registry.k8s.io/coredns/coredns:v{version}")))
}

fn make(
    work: &Path,
    rootfs: &Path,
    programs: Programs<'_>,
    wanted: &[String],
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let dir = work.join("layout");
    let mut builder = Builder::new(Layout::create(&dir)?, rootfs, programs)?;
    let mut contents = Contents::default();
    for reference in wanted {
        let missing = |reason| Missing { reference: reference.clone(), reason };
        let recipe = Reference::parse(reference).and_then(|parts| Recipe::of(&parts));
        let Some(recipe) = recipe else {
            contents.missing.push(missing("there is no recipe for it".to_owned()));
            continue;
        };
        if let Some(name) = recipe.programs().find(|name| programs.find(name).is_none()) {
            contents.missing.push(missing(format!("{name} is not built")));
            continue;
        }
        progress(&format!("test images: {reference}"));
        let manifest = builder.image(reference, recipe).with_context(|| reference.clone())?;
        contents.images.push(TestImage { reference: reference.clone(), manifest });
    }
    if contents.images.is_empty() {
        bail!("no program of a test image is built: run `cargo xtask upstream`");
    }
    builder.layout.finish()?;
    registry::write(&dir, &contents.images, &work.join("registry"))?;
    fs::write(work.join("images.json"), serde_json::to_vec_pretty(&contents)?)?;
    // Whoever uses the images holds a shared lock on it.
    fs::write(work.join("lock"), "")?;
    Ok(())
}

/// Stores layers once, however many images have them.
struct Builder<'a> {
    layout: Layout,
    rootfs: &'a Path,
    programs: Programs<'a>,
    certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
    /// By a text that says everything about the layer.
    layers: BTreeMap<String, Descriptor>,
}

impl<'a> Builder<'a> {
    fn new(layout: Layout, rootfs: &'a Path, programs: Programs<'a>) -> anyhow::Result<Self> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let certificate = rcgen::generate_simple_self_signed(names)
            .context("making a certificate for the test images")?;
        Ok(Self { layout, rootfs, programs, certificate, layers: BTreeMap::new() })
    }

    fn image(&mut self, reference: &str, recipe: &Recipe) -> anyhow::Result<Descriptor> {
        let mut layers = vec![self.layer(format!("{:?}", recipe.below), |b| b.below(recipe))?];
        for program in self.bare_programs(recipe)? {
            let libraries = oci::libraries(self.rootfs, &program)?;
            if !libraries.is_empty() {
                let name = format!("libraries of {}", program.display());
                layers.push(self.layer(name, |_| Ok(libraries))?);
            }
        }
        for items in recipe.layers {
            layers.push(self.layer(format!("{items:?}"), |b| b.items(items))?);
        }
        let texts = |list: &[&str]| list.iter().copied().map(str::to_owned).collect();
        let tag = Reference::parse(reference).map_or("", |parts| parts.tag);
        // Two tags of one recipe are two images, as they are upstream: a runtime that is asked for
        // one must not answer with the other's name.
        let label = ("org.opencontainers.image.version".to_owned(), tag.to_owned());
        let config = Config {
            entrypoint: texts(recipe.entrypoint),
            cmd: texts(recipe.cmd),
            env: vec![PATH.to_owned()],
            working_dir: "/".to_owned(),
            labels: BTreeMap::from([label]),
        };
        self.layout.image(reference, &config, &layers)
    }

    /// The programs that find no libraries in what the image lies on.
    fn bare_programs(&self, recipe: &Recipe) -> anyhow::Result<Vec<PathBuf>> {
        let busybox = self.rootfs.join(base::BUSYBOX);
        let mut found = match recipe.below {
            Below::Debian => return Ok(Vec::new()),
            Below::Busybox => vec![busybox, self.rootfs.join(base::SHELL)],
            Below::Nothing => Vec::new(),
        };
        for name in recipe.programs() {
            found.push(self.programs.get(name)?);
        }
        Ok(found)
    }

    fn layer(
        &mut self,
        name: String,
        make: impl FnOnce(&Self) -> anyhow::Result<Layer>,
    ) -> anyhow::Result<Descriptor> {
        if let Some(found) = self.layers.get(&name) {
            return Ok(found.clone());
        }
        let layer = make(self)?;
        let stored = self.layout.layer(&layer)?;
        self.layers.insert(name, stored.clone());
        Ok(stored)
    }

    fn below(&self, recipe: &Recipe) -> anyhow::Result<Layer> {
        match recipe.below {
            Below::Debian => Layer::from_tree(self.rootfs),
            Below::Busybox => base::busybox(self.rootfs),
            Below::Nothing => Ok(base::skeleton()),
        }
    }

    fn items(&self, items: &[Item]) -> anyhow::Result<Layer> {
        let mut layer = Layer::default();
        for item in items {
            match item {
                Item::Program(path, mode, name) => {
                    layer.file(path, *mode, programs::content(&self.programs.get(name)?)?);
                }
                Item::Text(path, text) => layer.file(path, 0o644, text.as_bytes().to_vec()),
                Item::Link(path, target) => layer.link(path, target),
                Item::Directory(path) => layer.directory(path, 0o755),
                Item::Certificate(path, key) => {
                    layer.file(path, 0o644, self.certificate.cert.pem().into_bytes());
                    let pem = self.certificate.signing_key.serialize_pem();
                    layer.file(key, 0o644, pem.into_bytes());
                }
            }
        }
        Ok(layer)
    }
}

#[cfg(test)]
mod tests {
    use node_image::tree;
    use serde_json::Value;

    use super::*;

    fn json(path: PathBuf) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn tags_share_layers_and_differ_and_what_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let [work, upstream, none] = ["work", "upstream", "none"].map(|n| dir.path().join(n));
        fs::create_dir(&work).unwrap();
        // The header of a program without sections and segments: a static one.
        let mut header = b"\x7fELF\x02\x01".to_vec();
        header.resize(64, 0);
        tree::install(&upstream.join("etcd"), &header, 0o755).unwrap();
        let wanted = ["etcd:1", "etcd:2", "e2e-test-images/agnhost:1", "e2e-test-images/perl:5"]
            .map(|name| format!("r.test/{name}"));
        let programs = Programs { upstream: &upstream, ours: &none };
        make(&work, &none, programs, &wanted, &mut |_| {}).unwrap();
        let contents: Contents =
            serde_json::from_slice(&fs::read(work.join("images.json")).unwrap()).unwrap();
        let made: Vec<&str> = contents.images.iter().map(|i| i.reference.as_str()).collect();
        assert_eq!(made, [&wanted[0], &wanted[1]]);
        let missing: Vec<&str> = contents.missing.iter().map(|i| i.reason.as_str()).collect();
        assert_eq!(missing, ["coredns is not built", "there is no recipe for it"]);
        let manifests: Vec<Value> = contents
            .images
            .iter()
            .map(|image| {
                let hash = image.manifest.digest.strip_prefix("sha256:").unwrap();
                json(work.join("layout/blobs/sha256").join(hash))
            })
            .collect();
        assert_eq!(manifests[0]["layers"], manifests[1]["layers"]);
        assert_eq!(manifests[0]["layers"].as_array().unwrap().len(), 2);
        assert_ne!(manifests[0]["config"], manifests[1]["config"]);
        let index = json(work.join("layout/index.json"));
        assert_eq!(index["manifests"][1]["annotations"]["io.containerd.image.name"], wanted[1]);
    }
}
