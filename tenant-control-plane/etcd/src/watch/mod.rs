//! Watches: who wants which events, and getting them there in order.

pub mod hub;
