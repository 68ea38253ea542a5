//! Keys, their versions, and the transactions on them. Pure: no clock, no socket, no await; the
//! only I/O is reading values, through [`Values`].

pub mod compact;
pub mod history;
pub mod index;
pub mod range;
pub mod store;
pub mod txn;

#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;

use crate::storage::files::{Files, ValueRef};

/// Where values are read from.
pub trait Values {
    /// The value, checked against its checksum.
    fn load(&self, at: ValueRef) -> io::Result<Bytes>;
}

impl Values for Files {
    fn load(&self, at: ValueRef) -> io::Result<Bytes> {
        self.read(at)
    }
}
