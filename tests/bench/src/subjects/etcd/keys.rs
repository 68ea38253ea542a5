//! Puts, ranges, kube-apiserver's transactions, and mixtures.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, ensure};
use etcd_api::client::Client;
use etcd_api::pb::etcdserverpb::TxnRequest;

use super::{Member, client, requests};
use crate::bench::{Bench, warm_up};
use crate::drive::Load;
use crate::figures::Figures;

/// Clients of a concurrent workload that changes something.
const WRITERS: usize = 256;
/// Clients of a concurrent workload that reads.
const READERS: usize = 64;
/// Connections of a concurrent workload.
const CONNECTIONS: usize = 16;
/// Keys that are put, read and updated.
const KEYS: usize = 10_000;
/// Keys of one page, as client-go asks for them.
const PAGE: usize = 500;

/// Runs all workloads one after the other against the same member.
pub fn measure(bench: &Bench, member: &Member, figures: &mut Figures) -> anyhow::Result<()> {
    bench.settle(&member.process)?;
    figures.memory("PSS, idle", "", member.process.pss()?);
    figures.cpu("idle for a second", "", bench.idle(&member.process)?);
    let mut run = Run {
        bench,
        member,
        figures,
        many: client(CONNECTIONS)?,
        one: client(1)?,
        values: requests::Values::new(),
    };
    run.puts()?;
    run.ranges()?;
    run.lifecycle()?;
    run.updates_and_mixtures()?;
    bench.settle(&member.process)?;
    figures.memory("PSS, after all of the above", "", member.process.pss()?);
    Ok(())
}

struct Run<'a> {
    bench: &'a Bench,
    member: &'a Member,
    figures: &'a mut Figures,
    many: Client,
    one: Client,
    values: requests::Values,
}

impl Run<'_> {
    fn load(&self, clients: usize, full: usize, quick: usize) -> Load {
        let within = Duration::from_secs(self.bench.either(30, 3));
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
        let sample = self.bench.measure(&self.member.process, load, op);
        self.figures.sample(&named, &sample.with_context(|| named.clone())?);
        Ok(())
    }

    fn puts(&mut self) -> anyhow::Result<()> {
        let values = self.values.clone();
        for (load, client) in [
            (self.load(1, 5_000, 500), self.one.clone()),
            (self.load(WRITERS, 100_000, 10_000), self.many.clone()),
        ] {
            let put = async |_, index: usize| {
                client.kv().put(requests::put(&key(index % KEYS), values.of(index))).await?;
                Ok(())
            };
            self.measure("put", load, put)?;
        }
        self.fill()
    }

    /// Makes sure that every key is there to be read: a quick run has not put them all.
    fn fill(&self) -> anyhow::Result<()> {
        let load = Load { clients: READERS, operations: KEYS, within: Duration::from_secs(60) };
        let filled = crate::drive::drive(load, 0, async |_, index| {
            self.many.kv().put(requests::put(&key(index), self.values.of(index))).await?;
            Ok(())
        });
        let filled = self.bench.block_on(filled)?;
        ensure!(filled.done() == KEYS, "only {} of {KEYS} keys could be put", filled.done());
        Ok(())
    }

    fn ranges(&mut self) -> anyhow::Result<()> {
        for (kind, serializable) in [("linearizable", false), ("serializable", true)] {
            for (load, client) in [
                (self.load(1, 20_000, 2_000), self.one.clone()),
                (self.load(READERS, 200_000, 10_000), self.many.clone()),
            ] {
                let get = async |_, index: usize| {
                    let read = requests::get(&key(scattered(index)), serializable);
                    let found = client.kv().range(read).await?.into_inner().kvs;
                    ensure!(found.len() == 1, "{} keys instead of one", found.len());
                    Ok(())
                };
                self.measure(&format!("get, {kind}"), load, get)?;
            }
            let (load, client) = (self.load(4, 2_000, 200), self.many.clone());
            let range = async |_, index: usize| {
                let first = key(scattered(index) % (KEYS - PAGE));
                let read = requests::page(PREFIX, &first, PAGE as i64, serializable);
                let found = client.kv().range(read).await?.into_inner().kvs;
                ensure!(found.len() == PAGE, "{} keys instead of {PAGE}", found.len());
                Ok(())
            };
            self.measure(&format!("range of {PAGE}, {kind}"), load, range)?;
        }
        Ok(())
    }

    /// Objects that are created and then deleted.
    fn lifecycle(&mut self) -> anyhow::Result<()> {
        let load = self.load(WRITERS, 50_000, 5_000);
        let revisions = vec![Cell::new(0); load.operations + warm_up(load)];
        let (client, values) = (self.many.clone(), self.values.clone());
        let name = |index: usize| format!("/registry/events/default/bench-{index:08}");
        let create = async |_, index: usize| {
            let txn = requests::put_if(&name(index), 0, values.of(index));
            revisions[index].set(commit(&client, txn).await?);
            Ok(())
        };
        self.measure("create", load, create)?;
        let created = revisions.iter().take_while(|revision| revision.get() != 0).count();
        // Those of the warm-up included, as many as were created.
        let operations = created - created.div_ceil(20).min(created);
        let delete = async |_, index: usize| {
            commit(&client, requests::delete_if(&name(index), revisions[index].get())).await?;
            Ok(())
        };
        self.measure("delete", Load { operations, ..load }, delete)
    }

    fn updates_and_mixtures(&mut self) -> anyhow::Result<()> {
        let revisions = vec![Cell::new(0); KEYS];
        let (client, values) = (self.many.clone(), self.values.clone());
        let update = async |worker: usize, index: usize| {
            // Keys of a client's own, so that none is refused.
            let mine = worker + index % (KEYS / WRITERS) * WRITERS;
            let name = format!("/registry/leases/default/bench-{mine:08}");
            let txn = requests::put_if(&name, revisions[mine].get(), values.of(index));
            revisions[mine].set(commit(&client, txn).await?);
            Ok(())
        };
        let get = async |index: usize| {
            let read = requests::get(&key(scattered(index)), false);
            client.kv().range(read).await?;
            anyhow::Ok(())
        };
        self.measure("update", self.load(WRITERS, 50_000, 5_000), update)?;
        for (name, reads_of_ten) in [("5 gets : 5 updates", 5), ("9 gets : 1 update", 9)] {
            let mixed = async |worker, index: usize| match index % 10 < reads_of_ten {
                true => get(index).await,
                false => update(worker, index).await,
            };
            self.measure(name, self.load(WRITERS, 100_000, 10_000), mixed)?;
        }
        Ok(())
    }
}

const PREFIX: &str = "/registry/pods/";

fn key(index: usize) -> String {
    format!("{PREFIX}default/bench-{index:08}")
}

/// Visits all keys in no order that a cache would guess.
fn scattered(index: usize) -> usize {
    index * 7_919 % KEYS
}

/// Carries out a transaction that must succeed. Returns its revision.
async fn commit(client: &Client, txn: TxnRequest) -> anyhow::Result<i64> {
    let answer = client.kv().txn(txn).await?.into_inner();
    ensure!(answer.succeeded, "a transaction on a key of the client's own was refused");
    Ok(answer.header.context("an answer without header")?.revision)
}
