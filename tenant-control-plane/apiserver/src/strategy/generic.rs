//! Small kinds.

use serde_json::Value;

use super::{Strategy, immutable};

/// Nothing of its own.
pub fn plain() -> Strategy {
    Strategy::default()
}

/// Counts generations.
pub fn counted() -> Strategy {
    Strategy { generation: true, ..Strategy::default() }
}

/// Counts generations and may be created by PUT.
pub fn counted_update() -> Strategy {
    Strategy { create_on_update: true, ..counted() }
}

/// Leases are renewed often and decide nothing in this server.
pub fn lease() -> Strategy {
    Strategy { create_on_update: true, echo: false, ..Strategy::default() }
}

/// PriorityClass: the value stays.
pub fn priority_class() -> Strategy {
    let check = |new: &Value, old: Option<&Value>| {
        old.and_then(|old| immutable("value", &new["value"], &old["value"])).into_iter().collect()
    };
    Strategy { check, ..counted() }
}
