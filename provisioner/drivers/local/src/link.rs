//! The worker's link in its cluster's network namespace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The name of a worker's interface on the bridge: at most 15 characters, the same every time,
/// and different for different workers but for an accident of one in 2⁴⁸ per pair.
pub fn name(prefix: &str, worker_id: &str) -> String {
    // FNV-1a: no secret is kept by it, it only spreads.
    let hash = worker_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{prefix}{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}

/// Where `ip netns` keeps the handle of a namespace.
pub fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Checks that the namespace and the bridge in it exist.
///
/// # Errors
/// With what is missing.
pub fn check(netns: &str, bridge: &str) -> anyhow::Result<()> {
    if !netns_path(netns).exists() {
        bail!("there is no network namespace {netns}");
    }
    ip(netns, &["link", "show", "dev", bridge])
        .with_context(|| format!("network namespace {netns} has no bridge {bridge}"))
}

/// Runs `ip` in the namespace.
///
/// # Errors
/// With what `ip` said.
pub fn ip(netns: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(["-netns", netns])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("starting ip (package iproute2)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("ip {}: {said}", args.join(" "));
    }
    Ok(())
}

/// Removes an interface; it, or the whole namespace, may be gone already.
///
/// # Errors
/// It is still there.
pub fn remove(netns: &str, name: &str) -> anyhow::Result<()> {
    if !netns_path(netns).exists() || ip(netns, &["link", "show", "dev", name]).is_err() {
        return Ok(());
    }
    ip(netns, &["link", "delete", "dev", name]).or_else(|e| {
        // The worker's end may have taken it along just now.
        if ip(netns, &["link", "show", "dev", name]).is_err() { Ok(()) } else { Err(e) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let one = name("mv", "demo-workers-1");
        assert!(one.len() <= 15);
        assert_eq!(one, name("mv", "demo-workers-1"));
        assert_ne!(one, name("mv", "demo-workers-2"));
    }
}
