//! All images of a lab, and the registry that serves them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;

use super::{LabImage, Programs, TestImages, node_image, registry, test_images, variant};
use crate::control::ADDRESS;
use crate::places::Places;
use crate::process::{Process, Spec};

/// The registry's port at the control plane's address.
const PORT: u16 = 5000;

/// The images of a lab. They stay in the cache while this value lives.
pub struct Set {
    places: Places,
    tests: TestImages,
    coredns: String,
    lab: LabImage,
    /// Variants that were asked for, so that they stay too.
    variants: Mutex<Vec<LabImage>>,
}

impl Set {
    /// Makes what is not in the cache: minutes when there is nothing, else an instant.
    ///
    /// # Errors
    /// The product's image or upstream's programs are not built.
    pub fn ensure(places: &Places, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        let programs = Programs { upstream: &places.upstream, ours: &places.ours };
        let tests = test_images(&places.cache, programs, progress)?;
        let coredns = tests
            .reference("coredns/coredns")
            .context("upstream's name server is not built: run `cargo xtask upstream`")?
            .to_owned();
        let address = address();
        let lab = node_image(&places.cache, &places.image, programs, &tests, &address, progress)?;
        Ok(Self { places: places.clone(), tests, coredns, lab, variants: Mutex::default() })
    }

    /// The node image with some files replaced: each a path in its root file system and the file
    /// that is to be there.
    ///
    /// # Errors
    /// A file is missing, or the cache cannot be written.
    pub fn node_image(&self, replacements: &[(&str, &Path)]) -> anyhow::Result<PathBuf> {
        let made = variant(&self.places.cache, &self.lab, replacements, &mut |_| {})?;
        let dir = made.dir.clone();
        self.variants.lock().unwrap_or_else(|broken| broken.into_inner()).push(made);
        Ok(dir)
    }

    /// The reference of upstream's name server.
    pub fn coredns(&self) -> &str {
        &self.coredns
    }

    /// The test images.
    pub fn tests(&self) -> &TestImages {
        &self.tests
    }

    /// Starts upstream's registry in the network namespace at `netns`, where nodes ask it for
    /// images that a test wants pulled. `group` is the control group of the lab; configuration and
    /// log are put into `logs`.
    ///
    /// # Errors
    /// It is not built or cannot be started.
    pub fn registry(&self, netns: &Path, group: &str, logs: &Path) -> anyhow::Result<Process> {
        fs::create_dir_all(logs).with_context(|| format!("making {}", logs.display()))?;
        let path = logs.join("registry.yml");
        let text = registry::configuration(&self.tests.dir.join("registry"), &address());
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        let mut spec = Spec::new("registry", self.places.upstream_tool("registry")?);
        spec.args = vec!["serve".into(), path.into()];
        spec.netns = Some(netns.to_owned());
        // It would look for a collector of traces otherwise.
        spec.env.push(("OTEL_TRACES_EXPORTER".to_owned(), "none".to_owned()));
        Process::start(spec, group, logs)
    }
}

fn address() -> String {
    format!("{ADDRESS}:{PORT}")
}
