//! `marina`: Marina's command line, a client of the REST API and of nothing else.

mod args;
mod client;
mod clusters;
mod config;
mod failure;
mod kubeconfig;
mod node_groups;
mod output;
mod session;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Login(args) => session::login(cli, args),
        Command::Logout => session::logout(),
        Command::Whoami => session::whoami(cli),
        Command::Versions => session::versions(cli),
        Command::Hosts => session::hosts(cli),
        Command::Clusters { command } => clusters::run(cli, command),
        Command::NodeGroups { command } => node_groups::run(cli, command),
        Command::Nodes { cluster } => node_groups::nodes(cli, cluster),
        Command::Kubeconfig(args) => kubeconfig::run(cli, args),
        Command::Events { cluster, follow } => clusters::events(cli, cluster, *follow),
    }
}
