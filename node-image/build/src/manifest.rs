//! What an image directory says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `manifest.json` in an image directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's format.
    pub version: u32,
    /// Digest of everything that went in; two images with the same one are interchangeable.
    pub inputs: String,
    /// Debian release of the packages.
    pub suite: String,
    /// Version of the kernel.
    pub kernel: String,
    /// References of the preloaded container images.
    pub images: Vec<String>,
    /// SHA-256 of our programs as they were given, by name.
    pub programs: BTreeMap<String, String>,
    /// SHA-256 of the files that make up the image, by name.
    pub files: BTreeMap<String, String>,
    /// Debian packages and their versions.
    pub packages: BTreeMap<String, String>,
}
