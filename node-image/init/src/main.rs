//! Chooses the stage: RAM disk, virtual machine, sandbox, or the last step before a service.

use std::path::Path;
use std::process::ExitCode;

use node_init::console::Console;
use node_init::system::System;
use node_init::{initramfs, node, services};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "run-service", name, command @ ..] => {
            let error = services::exec(name, command);
            eprintln!("node-init: {name}: {error:#}");
            return ExitCode::from(127);
        }
        [_, "--version"] => {
            println!("node-init {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if std::process::id() != 1 {
        eprintln!("node-init is the first process of a worker and runs as process 1 only");
        return ExitCode::from(2);
    }
    let result = if words.get(1) == Some(&"--sandbox") {
        node::run(System::Sandbox, &Console::sandbox())
    } else if Path::new("/modules/order").exists() {
        // Returns only when it fails: on success this process has become the one on the disk.
        initramfs::run(&Console::virtual_machine())
    } else {
        node::run(System::VirtualMachine, &Console::virtual_machine())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // In a VM the kernel stops when its first process ends, and QEMU with it.
        Err(e) => {
            eprintln!("marina: failed: {e:#}");
            ExitCode::FAILURE
        }
    }
}
