//! The main job with workers in namespaces of this machine.

use std::time::Duration;

use e2e::job::{self, Pace};
use e2e::{Cluster, Region};

const PACE: Pace = Pace { boot: Duration::from_secs(60), pods: Duration::from_secs(60) };

#[test]
fn the_main_job_on_sandbox_workers() {
    let mut region = Region::start();
    {
        let cluster = job::first_cluster(&region, "sandbox", PACE);
        job::use_it(&cluster, PACE);
        job::pods_come_back(&cluster, PACE);
        job::processes_die(&cluster, PACE);
        job::a_worker_dies(&cluster, &["node-init"], PACE);
    }
    region.restart();
    let cluster = Cluster::of(&region, "demo");
    cluster.wait_for_nodes(2, PACE.boot);
    job::delete_it(&cluster);
}
