//! When pods were bound, as a watch of all bound pods tells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::body::Incoming;
use lab::process::Process;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::subjects::api::{Call, Client, next_chunk};

/// How often is looked whether all are there.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// An open watch. It ends when this is dropped.
pub struct Bindings {
    seen: Arc<Mutex<Seen>>,
    _stream: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    /// By batch: the number of each pod, and when it was first seen bound.
    batches: HashMap<String, HashMap<usize, Instant>>,
    /// Resource version of the last event.
    version: String,
    failure: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    resource_version: String,
}

impl Bindings {
    /// Watches what is bound from now on.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn watch(client: &Client) -> anyhow::Result<Self> {
        let list = client.read(0, &Call::get("/api/v1/pods?limit=1")).await?;
        let version = serde_json::from_slice::<Object>(&list)?.metadata.resource_version;
        let seen = Arc::new(Mutex::new(Seen { version, ..Seen::default() }));
        let mut body = open(client, &seen).await?;
        let (client, told, mut stream) = (client.clone(), seen.clone(), JoinSet::new());
        stream.spawn(async move {
            let failure = loop {
                if let Err(error) = follow(body, &told).await {
                    break error;
                }
                // Servers end watches that do not keep up; what was missed comes now.
                body = match open(&client, &told).await {
                    Ok(body) => body,
                    Err(error) => break error,
                };
            };
            lock(&told).failure = Some(format!("{failure:#}"));
        });
        Ok(Self { seen, _stream: stream })
    }

    /// Waits until `count` pods of a batch are bound.
    ///
    /// # Errors
    /// They are not in time, or `scheduler` ended.
    pub async fn wait(
        &self,
        scheduler: &mut Process,
        batch: &str,
        count: usize,
        within: Duration,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let bound = {
                let seen = lock(&self.seen);
                if let Some(failure) = &seen.failure {
                    bail!("watching bindings: {failure}");
                }
                seen.batches.get(batch).map_or(0, HashMap::len)
            };
            if bound >= count {
                return Ok(());
            }
            scheduler.check()?;
            if started.elapsed() > within {
                bail!("only {bound} of {count} pods were bound within {within:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// When the pods of a batch were bound, by number.
    pub fn of(&self, batch: &str) -> HashMap<usize, Instant> {
        lock(&self.seen).batches.get(batch).cloned().unwrap_or_default()
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().expect("no code panics while it holds this lock")
}

/// Watches from the last version that was seen.
async fn open(client: &Client, seen: &Mutex<Seen>) -> anyhow::Result<Incoming> {
    let query = "watch=true&allowWatchBookmarks=true&fieldSelector=spec.nodeName%21%3D";
    let path = format!("/api/v1/pods?{query}&resourceVersion={}", lock(seen).version);
    Ok(client.send(0, &Call::get(path)).await?.into_body())
}

/// Until the server ends the watch.
async fn follow(mut body: Incoming, seen: &Mutex<Seen>) -> anyhow::Result<()> {
    let mut lines = Lines::default();
    while let Some(chunk) = next_chunk(&mut body).await? {
        let now = Instant::now();
        let mut seen = lock(seen);
        lines.feed(&chunk, |line| seen.take(line, now))?;
    }
    Ok(())
}

impl Seen {
    fn take(&mut self, line: &[u8], now: Instant) -> anyhow::Result<()> {
        let event: Event = serde_json::from_slice(line).context("an event")?;
        let Metadata { name, resource_version } = event.object.metadata;
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => {
                let (batch, number) = name.rsplit_once('-').context("a pod without a number")?;
                let number = number.parse().with_context(|| format!("pod {name}"))?;
                if let Some(pods) = self.batches.get_mut(batch) {
                    pods.entry(number).or_insert(now);
                } else {
                    self.batches.insert(batch.to_owned(), HashMap::from([(number, now)]));
                }
            }
            "DELETED" | "BOOKMARK" => {}
            other => bail!("{other}: {}", String::from_utf8_lossy(line)),
        }
        self.version = resource_version;
        Ok(())
    }
}

/// Cuts a stream into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn feed(
        &mut self,
        chunk: &[u8],
        mut line: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut parts = chunk.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            self.rest.extend_from_slice(part);
            if !self.rest.is_empty() {
                line(&self.rest)?;
            }
            self.rest.clear();
        }
        self.rest.extend_from_slice(last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_the_stream_is_cut() {
        let text = b"one\ntwo\n\nthree\nfo";
        for size in 1..=text.len() {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for chunk in text.chunks(size) {
                lines
                    .feed(chunk, |line| {
                        seen.push(String::from_utf8(line.to_vec()).unwrap());
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(seen, ["one", "two", "three"], "chunks of {size}");
        }
    }

    #[test]
    fn the_first_sight_of_a_bound_pod_counts() {
        let (mut seen, first) = (Seen::default(), Instant::now());
        let later = first + Duration::from_secs(1);
        let event = |kind: &str, name: &str| {
            format!(
                r#"{{"type":"{kind}","object":{{"kind":"Pod","metadata":{{"name":"{name}","resourceVersion":"9"}}}}}}"#
            )
        };
        for (kind, name, now) in [
            ("ADDED", "a-b-00000007", first),
            ("MODIFIED", "a-b-00000007", later),
            ("DELETED", "a-b-00000008", later),
            ("ADDED", "c-00000001", later),
        ] {
            seen.take(event(kind, name).as_bytes(), now).unwrap();
        }
        assert_eq!(seen.batches["a-b"], HashMap::from([(7, first)]));
        assert_eq!(seen.batches["c"], HashMap::from([(1, later)]));
        assert_eq!(seen.version, "9");
        assert!(seen.take(event("ERROR", "").as_bytes(), later).is_err());
    }
}
