//! Pods: create, get, list, patch, delete; and the heartbeats of their nodes.

use std::cell::RefCell;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::FutureExt;
use http::Method;

use super::memory::Memory;
use super::objects::{self, INDEX, NODE};
use super::{Body, CLIENTS, Call, Client, Media, NAMESPACE, Run, named};
use crate::bench::Bench;
use crate::subjects::api::{Stencil, next_chunk, thousands};

/// Nodes that the pods are on.
pub const NODES: usize = 1_000;
/// Clients that list: a list is large.
const LISTERS: usize = 2;
/// A page of a list, as kubectl and client-go ask for it.
const PAGE: usize = 500;
/// A pod has more bytes than this in any form.
const LEAST_POD: usize = 3_000;
/// Marks the end of what was there when a watch began.
const INITIAL_END: &[u8] = b"k8s.io/initial-events-end";
/// More than the event with that mark has.
const TAIL: usize = 2_048;

/// How many there are.
pub fn count(bench: &Bench) -> usize {
    bench.either(10_000, 1_000)
}

/// The collection.
pub fn path() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

/// Runs all workloads. The pods that it leaves are `bench-00000000` and so on.
pub fn measure(run: &mut Run<'_>, before: &Memory) -> anyhow::Result<()> {
    let total = count(run.bench);
    create(run, "bench", Media::Json, total)?;
    run.memory_of(("pod", "pods"), total, before)?;
    get(run)?;
    list(run)?;
    patch(run)?;
    heartbeats(run)?;
    let (many, others) = (run.many.clone(), run.bench.either(total, total / 2));
    create(run, "other", Media::Protobuf, others)?;
    run.make("delete pod", CLIENTS, others, async |client, index| {
        many.read(client, &Call::delete(pod_path("other", index))).await?;
        Ok(())
    })
}

fn pod_path(prefix: &str, index: usize) -> String {
    format!("{}/{prefix}-{index:08}", path())
}

fn create(run: &mut Run<'_>, prefix: &str, media: Media, total: usize) -> anyhow::Result<()> {
    let (object, gaps) = (objects::pod(prefix), [INDEX, NODE]);
    let stencil = match media {
        Media::Protobuf => Stencil::protobuf(&object, &gaps)?,
        _ => Stencil::json(&object, &gaps)?,
    };
    let many = run.many.clone();
    run.make(&format!("create pod, {}", named(media)), CLIENTS, total, async |client, index| {
        let bytes = stencil.fill(&[&format!("{index:08}"), &format!("{:04}", index % NODES)])?;
        let body = match media {
            Media::Protobuf => Body::protobuf(bytes),
            _ => Body::json(bytes),
        };
        many.read(client, &Call::with_body(Method::POST, path(), body).accept(media)).await?;
        Ok(())
    })
}

fn get(run: &mut Run<'_>) -> anyhow::Result<()> {
    let (many, total) = (run.many.clone(), count(run.bench));
    for (media, clients, full, quick) in [
        (Media::Json, 1, 20_000, 500),
        (Media::Json, CLIENTS, 100_000, 2_000),
        (Media::Protobuf, CLIENTS, 100_000, 2_000),
    ] {
        let get = async |client, index: usize| {
            let call = Call::get(pod_path("bench", scattered(index, total))).accept(media);
            let pod = many.read(client, &call).await?;
            ensure!(pod.len() >= LEAST_POD, "a pod of {} bytes", pod.len());
            Ok(())
        };
        let load = run.load(clients, full, quick);
        run.measure(&format!("get pod, {}", named(media)), load, get)?;
    }
    Ok(())
}

