//! A whole control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, all ours
//! or all upstream's, without nodes.
//!
//! ```text
//! this program ──/readyz, TLS──► network namespace of tenant 1: four servers on 127.0.0.1
//!              └──────────────► network namespace of tenant 2: the same ports
//! ```
//!
//! Unlike other subjects it pins nothing: client and servers share every processor, because four
//! servers (and then as many times four as the machine carries) are measured as one.

mod many;
mod namespace;
mod tenant;

use std::time::Duration;

use anyhow::Context;
use lab::mix::{Origin, Part};

use self::tenant::{PARTS, Tenant};
use crate::bench::Bench;
use crate::figures::{Figures, Unit};
use crate::machine;
use crate::rounds::{Entry, Scene, Subject};

/// The subject.
pub const ENTRY: Entry = Entry {
    name: "control-plane",
    part: Part::ApiServer,
    about: "A tenant is etcd, kube-apiserver, kube-controller-manager and kube-scheduler, all ours or \
            all upstream's, with the flags of every lab, in a network namespace of its own, without \
            nodes. All tenants and the client share every processor: nothing is pinned, whatever the line \
            above says. *Create to ready* runs from the start of etcd, with the certificates made before, \
            until `/readyz` says ok and the default namespace is there; *to usable*, until the controller \
            manager has made the default ServiceAccount too. PSS and processor time are those of the \
            servers' processes at rest. *Tenants per machine*: one is started after the other; when it \
            rests, the tenants are asked for `/readyz` in turn, ten requests per second for ten seconds, \
            each over a new connection with TLS and a client certificate. The first tenant with which the \
            99th percentile passes one second twice in a row, or with which less than 15 % of the \
            machine's memory is available, or that is not usable within 120 s, is the last; the row with \
            its number says which. More than 60 (3 in a quick run) are not started.",
    start: |bench| {
        machine::use_all(bench.processors)?;
        Ok(Box::new(ControlPlane))
    },
};

/// A tenant is at rest when its servers use less than this together, for a second.
const REST: Duration = Duration::from_millis(100);

struct ControlPlane;

impl Subject for ControlPlane {
    fn scenes(&self, _bench: &Bench) -> Vec<Scene> {
        let many = Scene { name: "tenants per machine".to_owned(), most_rounds: 1 };
        vec![Scene::new("one tenant"), many]
    }

    fn turn(
        &mut self,
        bench: &Bench,
        scene: usize,
        origin: Origin,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        match scene {
            0 => one(bench, origin, figures),
            _ => many::measure(bench, origin, figures),
        }
    }
}

fn one(bench: &Bench, origin: Origin, figures: &mut Figures) -> anyhow::Result<()> {
    let tenant = Tenant::start(bench, origin, 1)?;
    let mut tenant = tenant.context("the tenant is not usable within two minutes")?;
    figures.add("create to ready", "", Unit::Seconds, tenant.ready_in.as_secs_f64());
    figures.add("create to usable", "", Unit::Seconds, tenant.usable_in.as_secs_f64());
    rest(bench, &tenant, bench.either(30, 10))?;
    let used: Duration = tenant.used()?.iter().sum();
    figures.add("create to rest", "", Unit::CpuSeconds, used.as_secs_f64());

    let pss = tenant.pss()?;
    for (part, bytes) in PARTS.iter().zip(&pss) {
        figures.memory("PSS, idle", part.executable(), *bytes);
    }
    figures.memory("PSS, idle", "all four", pss.iter().sum());

    let seconds = bench.either(30, 10);
    let before = tenant.used()?;
    bench.block_on(tokio::time::sleep(Duration::from_secs(seconds.into())));
    let each: Vec<_> = tenant.used()?.iter().zip(before).map(|(now, then)| *now - then).collect();
    for (part, used) in PARTS.iter().zip(&each) {
        figures.cpu("idle for a second", part.executable(), *used / seconds);
    }
    figures.cpu("idle for a second", "all four", each.iter().sum::<Duration>() / seconds);
    tenant.check()
}

/// Waits until a tenant has done what it does at its start: at least one second and at most so many.
fn rest(bench: &Bench, tenant: &Tenant, seconds: u32) -> anyhow::Result<()> {
    for _ in 0..seconds {
        let before: Duration = tenant.used()?.iter().sum();
        bench.block_on(tokio::time::sleep(Duration::from_secs(1)));
        if tenant.used()?.iter().sum::<Duration>() - before < REST {
            break;
        }
    }
    Ok(())
}
