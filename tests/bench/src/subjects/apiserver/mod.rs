//! kube-apiserver over TLS, with its store on the client's processor.

mod config_maps;
mod memory;
mod objects;
mod pods;
mod stamps;
mod watch;

use std::time::Duration;

use anyhow::Context;
use http::Method;
use lab::mix::{Mix, Origin, Part};
use serde_json::json;

use self::memory::Memory;
use super::api::{Body, Call, Client, Identity, Media, Plane, Role, thousands};
use crate::bench::Bench;
use crate::drive::{Load, drive};
use crate::figures::{Figures, Unit};
use crate::rounds::{Entry, Scene, Subject};

/// The subject.
pub const ENTRY: Entry = Entry {
    name: "apiserver",
    part: Part::ApiServer,
    about: "The API server alone on its processor, with an empty store at the start of every turn; the \
            store, TLS in between, on the client's. Both servers get the same flags. The client speaks HTTP/2 over TLS \
            with a client certificate, is no administrator (so rules are looked up and, in upstream, \
            fairness applies), and sends its next request when the last one is answered. *JSON* is what \
            kubectl and most programs speak; *protobuf* is what client-go speaks: the body is protobuf, \
            and the answer too if the server can, else JSON. Pods are those of an ordinary Deployment, \
            5.5 kB in JSON; ConfigMaps have 100 kB. *From the cache* is a list at resource version 0. The \
            lag of a watch runs from the sending of a write to the arrival of its event at one of the \
            watchers, all of which are this one client. *PSS per* object or watch is a difference, garbage \
            included; Go's runtime also reports what is live after a collection, and new objects may fit \
            into the free heap that it keeps.",
    start: |_| Ok(Box::new(ApiServer)),
};

/// Where everything lives.
const NAMESPACE: &str = "bench";
/// Who asks.
const USER: &str = "bench";
/// Connections of a concurrent workload.
const CONNECTIONS: usize = 16;
/// Clients of a concurrent workload with small objects.
const CLIENTS: usize = 64;
/// How long it may take to make what a workload needs.
const FILL_WITHIN: Duration = Duration::from_secs(600);

struct ApiServer;

impl Subject for ApiServer {
    fn scenes(&self, _bench: &Bench) -> Vec<Scene> {
        vec![Scene::new("both on upstream's etcd"), Scene::new("each on its own etcd")]
    }

    fn turn(
        &mut self,
        bench: &Bench,
        scene: usize,
        origin: Origin,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let store = if scene == 0 { Origin::Upstream } else { origin };
        let mix = Mix::all(origin).with(Part::Etcd, store);
        let mut plane = Plane::start(bench, &mix, Role::UnderTest, &[])?;
        let name = "start, empty store, to /readyz";
        figures.add(name, "", Unit::Seconds, plane.started_in.as_secs_f64());
        figures.add(name, "", Unit::CpuSeconds, plane.server.used()?.as_secs_f64());
        let user = bench.block_on(admit(&plane))?;
        let many = bench.block_on(Client::connect(&user, CONNECTIONS))?;
        let idle = Memory::of(bench, &plane.server, &many)?;
        figures.memory("PSS, idle", "", idle.pss);
        if !bench.quick {
            figures.cpu("idle for a second", "", bench.idle(&plane.server)?);
        }
        {
            let mut run = Run { bench, plane: &plane, figures, many: many.clone() };
            pods::measure(&mut run, &idle)?;
            config_maps::measure(&mut run)?;
        }
        start_again(bench, &mut plane, figures)?;
        let started = Memory::of(bench, &plane.server, &many)?;
        figures.memory("PSS, started with these objects", "", started.pss);
        watch::measure(bench, &plane, &user, &started, figures)
    }
}

/// Starts the server with all objects, without what it took to make them.
fn start_again(bench: &Bench, plane: &mut Plane, figures: &mut Figures) -> anyhow::Result<()> {
    let before = plane.server.used()?;
    let took = plane.restart(bench)?;
    let [pods, config_maps] = [pods::count(bench), config_maps::count(bench)].map(thousands);
    let name = format!("start, {pods} pods and {config_maps} ConfigMaps, to /readyz");
    figures.add(&name, "", Unit::Seconds, took.as_secs_f64());
    figures.add(&name, "", Unit::CpuSeconds, (plane.server.used()? - before).as_secs_f64());
    Ok(())
}

