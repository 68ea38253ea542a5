//! What is on disk: the log with the values in it, and checkpoints of the index.

pub mod checkpoint;
pub mod disk;
pub mod files;
pub mod flush;
pub mod log;
pub mod record;
pub mod recover;

#[cfg(test)]
mod tests;
