//! PersistentVolume and PersistentVolumeClaim.

use serde_json::json;

use super::Strategy;

/// PersistentVolumeClaim.
pub fn claim() -> Strategy {
    Strategy {
        on_create: |object, _| object["status"] = json!({"phase": "Pending"}),
        ..Strategy::default()
    }
}

/// PersistentVolume.
pub fn volume() -> Strategy {
    Strategy {
        on_create: |object, _| object["status"] = json!({"phase": "Pending"}),
        ..Strategy::default()
    }
}
