//! What subjects share that talk to an API server at length: a client that costs little, bodies that
//! cost nothing, and a control plane of its own.
//!
//! The client's processor also carries the store, so what the client does for a request is kept small:
//! bodies are copied from a stencil, answers are not parsed, long ones are not even kept.

mod client;
mod plane;
mod stencil;

pub use client::{Body, Call, Client, Identity, Media, next_chunk};
pub use plane::{Plane, Role};
pub use stencil::Stencil;

/// A number as headlines show it: `10,000`.
pub fn thousands(count: usize) -> String {
    match count {
        0..1_000 => count.to_string(),
        _ => format!("{},{:03}", thousands(count / 1_000), count % 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            [7, 999, 1_000, 10_050, 1_234_567].map(thousands),
            ["7", "999", "1,000", "10,050", "1,234,567"]
        );
    }
}
