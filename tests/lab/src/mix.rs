//! Which parts of a cluster are ours and which are upstream's.

use std::fmt;

/// Where an executable comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Origin {
    /// Built from this workspace.
    Ours,
    /// Built by `cargo xtask upstream`.
    Upstream,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Upstream => "upstream",
        })
    }
}

/// A part that can be swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Part {
    Etcd,
    #[value(name = "apiserver")]
    ApiServer,
    ControllerManager,
    Scheduler,
    Kubelet,
    Proxy,
    Dns,
}

impl Part {
    /// Every part, in the order of a request's way.
    pub const ALL: [Self; 7] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Kubelet,
        Self::Proxy,
        Self::Dns,
    ];

    /// The flag that chooses it, and its name in the scoreboard.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "apiserver",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "proxy",
            Self::Dns => "dns",
        }
    }

    /// The tests that lean on it, by their SIGs.
    pub fn sigs(self) -> &'static [&'static str] {
        match self {
            Self::Etcd | Self::ApiServer => &["api-machinery", "auth", "cli"],
            Self::ControllerManager => &["apps", "api-machinery"],
            Self::Scheduler => &["scheduling", "apps"],
            Self::Kubelet => &["node", "storage"],
            Self::Proxy | Self::Dns => &["network"],
        }
    }

    /// File name of the executable, ours and upstream's.
    pub fn executable(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::Dns => "coredns",
        }
    }
}

/// An origin for every part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mix([Origin; Part::ALL.len()]);

impl Mix {
    /// Every part from the same origin.
    pub fn all(origin: Origin) -> Self {
        Self([origin; Part::ALL.len()])
    }

    /// Upstream's cluster with one part of ours.
    pub fn only_ours(part: Part) -> Self {
        Self::all(Origin::Upstream).with(part, Origin::Ours)
    }

    /// The same mix with one part from `origin`.
    #[must_use]
    pub fn with(mut self, part: Part, origin: Origin) -> Self {
        self.0[part as usize] = origin;
        self
    }

    /// Where a part comes from.
    pub fn of(&self, part: Part) -> Origin {
        self.0[part as usize]
    }

    /// `ours`, `upstream`, or the parts of ours joined by `+`, such as `etcd+apiserver`.
    pub fn name(&self) -> String {
        let ours: Vec<_> =
            Part::ALL.into_iter().filter(|part| self.of(*part) == Origin::Ours).collect();
        match ours.len() {
            0 => "upstream".to_owned(),
            n if n == Part::ALL.len() => "ours".to_owned(),
            _ => ours.iter().map(|part| part.name()).collect::<Vec<_>>().join("+"),
        }
    }
}

/// The flags that choose the parts that keep and serve objects.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Which parts")]
pub struct StateFlags {
    /// Origin of every part that no other flag names.
    #[arg(long, value_enum, default_value_t = Origin::Ours)]
    pub all: Origin,
    /// The store.
    #[arg(long, value_enum)]
    pub etcd: Option<Origin>,
    /// kube-apiserver.
    #[arg(long, value_enum)]
    pub apiserver: Option<Origin>,
    /// kube-controller-manager.
    #[arg(long, value_enum)]
    pub controller_manager: Option<Origin>,
}

/// The flags that choose a mix.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Which parts")]
pub struct MixFlags {
    #[command(flatten)]
    state: StateFlags,
    /// kube-scheduler.
    #[arg(long, value_enum)]
    scheduler: Option<Origin>,
    /// kubelet of both nodes.
    #[arg(long, value_enum)]
    kubelet: Option<Origin>,
    /// kube-proxy of both nodes.
    #[arg(long, value_enum)]
    proxy: Option<Origin>,
    /// Cluster DNS: cluster-dns (ours) or CoreDNS (upstream's).
    #[arg(long, value_enum)]
    dns: Option<Origin>,
}

impl MixFlags {
    /// The mix that the flags ask for.
    pub fn mix(&self) -> Mix {
        let chosen = [
            self.state.etcd,
            self.state.apiserver,
            self.state.controller_manager,
            self.scheduler,
            self.kubelet,
            self.proxy,
            self.dns,
        ];
        Mix(chosen.map(|origin| origin.unwrap_or(self.state.all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_ours() {
        assert_eq!(Mix::all(Origin::Upstream).name(), "upstream");
        assert_eq!(Mix::all(Origin::Ours).name(), "ours");
        assert_eq!(Mix::only_ours(Part::Proxy).name(), "proxy");
        let two = Mix::only_ours(Part::ApiServer).with(Part::Etcd, Origin::Ours);
        assert_eq!(two.name(), "etcd+apiserver");
        assert_eq!(two.of(Part::Kubelet), Origin::Upstream);
    }

    #[test]
    fn the_order_of_parts_is_that_of_the_enumeration() {
        for (index, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, index);
        }
    }
}
