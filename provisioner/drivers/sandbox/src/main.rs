//! `marina-driver-sandbox --socket S --state-dir D`.

use std::process::ExitCode;

fn main() -> ExitCode {
    driver_local::run(|_| Box::new(driver_sandbox::Sandbox))
}
