//! Scripts of what happens, beside the plans that must follow (`tests/scripts/*.in`, `*.out`).
//!
//! To add one: write a new `.in` file, run with `UPDATE_SCRIPTS=1`, and read what was planned.
#![allow(clippy::unwrap_used)]

mod checker;
mod world;

use std::{fs, path::Path};

use world::World;

#[test]
fn every_script_plans_as_recorded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "in"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        let mut world = World::default();
        let mut out = String::new();
        for line in fs::read_to_string(&script).unwrap().lines() {
            out += &format!("{line}\n");
            if !line.is_empty() && !line.starts_with('#') {
                out += &world.command(line);
            }
        }
        let expected = script.with_extension("out");
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            fs::write(&expected, &out).unwrap();
        }
        let recorded = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(out, recorded, "{}", script.display());
    }
}

/// Random histories: whatever happens, no plan is wrong, and in the end everything is as wanted.
#[test]
fn random_histories_end_as_wanted() {
    for seed in 1..=60_u64 {
        println!("seed {seed}");
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = move |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let mut world = World::default();
        world.command("host h1 6000 sandbox qemu");
        world.command("host h2 6000 sandbox");
        world.command("cluster a ha");
        world.command("cluster b single");
        world.command("group a pool 2 sandbox 1024");
        world.command("group b pool-b 1 sandbox 1024");
        for _ in 0..40 {
            let nodes: Vec<String> = world
                .observed
                .clusters
                .values()
                .flat_map(|c| c.nodes.iter().filter(|n| !n.deleting).map(|n| n.name.clone()))
                .collect();
            match next(7) {
                0 => world.command("plan"),
                1 => world.command(&format!("scale a pool {}", next(5))),
                2 if !nodes.is_empty() => {
                    let phase = ["exited", "not-ready", "ready"][next(3) as usize];
                    let node = &nodes[next(nodes.len() as u64) as usize];
                    world.command(&format!("node {node} {phase}"))
                }
                3 => world.command(&format!("host-down h{}", 1 + next(2))),
                4 => world.command(&format!("host-up h{}", 1 + next(2))),
                5 => world.command(&format!("advance {}", next(200))),
                _ => {
                    world.command("plan");
                    world.command("plan")
                }
            };
        }
        for heal in ["host-up h1", "host-up h2", "scale a pool 2"] {
            world.command(heal);
        }
        for _ in 0..6 {
            world.command("settle");
            world.command("advance 1000");
        }
        world.command("settle");
        for (cluster, wanted) in [("a", 2), ("b", 1)] {
            let seen = &world.observed.clusters[cluster];
            let ready = seen.nodes.iter().filter(|n| !n.deleting).count();
            assert_eq!(ready, wanted, "seed {seed}: {cluster}: {seen:#?}");
            assert!(seen.status.as_ref().unwrap().ready_ms.is_some(), "seed {seed}");
        }
        world.command("delete a");
        world.command("delete b");
        world.command("settle");
        assert!(world.observed.clusters.is_empty(), "seed {seed}");
    }
}
