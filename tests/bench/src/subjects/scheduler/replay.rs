//! Makes and removes what a workload needs, through the API.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::templates::{self, INDEX};
use super::workloads::{Batch, NAMESPACES, Workload};
use crate::drive::{Load, Sample, drive};
use crate::subjects::api::{Body, Call, Client, Media, Stencil};

/// Requests in flight.
const CREATORS: usize = 64;
/// How long it may take to make or remove everything.
const WITHIN: Duration = Duration::from_secs(900);

/// Objects of a list: what is needed to remove them.
#[derive(Deserialize)]
struct List {
    /// Null when there are none.
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

/// Makes the namespaces, and the Service in one of them.
pub async fn namespaces(client: &Client) -> anyhow::Result<()> {
    for name in NAMESPACES {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        post(client, 0, "/api/v1/namespaces", Body::json(namespace.to_string())).await?;
    }
    let service = Body::json(templates::service().to_string());
    post(client, 0, "/api/v1/namespaces/served/services", service).await
}

/// Removes all pods and all nodes, and makes the workload's nodes.
pub async fn nodes(client: &Client, workload: &Workload, count: usize) -> anyhow::Result<()> {
    remove_pods(client).await?;
    remove(client, "/api/v1/nodes").await?;
    let zones: Vec<_> = match workload.zones {
        [] => vec![None],
        zones => zones.iter().copied().map(Some).collect(),
    };
    let stencil = |zone, tainted| Stencil::protobuf(&templates::node(zone, tainted), &[INDEX]);
    let plain: Vec<_> =
        zones.iter().map(|zone| stencil(*zone, false)).collect::<anyhow::Result<_>>()?;
    let tainted = stencil(zones[0], true)?;
    let load = Load { clients: CREATORS, operations: count, within: WITHIN };
    let made = drive(load, 0, async |worker, index| {
        let form = match workload.tainted && index % 5 == 4 {
            true => &tainted,
            false => &plain[index % plain.len()],
        };
        let body = Body::protobuf(form.fill(&[&format!("{index:08}")])?);
        post(client, worker, "/api/v1/nodes", body).await
    });
    ensure!(made.await?.done() == count, "not all nodes were made in time");
    Ok(())
}

/// Removes all pods.
pub async fn remove_pods(client: &Client) -> anyhow::Result<()> {
    remove(client, "/api/v1/pods").await
}

async fn remove(client: &Client, path: &str) -> anyhow::Result<()> {
    let (prefix, resource) = path.rsplit_once('/').context("a path without a slash")?;
    loop {
        let list = client.read(0, &Call::get(path).accept(Media::Metadata)).await?;
        let list: List = serde_json::from_slice(&list).context(path.to_owned())?;
        let items = list.items.unwrap_or_default();
        if items.is_empty() {
            return Ok(());
        }
        let load = Load { clients: CREATORS, operations: items.len(), within: WITHIN };
        drive(load, 0, async |worker, index| {
            let Metadata { name, namespace } = &items[index].metadata;
            let path = match namespace.as_str() {
                "" => format!("{prefix}/{resource}/{name}"),
                namespace => format!("{prefix}/namespaces/{namespace}/{resource}/{name}"),
            };
            client.read(worker, &Call::delete(path).accept(Media::Protobuf)).await?;
            Ok(())
        })
        .await?;
    }
}

/// The pods of one batch, whose names begin with `name`.
pub struct Pods {
    stencil: Stencil,
    path: String,
    /// When each was sent, by number.
    sent: RefCell<HashMap<usize, Instant>>,
}

impl Pods {
    /// Makes none yet.
    ///
    /// # Errors
    /// The template cannot be encoded.
    pub fn new(batch: Batch, name: &str) -> anyhow::Result<Self> {
        let stencil = Stencil::protobuf(&templates::pod(batch.kind, name), &[INDEX])?;
        let path = format!("/api/v1/namespaces/{}/pods", batch.namespace);
        Ok(Self { stencil, path, sent: RefCell::default() })
    }

    /// Creates the pod with a number.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create(&self, client: &Client, worker: usize, index: usize) -> anyhow::Result<()> {
        let body = Body::protobuf(self.stencil.fill(&[&format!("{index:08}")])?);
        self.sent.borrow_mut().insert(index, Instant::now());
        post(client, worker, &self.path, body).await
    }

    /// Creates `count` pods as fast as it goes, or one per `pace`.
    ///
    /// # Errors
    /// The API server refuses one.
    pub async fn create_all(
        &self,
        client: &Client,
        count: usize,
        pace: Option<Duration>,
    ) -> anyhow::Result<()> {
        let Some(pace) = pace else {
            let load = Load { clients: CREATORS, operations: count, within: WITHIN };
            let create = async |worker, index| self.create(client, worker, index).await;
            ensure!(drive(load, 0, create).await?.done() == count, "not all pods in time");
            return Ok(());
        };
        let mut ticks = tokio::time::interval(pace);
        for index in 0..count {
            ticks.tick().await;
            self.create(client, index, index).await?;
        }
        Ok(())
    }

    /// How long each took from creation to binding, sorted; and from the first creation to the last
    /// binding.
    pub fn until(&self, bound: &HashMap<usize, Instant>) -> (Vec<Duration>, Duration) {
        let sent = self.sent.borrow();
        let mut latencies: Vec<_> = bound
            .iter()
            .filter_map(|(index, at)| Some(at.saturating_duration_since(*sent.get(index)?)))
            .collect();
        latencies.sort_unstable();
        let elapsed = match (sent.values().min(), bound.values().max()) {
            (Some(first), Some(last)) => last.saturating_duration_since(*first),
            _ => Duration::ZERO,
        };
        (latencies, elapsed)
    }
}

/// What the API server and this client are capable of: pods that are created and bound without a
/// scheduler, each to the next node.
pub async fn bind_all(
    client: &Client,
    batch: Batch,
    count: usize,
    nodes: usize,
) -> anyhow::Result<Sample> {
    let pods = Pods::new(batch, "floor")?;
    let load = Load { clients: CREATORS, operations: count, within: WITHIN };
    drive(load, 0, async |worker, index| {
        pods.create(client, worker, index).await?;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": format!("floor-{index:08}")},
            "target": {"apiVersion": "v1", "kind": "Node", "name": format!("node-{:08}", index % nodes)},
        });
        let path = format!("{}/floor-{index:08}/binding", pods.path);
        post(client, worker, &path, Body::json(binding.to_string())).await
    })
    .await
}

async fn post(client: &Client, worker: usize, path: &str, body: Body) -> anyhow::Result<()> {
    let call = Call::with_body(Method::POST, path, body).accept(Media::Protobuf);
    client.read(worker, &call).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::scheduler::workloads::Kind;

    #[test]
    fn latencies_run_from_each_creation_and_time_from_the_first() {
        let pods = Pods::new(Batch { kind: Kind::Plain, namespace: "bench" }, "m").unwrap();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        pods.sent.borrow_mut().extend([(0, at(0)), (1, at(5))]);
        let (latencies, elapsed) = pods.until(&HashMap::from([(0, at(20)), (1, at(7))]));
        assert_eq!(latencies, [2, 20].map(Duration::from_millis));
        assert_eq!(elapsed, Duration::from_millis(20));
        assert_eq!(pods.until(&HashMap::new()), (Vec::new(), Duration::ZERO));
    }
}
