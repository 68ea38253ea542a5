//! The workloads, as data. Their names and sizes are those of upstream's `scheduler_perf`, in the
//! variant with 5,000 nodes that upstream itself watches for performance.
//!
//! To add one, add an entry to [`ALL`]; a new sort of pod goes to [`Kind`] and `templates`.

use crate::subjects::api::thousands;

/// What the pods of a batch are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 100m of CPU, 500 Mi of memory, no wishes.
    Plain,
    /// Requests nothing and has the label that the Service selects by.
    Labelled,
    /// Not on a node with another of its kind.
    AntiAffinity,
    /// In a zone with another of its kind.
    Affinity,
    /// Preferably on a node with another of its kind.
    PreferredAffinity,
    /// Preferably not on a node with another of its kind.
    PreferredAntiAffinity,
    /// On a node of one of two zones.
    NodeAffinity,
    /// Spread over zones, at most five more in one than in another.
    Spread,
    /// The same as a wish.
    PreferredSpread,
    /// Spread over the nodes whose taints it tolerates, at most one more on one than on another.
    SpreadOverUntainted,
    /// Four of them fill a node; everything else is more important.
    LowPriority,
    /// More important, and needs the room of three of low priority.
    HighPriority,
    /// More important, and needs more than any node has.
    TooLarge,
}

/// Pods of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Their kind.
    pub kind: Kind,
    /// Where they are created. Kinds with affinity look at both of `sched-0` and `sched-1`.
    pub namespace: &'static str,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes, each with 4 CPUs, 32 Gi and room for 110 pods.
    pub nodes: usize,
    /// Pods of each batch in [`Workload::before`].
    pub before: usize,
    /// Pods that are measured.
    pub measured: usize,
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// As upstream calls it.
    pub name: &'static str,
    /// Zones of the nodes, in turn; none for nodes without that label.
    pub zones: &'static [&'static str],
    /// Whether every fifth node has a taint.
    pub tainted: bool,
    /// Pods that are bound before the measurement begins.
    pub before: &'static [Batch],
    /// Pods that are measured.
    pub measured: Batch,
    /// Pods that are created meanwhile, one every 200 ms.
    pub meanwhile: Option<Kind>,
    /// Whether there is room for more pods of the measured kind afterwards.
    pub room_after: bool,
    /// Sizes of a full run.
    pub full: Size,
    /// Sizes of a quick run, if it is part of one.
    pub quick: Size,
    /// Whether it is part of a quick run.
    pub in_quick: bool,
    /// Rounds in which more would only cost time.
    pub most_rounds: usize,
}

/// Every namespace that a batch names.
pub const NAMESPACES: &[&str] = &["bench", "sched-0", "sched-1", "served", "meanwhile"];

const ONE_ZONE: &[&str] = &["zone1"];
const THREE_ZONES: &[&str] = &["moon-1", "moon-2", "moon-3"];

const fn batch(kind: Kind, namespace: &'static str) -> Batch {
    Batch { kind, namespace }
}

const fn size(nodes: usize, before: usize, measured: usize) -> Size {
    Size { nodes, before, measured }
}

/// What most have in common.
const BASIC: Workload = Workload {
    name: "SchedulingBasic",
    zones: &[],
    tainted: false,
    before: &[batch(Kind::Plain, "bench")],
    measured: batch(Kind::Plain, "bench"),
    meanwhile: None,
    room_after: true,
    full: size(5_000, 1_000, 10_000),
    quick: size(500, 100, 500),
    in_quick: false,
    most_rounds: usize::MAX,
};

/// One whose pods are all of one kind, in two namespaces.
const fn related(name: &'static str, before: &'static [Batch], kind: Kind) -> Workload {
    let measured = batch(kind, "sched-1");
    let (full, quick) = (size(5_000, 5_000, 5_000), size(500, 100, 300));
    Workload { name, before, measured, full, quick, ..BASIC }
}

