//! Images: makes sure that a container's image is there, with back-off after failed pulls, and
//! removes unused ones when the disk fills up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cri::{Runtime, pb};
use k8s_openapi::api::core::v1::Container;
use tokio::sync::Semaphore;

use crate::pods::backoff::Delay;

/// Why a container waits for its image: upstream's reason and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unavailable {
    pub reason: &'static str,
    pub message: String,
}

/// An image that is there.
#[derive(Clone, Debug)]
pub struct Present {
    /// What containers are created from.
    pub reference: String,
    /// The numeric user that the image asks for.
    pub uid: Option<i64>,
    /// The user by name, when it is not a number.
    pub username: String,
    /// How long the pull took and the image's size in bytes; `None` when it was there already.
    pub pulled: Option<(Duration, u64)>,
}

/// Pulls images for all pods of the node.
pub struct Images {
    runtime: Runtime,
    slots: Semaphore,
    backoff: Mutex<HashMap<String, Delay>>,
    /// When each image id was first seen unused.
    unused_since: Mutex<BTreeMap<String, Instant>>,
}

/// `IfNotPresent` unless the tag is (or defaults to) `latest`.
fn policy(container: &Container) -> &str {
    let image = container.image.as_deref().unwrap_or_default();
    match container.image_pull_policy.as_deref().filter(|p| !p.is_empty()) {
        Some(policy) => policy,
        None if tagged(image).ends_with(":latest") => "Always",
        None => "IfNotPresent",
    }
}

/// The reference with `:latest` when it has neither tag nor digest.
pub fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// Whether the text can be an image reference at all.
fn is_reference(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    let repository = name.rsplit_once('/').map_or(name, |(_, last)| last);
    let repository = repository.split(':').next().unwrap_or_default();
    !name.is_empty()
        && name.chars().all(fine)
        && !repository.is_empty()
        && !repository.chars().any(|c| c.is_ascii_uppercase())
        && !name.split('/').any(str::is_empty)
        && digest.is_none_or(|d| d.contains(':'))
}

fn spec(image: &str) -> pb::ImageSpec {
    pb::ImageSpec {
        image: image.to_owned(),
        user_specified_image: image.to_owned(),
        ..Default::default()
    }
}

impl Images {
    /// At most `parallel` pulls run at a time.
    pub fn new(runtime: Runtime, parallel: usize) -> Self {
        Self {
            runtime,
            slots: Semaphore::new(parallel),
            backoff: Mutex::default(),
            unused_since: Mutex::default(),
        }
    }

    async fn status(&self, image: &str) -> cri::Result<Option<pb::Image>> {
        let request = pb::ImageStatusRequest { image: Some(spec(image)), verbose: false };
        Ok(self.runtime.image_status(request).await?.image.filter(|i| !i.id.is_empty()))
    }

    /// Makes the container's image available by its pull policy. `on_pull` is called before a
    /// pull starts. Dropping the future gives the pull up.
    ///
    /// # Errors
    /// The reason that the container shows while it waits; the next try is due after
    /// [`Images::retry_at`].
    pub async fn ensure(
        &self,
        container: &Container,
        auths: &[pb::AuthConfig],
        sandbox: &pb::PodSandboxConfig,
        on_pull: impl FnOnce(),
    ) -> Result<Present, Unavailable> {
        let image = tagged(container.image.as_deref().unwrap_or_default());
        if !is_reference(&image) {
            let message =
                format!("Failed to apply default image tag {image:?}: couldn't parse image name");
            return Err(Unavailable { reason: "InvalidImageName", message });
        }
        let inspect = |e: cri::Error| Unavailable {
            reason: "ImageInspectError",
            message: format!("Failed to inspect image {image:?}: {e}"),
        };
        let have = self.status(&image).await.map_err(inspect)?;
        match (policy(container), have) {
            ("IfNotPresent" | "Never", Some(found)) => return Ok(present(found, None)),
            ("Never", None) => {
                let message =
                    format!("Container image {image:?} is not present with pull policy of Never");
                return Err(Unavailable { reason: "ErrImageNeverPull", message });
            }
            _ => {}
        }
        if self.retry_at(&image).is_some() {
            let message = format!("Back-off pulling image {image:?}");
            return Err(Unavailable { reason: "ImagePullBackOff", message });
        }
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        on_pull();
        let started = Instant::now();
        if let Err(error) = self.pull(&image, auths, sandbox).await {
            let mut backoff = self.backoff.lock().expect("no holder panics");
            backoff.entry(image.clone()).or_default().bump(Instant::now());
            let message = format!("failed to pull image {image:?}: {error}");
            return Err(Unavailable { reason: "ErrImagePull", message });
        }
        self.backoff.lock().expect("no holder panics").remove(&image);
        let found = self
            .status(&image)
            .await
            .map_err(inspect)?
            .unwrap_or_else(|| pb::Image { id: image.clone(), ..Default::default() });
        let took = (started.elapsed(), found.size);
        Ok(present(found, Some(took)))
    }

