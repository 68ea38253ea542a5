//! `apiregistration.k8s.io`.

use super::row::{Rows, cluster};
use crate::strategy;

pub(super) fn rows() -> Rows {
    Rows::of(
        "apiregistration.k8s.io",
        "v1",
        vec![
            cluster("APIService", "apiservices")
                .category("api-extensions")
                .status()
                .stored_below("/registry/apiregistration.k8s.io/apiservices")
                .strategy(strategy::registration::api_service()),
        ],
    )
}
