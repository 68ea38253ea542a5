//! Watches the tenant's Nodes: which are Ready, and where their pods are.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::Method;
use ipnet::Ipv4Net;
use provisioner_api::pb;
use serde_json::Value;

use super::client::TenantClient;
use crate::{
    board::Board,
    vpc::{namespace, range::Ranges},
};

const RETRY: Duration = Duration::from_millis(500);
/// Longest event line that is read.
const MAX_LINE: usize = 8 * 1024 * 1024;
/// A watch ends by itself after this; then everything is listed again.
const WATCH_SECONDS: u32 = 290;

/// Runs for ever: lists, watches, reports; starts again after any error.
pub async fn watch(cluster: String, client: Arc<TenantClient>, ranges: Ranges, board: Board) {
    let mut view = View { cluster, ranges, board, nodes: BTreeMap::new(), routes: BTreeMap::new() };
    loop {
        if let Err(error) = view.list_and_watch(&client).await {
            tracing::debug!(
                cluster.id = view.cluster,
                error = format!("{error:#}"),
                "cannot watch Nodes"
            );
        }
        tokio::time::sleep(RETRY).await;
    }
}

struct View {
    cluster: String,
    ranges: Ranges,
    board: Board,
    nodes: BTreeMap<String, pb::NodeState>,
    /// Pod network to worker, as it is in the namespace.
    routes: BTreeMap<Ipv4Net, Ipv4Addr>,
}

impl View {
    async fn list_and_watch(&mut self, client: &TenantClient) -> anyhow::Result<()> {
        let list = client.call(Method::GET, "/api/v1/nodes", None).await?.ok()?;
        self.nodes.clear();
        for node in list["items"].as_array().context("a list without items")? {
            self.put(node).await;
        }
        self.publish();
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        let path = format!(
            "/api/v1/nodes?watch=true&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}\
             &allowWatchBookmarks=true"
        );
        let response = client.send(Method::GET, &path, None).await?;
        if !response.status().is_success() {
            bail!("watch answered {}", response.status());
        }
        let mut body = response.into_body();
        let mut buffer = BytesMut::new();
        // A connection that died silently is noticed at the watch's own end at the latest.
        let limit = Duration::from_secs(u64::from(WATCH_SECONDS) + 15);
        while let Some(frame) = tokio::time::timeout(limit, body.frame()).await? {
            let Ok(data) = frame?.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1);
                self.event(&serde_json::from_slice(&line).context("reading an event")?).await?;
            }
            if buffer.len() > MAX_LINE {
                bail!("an event is too long");
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: &Value) -> anyhow::Result<()> {
        let object = &event["object"];
        match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") => self.put(object).await,
            Some("DELETED") => {
                self.nodes.remove(name(object));
            }
            Some("BOOKMARK") => {}
            // ERROR, usually because the version is too old: list again.
            _ => bail!("watch ended: {}", object["message"].as_str().unwrap_or("unknown event")),
        }
        self.publish();
        Ok(())
    }

    async fn put(&mut self, node: &Value) {
        let state = state_of(node);
        self.nodes.insert(state.name.clone(), state);
        if let Err(error) = self.route(node).await {
            tracing::warn!(
                cluster.id = self.cluster,
                error = format!("{error:#}"),
                "pod network cannot be routed"
            );
        }
    }

    /// Lets API servers reach pods. Both addresses come from the tenant: they must lie in its own
    /// ranges, or a Node object could redirect traffic.
    async fn route(&mut self, node: &Value) -> anyhow::Result<()> {
        let Some(pods) = node["spec"]["podCIDR"].as_str() else { return Ok(()) };
        let addresses = node["status"]["addresses"].as_array();
        let internal = addresses
            .into_iter()
            .flatten()
            .find(|address| address["type"] == "InternalIP")
            .and_then(|address| address["address"].as_str());
        let Some(via) = internal else { return Ok(()) };
        let (pods, via): (Ipv4Net, Ipv4Addr) = (pods.parse()?, via.parse()?);
        if !self.ranges.pods.contains(&pods) || !self.ranges.is_worker(via) {
            bail!("{pods} via {via} is outside the cluster's ranges");
        }
        if self.routes.get(&pods) != Some(&via) {
            namespace::add_route(&self.cluster, &pods.to_string(), &via.to_string()).await?;
            self.routes.insert(pods, via);
        }
        Ok(())
    }

    fn publish(&self) {
        let nodes: Vec<_> = self.nodes.values().cloned().collect();
        self.board.cluster(&self.cluster, |state| {
            state.nodes = nodes;
            state.nodes_known = true;
        });
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn state_of(node: &Value) -> pb::NodeState {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let status = ready.map_or("", |condition| condition["status"].as_str().unwrap_or_default());
    let text = |field: &str| {
        ready.and_then(|condition| condition[field].as_str()).unwrap_or_default().to_owned()
    };
    let message = match (status, text("message")) {
        ("True", _) => String::new(),
        (_, message) if message.is_empty() => "The kubelet has not reported yet.".to_owned(),
        (_, message) => format!("{}: {message}", text("reason")),
    };
    pb::NodeState { name: name(node).to_owned(), ready: status == "True", message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn readiness_comes_from_the_ready_condition() {
        let node = |status: &str| {
            json!({"metadata": {"name": "w1"}, "status": {"conditions": [
                {"type": "MemoryPressure", "status": "True"},
                {"type": "Ready", "status": status, "reason": "R", "message": "m"}]}})
        };
        assert!(state_of(&node("True")).ready);
        let unknown = state_of(&node("Unknown"));
        assert_eq!((unknown.ready, unknown.message.as_str()), (false, "R: m"));
        assert!(!state_of(&json!({"metadata": {"name": "w1"}})).ready);
    }
}
