//! The storage of upstream's `registry` (distribution), filled from an OCI image layout: blobs by
//! digest, and for each repository what it may serve.
//!
//! ```text
//! docker/registry/v2/blobs/sha256/ab/abcd…/data
//! docker/registry/v2/repositories/<name>/_layers/sha256/abcd…/link
//! docker/registry/v2/repositories/<name>/_manifests/revisions/sha256/abcd…/link
//! docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use node_image::oci::Descriptor;
use serde::Deserialize;
use serde_json::json;

use super::TestImage;
use super::list::Reference;

/// What a registry must know of a manifest.
#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Writes the storage to `root`; blobs are hard links to those in `layout`.
///
/// # Errors
/// The layout is not complete, or `root` cannot be written.
pub fn write(layout: &Path, images: &[TestImage], root: &Path) -> anyhow::Result<()> {
    let storage = Storage { layout, root: root.join("docker/registry/v2") };
    for image in images {
        let context = || format!("registry storage for {}", image.reference);
        let parts = Reference::parse(&image.reference).with_context(context)?;
        storage.image(&parts, &image.manifest.digest).with_context(context)?;
    }
    Ok(())
}

/// The configuration (YAML, of which JSON is a part) of a registry that serves `root` at `address`
/// without encryption, and takes nothing.
pub fn configuration(root: &Path, address: &str) -> String {
    let storage = json!({
        "filesystem": {"rootdirectory": root},
        "maintenance": {"readonly": {"enabled": true}, "uploadpurging": {"enabled": false}},
    });
    let log = json!({"level": "warn", "accesslog": {"disabled": true}});
    json!({"version": "0.1", "log": log, "storage": storage, "http": {"addr": address}}).to_string()
}

struct Storage<'a> {
    layout: &'a Path,
    root: PathBuf,
}

impl Storage<'_> {
    fn image(&self, name: &Reference<'_>, digest: &str) -> anyhow::Result<()> {
        let bytes = fs::read(self.source(hash(digest)?)).context("reading the manifest")?;
        let manifest: Manifest = serde_json::from_slice(&bytes).context("the manifest")?;
        let repository = self.root.join("repositories").join(name.repository);
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            self.blob(&blob.digest)?;
            let dir = repository.join("_layers/sha256").join(hash(&blob.digest)?);
            link(&dir, &blob.digest)?;
        }
        self.blob(digest)?;
        let manifests = repository.join("_manifests");
        link(&manifests.join("revisions/sha256").join(hash(digest)?), digest)?;
        let tag = manifests.join("tags").join(name.tag);
        link(&tag.join("current"), digest)?;
        link(&tag.join("index/sha256").join(hash(digest)?), digest)
    }

    fn source(&self, hash: &str) -> PathBuf {
        self.layout.join("blobs/sha256").join(hash)
    }

    fn blob(&self, digest: &str) -> anyhow::Result<()> {
        let hash = hash(digest)?;
        let start = hash.get(..2).context("a digest is too short")?;
        let dir = self.root.join("blobs/sha256").join(start).join(hash);
        if dir.exists() {
            return Ok(());
        }
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        fs::hard_link(self.source(hash), dir.join("data"))
            .with_context(|| format!("linking blob {digest}"))
    }
}

/// What the registry calls a link: a file that holds a digest.
fn link(dir: &Path, digest: &str) -> anyhow::Result<()> {
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(dir.join("link"), digest))
        .with_context(|| format!("writing {}", dir.display()))
}

fn hash(digest: &str) -> anyhow::Result<&str> {
    digest.strip_prefix("sha256:").with_context(|| format!("{digest} is no SHA-256"))
}

#[cfg(test)]
mod tests {
    use node_image::oci::{Config, Layer, Layout};

    use super::*;

    #[test]
    fn a_repository_serves_its_tag_and_all_blobs_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("layout");
        let mut layout = Layout::create(&from).unwrap();
        let mut layer = Layer::default();
        layer.file("f", 0o644, b"x".to_vec());
        let layer = layout.layer(&layer).unwrap();
        let reference = "r.test/team/image:1.0";
        let layers = std::slice::from_ref(&layer);
        let manifest = layout.image(reference, &Config::default(), layers).unwrap();
        layout.finish().unwrap();
        let image = TestImage { reference: reference.to_owned(), manifest: manifest.clone() };
        let root = dir.path().join("registry");
        write(&from, &[image], &root).unwrap();

        let root = root.join("docker/registry/v2");
        let repository = root.join("repositories/team/image");
        let tag = fs::read_to_string(repository.join("_manifests/tags/1.0/current/link")).unwrap();
        assert_eq!(tag, manifest.digest);
        let layer = layer.digest.strip_prefix("sha256:").unwrap();
        assert!(repository.join("_layers/sha256").join(layer).join("link").exists());
        let data = root.join("blobs/sha256").join(&layer[..2]).join(layer).join("data");
        assert_eq!(
            fs::read(data).unwrap(),
            fs::read(from.join("blobs/sha256").join(layer)).unwrap()
        );
        assert_eq!(fs::read_dir(repository.join("_layers/sha256")).unwrap().count(), 2);
    }
}
