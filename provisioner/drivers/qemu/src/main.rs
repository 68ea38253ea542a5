//! `marina-driver-qemu --socket S --state-dir D`.

use std::process::ExitCode;

fn main() -> ExitCode {
    driver_local::run(|state_dir| Box::new(driver_qemu::Qemu::new(state_dir)))
}