/// Makes the namespace, and a user who may do everything in the way of most users: by a rule.
async fn admit(plane: &Plane) -> anyhow::Result<Identity> {
    let administrator = Client::connect(&plane.administrator()?, 1).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    });
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    // Its controller does not run here, and no pod is admitted without it.
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    for (path, object) in [
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding),
        ("/api/v1/namespaces", namespace),
        (accounts.as_str(), account),
    ] {
        let call = Call::with_body(Method::POST, path, Body::json(object.to_string()));
        administrator.read(0, &call).await?;
    }
    let user = Identity::new(&plane.files, USER, None)?;
    let client = Client::connect(&user, 1).await?;
    // The binding takes effect when the server's own watch has seen it.
    let pods = Call::get(format!("/api/v1/namespaces/{NAMESPACE}/pods?limit=1"));
    for _ in 0..200 {
        if client.read(0, &pods).await.is_ok() {
            return Ok(user);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.read(0, &pods).await.context("the user's rights did not take effect")?;
    Ok(user)
}

/// A turn while it measures requests.
struct Run<'a> {
    bench: &'a Bench,
    plane: &'a Plane,
    figures: &'a mut Figures,
    many: Client,
}

impl Run<'_> {
    fn load(&self, clients: usize, full: usize, quick: usize) -> Load {
        let within = Duration::from_secs(self.bench.either(30, 1));
        Load { clients, operations: self.bench.either(full, quick), within }
    }

    fn measure(
        &mut self,
        name: &str,
        load: Load,
        op: impl AsyncFn(usize, usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let named =
            format!("{name}, {} client{}", load.clients, if load.clients == 1 { "" } else { "s" });
        let sample = self.bench.measure(&self.plane.server, load, op);
        self.figures.sample(&named, &sample.with_context(|| named.clone())?);
        Ok(())
    }

    /// A workload that makes exactly `total` objects, the last of them unmeasured if time runs out.
    fn make(
        &mut self,
        name: &str,
        clients: usize,
        total: usize,
        make: impl AsyncFn(usize, usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let operations = all_but_warm_up(total);
        let within = Duration::from_secs(self.bench.either(60, 5));
        let made = std::cell::Cell::new(0);
        let counted = async |client: usize, index: usize| {
            make(client, index).await?;
            made.set(made.get() + 1);
            Ok(())
        };
        self.measure(name, Load { clients, operations, within }, counted)?;
        let first = made.get();
        let rest = Load { clients, operations: total - first, within: FILL_WITHIN };
        self.bench.block_on(drive(rest, first, counted))?;
        anyhow::ensure!(made.get() == total, "{name}: only {} of {total}", made.get());
        Ok(())
    }

    /// Enters the memory of the server, and what each of `count` things takes of it.
    fn memory_of(
        &mut self,
        (one, many): (&str, &str),
        count: usize,
        before: &Memory,
    ) -> anyhow::Result<()> {
        let now = Memory::of(self.bench, &self.plane.server, &self.many)?;
        self.figures.memory(&format!("PSS with {} {many}", thousands(count)), "", now.pss);
        now.enter_each(self.figures, one, count, before);
        Ok(())
    }
}

/// Operations that make `total` together with those that [`Bench::measure`] does before.
fn all_but_warm_up(total: usize) -> usize {
    let with_warm_up = |operations: usize| {
        let load = Load { clients: 1, operations, within: Duration::ZERO };
        operations + crate::bench::warm_up(load)
    };
    (0..=total).rev().find(|operations| with_warm_up(*operations) <= total).unwrap_or_default()
}

/// The name of a form in a headline.
fn named(media: Media) -> &'static str {
    match media {
        Media::Json => "JSON",
        Media::Protobuf => "protobuf",
        Media::Table => "table",
        Media::Metadata => "metadata",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_and_workload_make_all() {
        for total in [100, 1_000, 10_000] {
            let operations = all_but_warm_up(total);
            let load = Load { clients: 1, operations, within: Duration::ZERO };
            assert_eq!(operations + crate::bench::warm_up(load), total);
        }
    }
}
