//! The images of a lab: container images under the names that upstream's tests use, and the node
//! image that has them in its containerd from the start. No registry of the world is reachable
//! from a lab, and none is asked.
//!
//! ```text
//! Debian packages ─► base ──┐
//! upstream's programs ──────┴─► test images ─► OCI layout, registry storage
//! product's node image ─► containerd 2.x instead of Debian's ─┴─► lab image ─► variants
//! ```
//!
//! [`Set`] is what a lab uses; [`test_images`], [`node_image`] and [`variant`] are the steps behind
//! it. Which images there are, and under which tags, is what `e2e.test --list-images` prints; how
//! each is made is in [`recipes`], where a line is to be added for another one. An image without a
//! recipe, or whose program is not built, is not made and is named in [`TestImages::missing`].
//!
//! **Invariants**: what has a name in the cache is complete and never changes; equal inputs are
//! recognised and reused; what somebody uses (holds a lock on) is not removed. The product's image
//! is only read, though files are shared with it by hard links.

mod base;
mod list;
mod node;
mod programs;
mod recipes;
mod registry;
mod set;
mod test_images;

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use sha2::{Digest, Sha256};

pub use node::{LabImage, node_image, variant};
pub use programs::Programs;
pub use set::Set;
pub use test_images::{Missing, TestImage, TestImages, test_images};

/// How many unused older things of a kind are kept, for a quick way back.
const SPARE: usize = 1;

/// Keeps a finished directory from being collected, for as long as the returned file is open.
fn hold(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    file.lock_shared().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// A name for what is made from `parts`: 16 hexadecimal digits.
fn key<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.as_ref().len() as u64).to_le_bytes());
        hash.update(part);
    }
    node_image::store::hex(&hash.finalize())[..16].to_owned()
}
