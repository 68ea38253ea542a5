//! Panics of simulated processes. A runtime swallows those of its tasks; here they are noted.

use std::cell::RefCell;
use std::panic::PanicHookInfo;

use crate::disk::Stopped;

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes panics from now on, on every thread.
pub fn note_all() {
    std::panic::set_hook(Box::new(note));
}

fn note(info: &PanicHookInfo<'_>) {
    if info.payload().is::<Stopped>() {
        return;
    }
    let noted = FIRST.try_with(|first| {
        first.borrow_mut().get_or_insert_with(|| info.to_string());
    });
    if noted.is_err() {
        eprintln!("{info}");
    }
}

/// The first one since this was asked last.
pub fn take() -> Option<String> {
    FIRST.with(|first| first.borrow_mut().take())
}

/// As [`take`], when nobody is interested.
pub fn forget() {
    take();
}
