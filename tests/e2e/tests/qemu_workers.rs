//! The main job with workers that are virtual machines. Without KVM they are emulated, slowly.

use std::time::Duration;

use e2e::Region;
use e2e::job::{self, Pace};

const PACE: Pace = Pace { boot: Duration::from_secs(300), pods: Duration::from_secs(180) };

#[test]
fn the_main_job_on_virtual_machines() {
    let region = Region::start();
    let cluster = job::first_cluster(&region, "qemu", PACE);
    job::use_it(&cluster, PACE);
    job::pods_come_back(&cluster, PACE);
    job::a_worker_dies(&cluster, &["qemu-system"], PACE);
    job::delete_it(&cluster);
}
