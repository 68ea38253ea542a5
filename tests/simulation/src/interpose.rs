//! The two things that a program gets from its host without asking anybody: randomness and time.
//!
//! Both come from libc functions, and a definition in the executable goes before libc's. On a
//! thread that runs a simulation they answer from the simulation; on others they ask the kernel.
#![allow(unsafe_code, reason = "these are C functions")]

use std::cell::{Cell, RefCell};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

thread_local! {
    static RANDOM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    /// Nanoseconds since the beginning of the simulation.
    static CLOCK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What the simulation's clock shows at its beginning, in seconds since 1970.
const BEGINNING: u64 = 1_900_000_000;

/// From here on this thread's randomness depends on the seed alone, and its clock stands.
pub fn begin(seed: u64) {
    RANDOM.set(Some(StdRng::seed_from_u64(seed)));
    CLOCK.set(Some(0));
}

/// Sets the clock of this thread.
pub fn set_clock(since_beginning: std::time::Duration) {
    CLOCK.set(Some(u64::try_from(since_beginning.as_nanos()).expect("centuries")));
}

/// Instead of libc's.
///
/// # Safety
/// As libc's: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    let simulated = RANDOM.try_with(|random| {
        let mut random = random.try_borrow_mut().ok()?;
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        random.as_mut()?.fill_bytes(bytes);
        Some(length.cast_signed())
    });
    match simulated {
        Ok(Some(length)) => length,
        // SAFETY: the arguments are the caller's.
        _ => unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as libc::ssize_t },
    }
}

/// Instead of libc's.
///
/// # Safety
/// As libc's: `time` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    match CLOCK.try_with(Cell::get) {
        Ok(Some(nanos)) => {
            let seconds = BEGINNING + nanos / 1_000_000_000;
            let shown = libc::timespec {
                tv_sec: seconds.cast_signed(),
                tv_nsec: (nanos % 1_000_000_000).cast_signed(),
            };
            // SAFETY: the caller's promise.
            unsafe { time.write(shown) };
            0
        }
        // SAFETY: the arguments are the caller's.
        _ => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int },
    }
}
