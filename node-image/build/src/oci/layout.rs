//! An OCI image layout (image-spec v1) in a directory: `oci-layout`, `index.json` and blobs that
//! are named by their content, so images share the layers that they have in common.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Layer;
use crate::store::hex;

/// The media type of an image's manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A blob of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// How a container of an image is started; empty fields are left out of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// The program and its first arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Further arguments, which a pod's `args` replace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Where it starts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Facts about the image that nobody acts on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A layout that is being written.
pub struct Layout {
    dir: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    /// Starts a layout in the new or empty directory `dir`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(dir: &Path) -> anyhow::Result<Self> {
        let layout = Self { dir: dir.to_owned(), manifests: Vec::new() };
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
        layout.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }

    /// Stores a layer, uncompressed: the digest of the content is the digest of the blob.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn layer(&self, layer: &Layer) -> anyhow::Result<Descriptor> {
        self.blob(&layer.tar()?, "application/vnd.oci.image.layer.v1.tar")
    }

    /// Stores an image of `layers`, lowest first, under its full reference; returns its manifest.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn image(
        &mut self,
        reference: &str,
        config: &Config,
        layers: &[Descriptor],
    ) -> anyhow::Result<Descriptor> {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config =
            self.blob(&serde_json::to_vec(&config)?, "application/vnd.oci.image.config.v1+json")?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers,
        });
        let manifest = self.blob(&serde_json::to_vec(&manifest)?, MANIFEST_TYPE)?;
        let mut entry = serde_json::to_value(&manifest)?;
        entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
        let tag = reference.rsplit(':').next().unwrap_or_default();
        entry["annotations"] = json!({
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": tag,
        });
        self.manifests.push(entry);
        Ok(manifest)
    }

    /// Writes the index of all images.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self.manifests,
        });
        self.write("index.json", &serde_json::to_vec(&index)?)
    }

    fn blob(&self, bytes: &[u8], media_type: &str) -> anyhow::Result<Descriptor> {
        let hash = hex(&Sha256::digest(bytes));
        let name = format!("blobs/sha256/{hash}");
        if !self.dir.join(&name).exists() {
            self.write(&name, bytes)?;
        }
        let digest = format!("sha256:{hash}");
        Ok(Descriptor { media_type: media_type.to_owned(), digest, size: bytes.len() as u64 })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    }
}
