//! A web server that says which pod answered.

fn main() {}
