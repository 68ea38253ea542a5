//! Events: short-lived notes.

use super::Strategy;

/// How long an event is kept.
pub const EVENT_TTL_S: i64 = 3600;

/// Event.
pub fn event() -> Strategy {
    Strategy { ttl_s: EVENT_TTL_S, create_on_update: true, echo: false, ..Strategy::default() }
}
