//! The command line as people type it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Kubernetes clusters as a service.
#[derive(Parser)]
#[command(
    name = "marina",
    version,
    after_help = "Exit codes: 0 done; 1 failed; 2 the command line is wrong; 3 there is no such \
        thing; 4 not signed in or not allowed; 5 it took longer than --timeout."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Address of the portal; without it the one of the last login.
    #[arg(long, global = true, env = "MARINA_SERVER")]
    pub server: Option<String>,
    /// API token; without it the one of the last login.
    #[arg(long, global = true, env = "MARINA_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// What the API answered.
    Json,
    /// What the API answered, as YAML.
    Yaml,
}

#[derive(Subcommand)]
pub enum Command {
    /// Sign in and keep an API token for 30 days.
    Login(LoginArgs),
    /// Forget the API token, and revoke it if a login made it.
    Logout,
    /// Show who is signed in.
    Whoami,
    /// Kubernetes versions on offer.
    Versions,
    /// Hosts of the region (operators).
    Hosts,
    /// Create, show and delete clusters.
    #[command(alias = "cluster")]
    Clusters {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Create, show, scale and delete node groups.
    #[command(alias = "node-group")]
    NodeGroups {
        #[command(subcommand)]
        command: NodeGroupCommand,
    },
    /// The workers of a cluster.
    Nodes {
        /// Name or id.
        cluster: String,
    },
    /// Get a kubeconfig that administers a cluster.
    Kubeconfig(KubeconfigArgs),
    /// What happened to a cluster.
    Events {
        /// Name or id.
        cluster: String,
        /// Go on as things happen.
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Args)]
pub struct LoginArgs {
    /// Account.
    #[arg(long, default_value = "admin")]
    pub login: String,
    /// Read the password from the first line of standard input, and a new one (when the password is
    /// a one-time password) from the second.
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Args)]
pub struct KubeconfigArgs {
    /// Name or id.
    pub cluster: String,
    /// Write to this file; without it, to standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "merge")]
    pub file: Option<PathBuf>,
    /// Merge into $KUBECONFIG or ~/.kube/config and make it the current context.
    #[arg(long)]
    pub merge: bool,
    /// Hours for which it is valid, 1 to 2160.
    #[arg(long, default_value_t = 168)]
    pub ttl_hours: u32,
}

#[derive(Args)]
pub struct WaitArgs {
    /// Return when it is done, and show how far it is.
    #[arg(long)]
    pub wait: bool,
    /// Seconds to wait at the most.
    #[arg(long, default_value_t = 600, requires = "wait")]
    pub timeout: u64,
}

#[derive(Subcommand)]
pub enum ClusterCommand {
    /// All clusters.
    List,
    /// One cluster.
    Get {
        /// Name or id.
        cluster: String,
    },
    /// Create a cluster.
    Create {
        /// Unique name: lower-case letters, digits and dashes.
        name: String,
        /// Kubernetes version; the newest without it.
        #[arg(long = "kubernetes-version")]
        version: Option<String>,
        /// `single` or `ha`.
        #[arg(long)]
        control_plane: Option<String>,
        /// How workers run: `qemu` or `sandbox`.
        #[arg(long)]
        driver: Option<String>,
        /// Addresses of pods.
        #[arg(long)]
        pod_cidr: Option<String>,
        /// Addresses of Services.
        #[arg(long)]
        service_cidr: Option<String>,
        /// Addresses of workers.
        #[arg(long)]
        vpc_cidr: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Delete a cluster and everything in it.
    Delete {
        /// Name or id.
        cluster: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[derive(Subcommand)]
pub enum NodeGroupCommand {
    /// All node groups of a cluster.
    List {
        /// Name or id.
        cluster: String,
    },
    /// Add a node group.
    Create {
        /// Name or id of the cluster.
        cluster: String,
        /// Unique name: lower-case letters, digits and dashes.
        name: String,
        /// How many workers.
        #[arg(long, default_value_t = 2, allow_negative_numbers = true)]
        count: i64,
        /// `qemu` or `sandbox`; the cluster's without it.
        #[arg(long)]
        driver: Option<String>,
        /// Virtual CPUs of each worker.
        #[arg(long, allow_negative_numbers = true)]
        vcpus: Option<i64>,
        /// Memory of each worker, MiB.
        #[arg(long, allow_negative_numbers = true)]
        memory_mib: Option<i64>,
        /// Disk of each worker, GiB.
        #[arg(long, allow_negative_numbers = true)]
        disk_gib: Option<i64>,
        /// A label of the Nodes, as `key=value`; may be repeated.
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Change how many workers there are.
    Scale {
        /// Name or id of the cluster.
        cluster: String,
        /// Name or id of the node group.
        group: String,
        /// How many workers.
        #[arg(long, allow_negative_numbers = true)]
        count: i64,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Delete a node group and its workers.
    Delete {
        /// Name or id of the cluster.
        cluster: String,
        /// Name or id of the node group.
        group: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_count_is_left_to_the_portal_to_refuse() {
        for command in ["create", "scale"] {
            let line = ["marina", "node-groups", command, "demo", "w", "--count", "-1"];
            let cli = Cli::try_parse_from(line).expect("a command line");
            let Command::NodeGroups { command } = cli.command else { panic!("another command") };
            let (NodeGroupCommand::Create { count, .. } | NodeGroupCommand::Scale { count, .. }) =
                command
            else {
                panic!("another command")
            };
            assert_eq!(count, -1);
        }
    }
}
