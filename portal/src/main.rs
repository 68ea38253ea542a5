//! The console and the REST API.

fn main() {}
