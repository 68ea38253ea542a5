//! Holds a pod's namespaces open: it is the first process of every pod sandbox.
//!
//! It does nothing but wait for a signal to end on, and collect processes that were left to it
//! when the pod shares one process namespace. It reads and writes no file.

use std::process::ExitCode;

/// A bit set of the signals that this program waits for.
fn signals() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set that it is given; the calls after it get a valid
    // set and valid signal numbers, and cannot fail then.
    #[allow(unsafe_code)]
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set = set.assume_init();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD] {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Collects every process that has ended.
fn reap() {
    // SAFETY: a null status pointer is allowed; no memory is passed.
    #[allow(unsafe_code)]
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

fn main() -> ExitCode {
    let set = signals();
    let mut signal = 0;
    // SAFETY: both sets are valid for the calls, and `signal` outlives `sigwait`.
    #[allow(unsafe_code)]
    let blocked = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    if blocked != 0 {
        return ExitCode::FAILURE;
    }
    loop {
        // Blocked signals stay pending, so nothing is lost between two waits.
        // SAFETY: as above.
        #[allow(unsafe_code)]
        let failed = unsafe { libc::sigwait(&set, &mut signal) };
        match signal {
            _ if failed != 0 => return ExitCode::FAILURE,
            libc::SIGCHLD => reap(),
            _ => return ExitCode::SUCCESS,
        }
    }
}
