//! The end of a node: the power button, the order of stopping, and the power itself.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::system::System;

/// How long the services may take to end by themselves.
const PATIENCE: Duration = Duration::from_secs(8);

/// `EV_KEY` and `KEY_POWER` of linux/input-event-codes.h.
const KEY_EVENT: u16 = 1;
const POWER_KEY: u16 = 116;
/// `struct input_event` on a 64-bit machine: two longs of time, type, code, value.
const EVENT_SIZE: usize = 24;

/// The input devices that may carry a power button.
pub struct Buttons(Vec<File>);

impl Buttons {
    /// For a node that has no machine of its own.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Opens what is there; a machine without any simply has no button.
    pub fn open() -> Self {
        let files = (0..16).filter_map(|n| {
            File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
                .open(format!("/dev/input/event{n}"))
                .ok()
        });
        Self(files.collect())
    }

    /// To be polled for input.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(File::as_fd)
    }

    /// Reads what is there and says whether the button was pressed.
    pub fn pressed(&mut self) -> bool {
        let mut pressed = false;
        for file in &mut self.0 {
            let mut events = [0; EVENT_SIZE * 16];
            while let Ok(length @ 1..) = file.read(&mut events) {
                pressed |= events[..length].chunks_exact(EVENT_SIZE).any(is_power_press);
            }
        }
        pressed
    }
}

fn is_power_press(event: &[u8]) -> bool {
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    half(16) == KEY_EVENT && half(18) == POWER_KEY && value == 1
}

/// Ends the given services, then everything else on the node.
pub fn stop_everything(services: &[u32]) {
    for pid in services {
        if let Ok(pid) = i32::try_from(*pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
    reap_until(Instant::now() + PATIENCE, services);
    // Process 1 is not among the processes that it signals this way.
    let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
    reap_until(Instant::now() + Duration::from_secs(2), &[]);
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    reap_until(Instant::now() + Duration::from_secs(2), &[]);
    nix::unistd::sync();
}

/// Collects processes until none is left, or none of `only` if it names any.
fn reap_until(deadline: Instant, only: &[u32]) {
    let mut left: Vec<i32> = only.iter().filter_map(|p| i32::try_from(*p).ok()).collect();
    while Instant::now() < deadline {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(_) => return,
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(10)),
            Ok(status) => {
                if let Some(pid) = status.pid() {
                    left.retain(|p| *p != pid.as_raw());
                }
                if !only.is_empty() && left.is_empty() {
                    return;
                }
            }
        }
    }
}

/// Ends the machine. In a sandbox the end of this process is the end of the node.
///
/// # Errors
/// The kernel refuses.
pub fn end(system: System) -> anyhow::Result<()> {
    match system {
        System::Sandbox => Ok(()),
        System::VirtualMachine => off(),
    }
}

/// Switches the power off.
///
/// # Errors
/// The kernel refuses.
pub fn off() -> anyhow::Result<()> {
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(e) => Err(e).context("switching the power off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pressing_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = [0; EVENT_SIZE];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        assert!(is_power_press(&event(KEY_EVENT, POWER_KEY, 1)));
        assert!(!is_power_press(&event(KEY_EVENT, POWER_KEY, 0)));
        assert!(!is_power_press(&event(KEY_EVENT, 30, 1)));
        assert!(!is_power_press(&event(0, POWER_KEY, 1)));
    }
}
