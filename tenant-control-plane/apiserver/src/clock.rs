//! The wall clock, in the API's notations.

use jiff::Timestamp;

/// Now as `meta/v1 Time`: whole seconds, UTC.
pub fn now() -> String {
    time(Timestamp::now())
}

/// A moment as `meta/v1 Time`.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The moment `seconds` from now, as `meta/v1 Time`.
pub fn after(seconds: i64) -> String {
    let at = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(seconds));
    time(at.unwrap_or(Timestamp::MAX))
}