/// All of them, in the order in which they run.
pub const ALL: &[Workload] = &[
    Workload { in_quick: true, ..BASIC },
    Workload {
        full: size(5_000, 1_000, 2_000),
        quick: size(500, 50, 200),
        in_quick: true,
        ..related(
            "SchedulingPodAntiAffinity",
            &[batch(Kind::AntiAffinity, "sched-0")],
            Kind::AntiAffinity,
        )
    },
    Workload {
        zones: ONE_ZONE,
        ..related("SchedulingPodAffinity", &[batch(Kind::Affinity, "sched-0")], Kind::Affinity)
    },
    related(
        "SchedulingPreferredPodAffinity",
        &[batch(Kind::PreferredAffinity, "sched-0")],
        Kind::PreferredAffinity,
    ),
    related(
        "SchedulingPreferredPodAntiAffinity",
        &[batch(Kind::PreferredAntiAffinity, "sched-0")],
        Kind::PreferredAntiAffinity,
    ),
    Workload {
        name: "SchedulingNodeAffinity",
        zones: ONE_ZONE,
        before: &[batch(Kind::NodeAffinity, "bench")],
        measured: batch(Kind::NodeAffinity, "bench"),
        full: size(5_000, 5_000, 10_000),
        ..BASIC
    },
    Workload {
        name: "TopologySpreading",
        zones: THREE_ZONES,
        measured: batch(Kind::Spread, "bench"),
        full: size(5_000, 5_000, 5_000),
        quick: size(500, 100, 300),
        in_quick: true,
        ..BASIC
    },
    Workload {
        name: "PreferredTopologySpreading",
        zones: THREE_ZONES,
        measured: batch(Kind::PreferredSpread, "bench"),
        full: size(5_000, 5_000, 5_000),
        quick: size(500, 100, 300),
        ..BASIC
    },
    Workload {
        name: "DefaultTopologySpreading",
        zones: THREE_ZONES,
        measured: batch(Kind::Labelled, "served"),
        full: size(5_000, 5_000, 10_000),
        ..BASIC
    },
    Workload {
        name: "SchedulingWithNodeInclusionPolicy",
        tainted: true,
        before: &[],
        measured: batch(Kind::SpreadOverUntainted, "bench"),
        room_after: false,
        full: size(5_000, 0, 4_000),
        quick: size(500, 0, 300),
        ..BASIC
    },
    Workload {
        name: "MixedSchedulingBasePod",
        zones: ONE_ZONE,
        before: &[
            batch(Kind::Plain, "sched-0"),
            batch(Kind::Affinity, "sched-0"),
            batch(Kind::AntiAffinity, "sched-0"),
            batch(Kind::PreferredAffinity, "sched-0"),
            batch(Kind::PreferredAntiAffinity, "sched-0"),
        ],
        full: size(5_000, 2_000, 5_000),
        quick: size(500, 40, 300),
        ..BASIC
    },
    Workload {
        name: "Unschedulable",
        meanwhile: Some(Kind::TooLarge),
        full: size(5_000, 100, 10_000),
        quick: size(500, 20, 500),
        ..BASIC
    },
    Workload {
        name: "PreemptionBasic",
        before: &[batch(Kind::LowPriority, "bench")],
        measured: batch(Kind::HighPriority, "bench"),
        room_after: false,
        // Upstream has no larger one: "always seems to fail".
        full: size(1_000, 4_000, 1_000),
        quick: size(100, 400, 100),
        in_quick: true,
        ..BASIC
    },
    Workload {
        name: "PreemptionAsync",
        before: &[batch(Kind::LowPriority, "bench")],
        meanwhile: Some(Kind::HighPriority),
        full: size(5_000, 20_000, 5_000),
        quick: size(100, 400, 100),
        most_rounds: 1,
        ..BASIC
    },
];

impl Workload {
    /// The size of this run.
    pub fn size(&self, quick: bool) -> Size {
        if quick { self.quick } else { self.full }
    }

    /// The headline of its table.
    pub fn headline(&self, quick: bool) -> String {
        let Size { nodes, before, measured } = self.size(quick);
        let [nodes, before, measured] =
            [nodes, before * self.before.len(), measured].map(thousands);
        format!("{}: {nodes} nodes, {before} pods before, {measured} measured", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_has_a_namespace_and_fits() {
        for workload in ALL {
            let batches = workload.before.iter().chain([&workload.measured]);
            for batch in batches {
                assert!(NAMESPACES.contains(&batch.namespace), "{}", workload.name);
            }
            for size in [workload.full, workload.quick] {
                let before = size.before * workload.before.len();
                assert!(before + size.measured <= size.nodes * 40, "{}", workload.name);
            }
        }
    }

    #[test]
    fn names_occur_once_and_headlines_tell_the_size() {
        let mut names: Vec<_> = ALL.iter().map(|workload| workload.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(
            ALL[0].headline(false),
            "SchedulingBasic: 5,000 nodes, 1,000 pods before, 10,000 measured"
        );
    }
}
