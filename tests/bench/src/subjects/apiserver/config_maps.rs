//! Large objects: ConfigMaps of 100 kB.

use http::Method;

use super::memory::Memory;
use super::objects::{self, INDEX};
use super::{Body, Call, Media, NAMESPACE, Run, named};
use crate::bench::Bench;
use crate::subjects::api::{Stencil, thousands};

/// Bytes of each.
const SIZE: usize = 100_000;
/// Clients: every request moves 100 kB.
const CLIENTS: usize = 16;

/// How many there are.
pub fn count(bench: &Bench) -> usize {
    bench.either(1_000, 100)
}

/// Creates, reads and lists them. They stay.
pub fn measure(run: &mut Run<'_>) -> anyhow::Result<()> {
    let (many, total) = (run.many.clone(), count(run.bench));
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let all = thousands(total);
    let name = |index: usize| format!("large-{index:08}");
    let before = Memory::of(run.bench, &run.plane.server, &many)?;
    let stencil = Stencil::json(&objects::config_map(&format!("large-{INDEX}"), SIZE), &[INDEX])?;
    run.make("create ConfigMap of 100 kB, JSON", CLIENTS, total, async |client, index| {
        let body = Body::json(stencil.fill(&[&format!("{index:08}")])?);
        many.expect(client, &Call::with_body(Method::POST, &path, body), SIZE).await
    })?;
    run.memory_of(("ConfigMap of 100 kB", "ConfigMaps of 100 kB"), total, &before)?;
    for media in [Media::Json, Media::Protobuf] {
        let load = run.load(CLIENTS, 10_000, 200);
        let get = async |client, index: usize| {
            let call = Call::get(format!("{path}/{}", name(index % total))).accept(media);
            many.expect(client, &call, SIZE).await
        };
        run.measure(&format!("get ConfigMap of 100 kB, {}", named(media)), load, get)?;
    }
    for media in [Media::Json, Media::Protobuf] {
        let load = run.load(1, 20, 3);
        let call = Call::get(format!("{path}?resourceVersion=0")).accept(media);
        let list = async |client, _| many.expect(client, &call, total * SIZE).await;
        let name = format!("list {all} ConfigMaps of 100 kB, from the cache, {}", named(media));
        run.measure(&name, load, list)?;
    }
    Ok(())
}