    async fn pull(
        &self,
        image: &str,
        auths: &[pb::AuthConfig],
        sandbox: &pb::PodSandboxConfig,
    ) -> cri::Result<()> {
        let mut last = None;
        let anonymous = [None];
        let tries = auths.iter().map(Some).collect::<Vec<_>>();
        let tries = if tries.is_empty() { anonymous.as_slice() } else { tries.as_slice() };
        for auth in tries {
            let request = pb::PullImageRequest {
                image: Some(spec(image)),
                auth: auth.cloned(),
                sandbox_config: Some(sandbox.clone()),
            };
            match self.runtime.pull_image(request).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("at least one try was made"))
    }

    /// When a pull of the image may be tried again; `None` is now.
    pub fn retry_at(&self, image: &str) -> Option<Instant> {
        let backoff = self.backoff.lock().expect("no holder panics");
        backoff.get(&tagged(image)).and_then(|delay| delay.wait_until(Instant::now()))
    }

    /// Removes images that no container uses and that have been unused for `min_age`, oldest
    /// first, until `bytes` are freed. Pinned ones stay.
    ///
    /// # Errors
    /// When the runtime does not list its images or containers.
    pub async fn remove_unused(&self, bytes: u64, min_age: Duration) -> cri::Result<u64> {
        let containers =
            self.runtime.list_containers(pb::ListContainersRequest::default()).await?.containers;
        let mut used = HashSet::new();
        for container in containers {
            used.insert(container.image_ref);
            used.insert(container.image_id);
            used.insert(container.image.unwrap_or_default().image);
        }
        let images = self.runtime.list_images(pb::ListImagesRequest::default()).await?.images;
        let in_use = |i: &pb::Image| {
            used.contains(&i.id)
                || i.repo_tags.iter().chain(&i.repo_digests).any(|name| used.contains(name))
        };
        let idle: Vec<_> = images.into_iter().filter(|i| !i.pinned && !in_use(i)).collect();
        let candidates = {
            let mut since = self.unused_since.lock().expect("no holder panics");
            since.retain(|id, _| idle.iter().any(|i| i.id == *id));
            let now = Instant::now();
            let mut old: Vec<_> =
                idle.into_iter().map(|i| (*since.entry(i.id.clone()).or_insert(now), i)).collect();
            old.retain(|(at, _)| now.duration_since(*at) >= min_age);
            old.sort_by_key(|(at, _)| *at);
            old
        };
        let mut freed = 0;
        for (_, image) in candidates {
            if freed >= bytes {
                break;
            }
            tracing::info!(image.id, image.bytes = image.size, "removing an unused image");
            self.runtime
                .remove_image(pb::RemoveImageRequest { image: Some(spec(&image.id)) })
                .await?;
            freed += image.size;
        }
        Ok(freed)
    }
}

fn present(image: pb::Image, pulled: Option<(Duration, u64)>) -> Present {
    Present {
        reference: image.id,
        uid: image.uid.map(|u| u.value),
        username: image.username,
        pulled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_policies() {
        assert_eq!(tagged("busybox"), "busybox:latest");
        assert_eq!(tagged("r:5000/a"), "r:5000/a:latest");
        assert_eq!(tagged("r:5000/a:1"), "r:5000/a:1");
        assert_eq!(tagged("a@sha256:x"), "a@sha256:x");
        let container = |image: &str| Container { image: Some(image.into()), ..Default::default() };
        assert_eq!(policy(&container("a")), "Always");
        assert_eq!(policy(&container("a:1")), "IfNotPresent");
    }

    #[test]
    fn references() {
        for good in ["a", "a:1", "r.io/x/y:1", "r:5000/a@sha256:00", "marina.dev/demo:v1"] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", "A B", "x/Nginx", "a//b", ":latest", "Nginx"] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}
