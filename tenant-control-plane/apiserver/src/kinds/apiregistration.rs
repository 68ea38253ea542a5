//! `apiregistration.k8s.io`.

use super::row::{Rows, cluster};

pub(super) fn rows() -> Rows {
    Rows::of(
        "apiregistration.k8s.io",
        "v1",
        vec![
            cluster("APIService", "apiservices")
                .category("api-extensions")
                .status()
                .stored_below("/registry/apiregistration.k8s.io/apiservices"),
        ],
    )
}
