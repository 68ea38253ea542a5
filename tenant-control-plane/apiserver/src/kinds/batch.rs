//! `batch`.

use super::row::{Rows, namespaced};
use crate::strategy::{job, workload};

pub(super) fn rows() -> Rows {
    Rows::of(
        "batch",
        "v1",
        vec![
            namespaced("CronJob", "cronjobs")
                .short(&["cj"])
                .in_all()
                .status()
                .strategy(workload::workload()),
            namespaced("Job", "jobs")
                .in_all()
                .status()
                .field_or("status.successful", "/status/succeeded", "0")
                .strategy(job::job()),
        ],
    )
}
