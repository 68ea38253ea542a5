//! Keeps Marina's objects in place inside a tenant: add-ons, bootstrap tokens, and no Node
//! objects of workers that are gone.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context;
use hyper::{Method, StatusCode};
use provisioner_api::{pb, provider_id_prefix};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{
    client::TenantClient,
    drain,
    objects::{self, Object, Settings, TOKEN_LABEL},
};
use crate::board::Board;

/// Annotation with the hash of what was applied.
const APPLIED: &str = "marina.dev/applied";
/// Everything is looked at again this often, whatever happens.
const EVERY: Duration = Duration::from_secs(60);
/// After an error. Waiting for a starting API server costs this much latency.
const RETRY: Duration = Duration::from_millis(200);
const TOKEN_TTL: jiff::SignedDuration = jiff::SignedDuration::from_mins(60);
/// A token with less than this left is renewed.
const TOKEN_RENEW: jiff::SignedDuration = jiff::SignedDuration::from_mins(30);
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

/// Runs for ever.
pub async fn keep(
    cluster: String,
    client: Arc<TenantClient>,
    mut desired: watch::Receiver<Arc<pb::Bootstrap>>,
    board: Board,
) {
    let mut quiet = false;
    loop {
        let bootstrap = Arc::clone(&desired.borrow_and_update());
        let result = apply(&cluster, &client, &bootstrap, &board).await;
        let done = result.is_ok();
        let message = result.err().map(|error| format!("{error:#}")).unwrap_or_default();
        if !done && !quiet {
            tracing::debug!(cluster.id = cluster, message, "tenant objects are not in place yet");
        }
        quiet = !done;
        board.cluster(&cluster, |state| {
            let before = state.bootstrap.take().unwrap_or_default();
            // Once the objects were in place they stay so while the API server is away.
            state.bootstrap = Some(pb::BootstrapState { done: done || before.done, message });
        });
        let pause = if done { EVERY } else { RETRY };
        tokio::select! {
            _ = desired.changed() => {}
            () = tokio::time::sleep(pause) => {}
            // A Node that appears may be one of a worker that is gone.
            () = stale_node(&cluster, &bootstrap, &board), if done => {}
        }
    }
}