fn list(run: &mut Run<'_>) -> anyhow::Result<()> {
    let (many, total) = (run.many.clone(), count(run.bench));
    let cached = format!("{}?resourceVersion=0", path());
    let page = format!("{}?limit={PAGE}", path());
    let all = thousands(total);
    for (what, call, least) in [
        ("from the cache, JSON", Call::get(&cached), total * LEAST_POD),
        ("from the cache, protobuf", Call::get(&cached).accept(Media::Protobuf), total * LEAST_POD),
        ("consistent, JSON", Call::get(path()), total * LEAST_POD),
        ("first page of 500, JSON", Call::get(&page), PAGE * LEAST_POD),
        // A row has a few cells and the metadata.
        ("first page of 500, table", Call::get(&page).accept(Media::Table), PAGE * 500),
    ] {
        let (full, quick) = if least < total * LEAST_POD { (1_000, 10) } else { (60, 6) };
        let load = run.load(LISTERS, full, quick);
        run.measure(&format!("list {all} pods, {what}"), load, async |client, _| {
            many.expect(client, &call, least).await
        })?;
    }
    for media in [Media::Json, Media::Protobuf] {
        let load = run.load(LISTERS, 60, 6);
        let name = format!("watch that begins with {all} pods, {}", named(media));
        let least = total * LEAST_POD;
        run.measure(&name, load, async |client, _| {
            initial_events(&many, client, media, least).await
        })?;
    }
    Ok(())
}

/// What informers of today do instead of a list.
async fn initial_events(
    many: &Client,
    client: usize,
    media: Media,
    least: usize,
) -> anyhow::Result<()> {
    let query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true\
                 &resourceVersionMatch=NotOlderThan&resourceVersion=0";
    let call = Call::get(format!("{}?{query}", path())).accept(media);
    let mut body = many.send(client, &call).await?.into_body();
    let (mut tail, mut length) = (Vec::new(), 0);
    loop {
        let chunk = match next_chunk(&mut body).now_or_never() {
            Some(chunk) => chunk?,
            // Nothing follows the event with the mark for a while.
            None if tail.windows(INITIAL_END.len()).any(|window| window == INITIAL_END) => {
                ensure!(length >= least, "{length} bytes of events, less than {least}");
                return Ok(());
            }
            None => next_chunk(&mut body).await?,
        };
        let chunk = chunk.with_context(|| format!("no mark within {length} bytes of events"))?;
        length += chunk.len();
        tail.extend_from_slice(&chunk[chunk.len().saturating_sub(TAIL)..]);
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
}

fn patch(run: &mut Run<'_>) -> anyhow::Result<()> {
    let (many, total) = (run.many.clone(), count(run.bench));
    let stencil = Stencil::json(&objects::status(INDEX), &[INDEX])?;
    let load = run.load(CLIENTS, 20_000, 1_000);
    run.measure("patch pod status, JSON", load, async |client, index| {
        let path = format!("{}/status", pod_path("bench", index % total));
        let body = Body::strategic_patch(stencil.fill(&[&format!("{index:08}")])?);
        many.read(client, &Call::with_body(Method::PATCH, path, body)).await?;
        Ok(())
    })
}

/// Every client is a node with a lease, which it reads once and then updates.
fn heartbeats(run: &mut Run<'_>) -> anyhow::Result<()> {
    let many = run.many.clone();
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    let versions = vec![RefCell::new(String::new()); CLIENTS];
    let load = run.load(CLIENTS, 20_000, 1_000);
    run.measure("update Lease, JSON", load, async |client, _| {
        let name = format!("node-{client:04}");
        let held = versions[client].take();
        let (method, path) = match held.as_str() {
            "" => (Method::POST, leases.clone()),
            _ => (Method::PUT, format!("{leases}/{name}")),
        };
        let body = Body::json(objects::lease(&name, &held).to_string());
        let answer = many.read(client, &Call::with_body(method, path, body)).await?;
        versions[client].replace(version(&answer)?);
        Ok(())
    })
}

/// The resource version of an object or a list, in JSON.
pub fn version(object: &Bytes) -> anyhow::Result<String> {
    let object: serde_json::Value = serde_json::from_slice(object)?;
    let version = object["metadata"]["resourceVersion"].as_str();
    Ok(version.context("an object without a resource version")?.to_owned())
}

/// Visits all in no order that a cache would guess.
fn scattered(index: usize, count: usize) -> usize {
    index * 7_919 % count
}
