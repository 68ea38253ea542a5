//! What the end-to-end tests share: a region of their own, kubectl, a browser, and waiting.
//!
//! The tests use what a person uses: `cargo xtask up` and `down`, the `marina` command line, curl,
//! an unmodified kubectl, Chromium. They never look into a database or call a crate of the product.
//! `cargo xtask test` tells them by environment variables where things are.

#![allow(clippy::unwrap_used)]

pub mod browser;
pub mod cluster;
pub mod job;
pub mod region;

use std::time::{Duration, Instant};

pub use cluster::Cluster;
pub use region::Region;

/// How often a level is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Waits until `look` returns a value; panics with what was missing when the time is over.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => {
                panic!("not within {} s: {what}: {why}", within.as_secs())
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// `Ok` when true.
pub fn check(condition: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise.into()) }
}

/// An environment variable that `cargo xtask test` sets.
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`"))
}