/// Returns when a Node is seen that should not be there.
async fn stale_node(cluster: &str, bootstrap: &pb::Bootstrap, board: &Board) {
    let mut changes = board.subscribe();
    loop {
        let stale = board.read(cluster, |state| {
            state.nodes.iter().any(|node| !bootstrap.node_names.contains(&node.name))
        });
        if stale == Some(true) {
            // Not at once: a Node that others made is left alone, and stays.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return;
        }
        if changes.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

async fn apply(
    cluster: &str,
    client: &TenantClient,
    bootstrap: &pb::Bootstrap,
    board: &Board,
) -> anyhow::Result<()> {
    let settings =
        Settings { dns_ip: bootstrap.dns_ip.clone(), dns_domain: bootstrap.dns_domain.clone() };
    for token in &bootstrap.tokens {
        ensure_token(client, token).await.context("bootstrap token")?;
    }
    for object in objects::objects(&settings) {
        ensure(client, object).await?;
    }
    remove_old_tokens(client, bootstrap).await.context("bootstrap tokens")?;
    remove_stale_nodes(cluster, client, bootstrap, board).await
}

/// Creates the object, or replaces it when what is wanted is not what was last applied.
async fn ensure(client: &TenantClient, object: Object) -> anyhow::Result<()> {
    let mut value = object.value;
    let hash: String =
        Sha256::digest(value.to_string()).iter().take(8).map(|b| format!("{b:02x}")).collect();
    value["metadata"]["annotations"][APPLIED] = Value::String(hash.clone());
    let name = value["metadata"]["name"].as_str().context("an object without a name")?;
    let path = format!("{}/{name}", object.collection);
    let existing = client.call(Method::GET, &path, None).await?;
    if existing.status == StatusCode::NOT_FOUND {
        let created = client.call(Method::POST, &object.collection, Some(&value)).await?;
        // Someone else was faster: the next round looks at theirs.
        if created.status != StatusCode::CONFLICT {
            created.ok().with_context(|| format!("creating {path}"))?;
        }
        return Ok(());
    }
    let existing = existing.ok()?;
    if existing["metadata"]["annotations"][APPLIED].as_str() == Some(hash.as_str()) {
        return Ok(());
    }
    value["metadata"]["resourceVersion"] = existing["metadata"]["resourceVersion"].clone();
    let replaced = client.call(Method::PUT, &path, Some(&value)).await?;
    replaced.ok().with_context(|| format!("replacing {path}"))?;
    Ok(())
}

async fn ensure_token(client: &TenantClient, token: &pb::BootstrapToken) -> anyhow::Result<()> {
    let path = format!("{SECRETS}/{}", objects::token_name(&token.id));
    let existing = client.call(Method::GET, &path, None).await?;
    let now = jiff::Timestamp::now();
    let end = jiff::Timestamp::from_second(now.as_second() + TOKEN_TTL.as_secs())?;
    let mut value =
        objects::bootstrap_token(&token.id, &token.secret, &token.node_name, &end.to_string());
    if existing.status == StatusCode::NOT_FOUND {
        let created = client.call(Method::POST, SECRETS, Some(&value)).await?;
        return created.ok().map(drop);
    }
    let existing = existing.ok()?;
    if expiration(&existing).is_some_and(|at| at.duration_since(now) > TOKEN_RENEW) {
        return Ok(());
    }
    value["metadata"]["resourceVersion"] = existing["metadata"]["resourceVersion"].clone();
    client.call(Method::PUT, &path, Some(&value)).await?.ok().map(drop)
}

fn expiration(secret: &Value) -> Option<jiff::Timestamp> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let raw = STANDARD.decode(secret["data"]["expiration"].as_str()?).ok()?;
    std::str::from_utf8(&raw).ok()?.parse().ok()
}

/// A node that has joined, or is gone, needs its token no more.
async fn remove_old_tokens(client: &TenantClient, bootstrap: &pb::Bootstrap) -> anyhow::Result<()> {
    let wanted: BTreeSet<String> =
        bootstrap.tokens.iter().map(|token| objects::token_name(&token.id)).collect();
    let path = format!("{SECRETS}?labelSelector={TOKEN_LABEL}");
    let list = client.call(Method::GET, &path, None).await?.ok()?;
    for secret in list["items"].as_array().into_iter().flatten() {
        let name = secret["metadata"]["name"].as_str().unwrap_or_default();
        if !wanted.contains(name) {
            delete(client, &format!("{SECRETS}/{name}")).await?;
        }
    }
    Ok(())
}

/// Only Nodes with this cluster's provider id are Marina's to delete. One whose worker still runs
/// is emptied first.
async fn remove_stale_nodes(
    cluster: &str,
    client: &TenantClient,
    bootstrap: &pb::Bootstrap,
    board: &Board,
) -> anyhow::Result<()> {
    let prefix = provider_id_prefix(cluster);
    let list = client.call(Method::GET, "/api/v1/nodes", None).await?.ok()?;
    for node in list["items"].as_array().into_iter().flatten() {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let ours = node["spec"]["providerID"].as_str().is_some_and(|id| id.starts_with(&prefix));
        if ours && !bootstrap.node_names.iter().any(|wanted| wanted == name) {
            if runs(cluster, name, board) && !drain::step(client, node).await? {
                continue;
            }
            tracing::info!(
                cluster.id = cluster,
                node = name,
                "removing a Node whose worker is gone"
            );
            delete(client, &format!("/api/v1/nodes/{name}")).await?;
        }
    }
    Ok(())
}

/// True when the Node is Ready and its worker is still there.
fn runs(cluster: &str, node: &str, board: &Board) -> bool {
    let runs = board.read(cluster, |state| {
        let is_ready = state.nodes.iter().any(|seen| seen.name == node && seen.ready);
        is_ready && state.workers.iter().any(|worker| worker.node_name == node)
    });
    runs.unwrap_or(false)
}

async fn delete(client: &TenantClient, path: &str) -> anyhow::Result<()> {
    let deleted = client.call(Method::DELETE, path, None).await?;
    if deleted.status == StatusCode::NOT_FOUND {
        return Ok(());
    }
    deleted.ok().map(drop)
}
