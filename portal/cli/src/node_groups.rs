//! Node groups and workers.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::args::{Cli, NodeGroupCommand, WaitArgs};
use crate::client::Client;
use crate::clusters::{Progress, confirm};
use crate::failure::Failure;
use crate::output::{self, Column, age, text};

const COLUMNS: &[Column] = &[
    ("NAME", |v| text(v, "name")),
    ("WANTED", |v| text(v, "count")),
    ("READY", |v| text(v, "ready")),
    ("DRIVER", |v| text(v, "driver")),
    ("CPUS", |v| text(v, "vcpus")),
    ("MEMORY MIB", |v| text(v, "memory_mib")),
    ("MESSAGE", |v| text(v, "message")),
];
/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(250);

/// `marina node-groups …`.
pub fn run(cli: &Cli, command: &NodeGroupCommand) -> Result<(), Failure> {
    let client = Client::signed_in(cli)?;
    let path = |cluster: &str, group: &str| match group {
        "" => format!("/clusters/{cluster}/node-groups"),
        group => format!("/clusters/{cluster}/node-groups/{group}"),
    };
    let (group, wait) = match command {
        NodeGroupCommand::List { cluster } => {
            return output::print(cli.output, &client.get(&path(cluster, ""))?, COLUMNS);
        }
        NodeGroupCommand::Create { cluster, name, wait, .. } => {
            client.send("POST", &path(cluster, ""), Some(&body(command)?))?;
            (path(cluster, name), wait)
        }
        NodeGroupCommand::Scale { cluster, group, count, wait } => {
            let body = json!({ "count": count });
            client.send("PATCH", &path(cluster, group), Some(&body))?;
            (path(cluster, group), wait)
        }
        NodeGroupCommand::Delete { cluster, group, yes, wait } => {
            if !yes {
                let found = client.get(&path(cluster, group))?;
                confirm("node group", &text(&found, "name"), "its workers")?;
            }
            client.send("DELETE", &path(cluster, group), None)?;
            (path(cluster, group), wait)
        }
    };
    let seen = match wait.wait {
        true => wait_for(&client, &group, wait),
        false => client.get(&group),
    };
    match seen {
        Err(Failure::Refused { status: 404, .. })
            if matches!(command, NodeGroupCommand::Delete { .. }) =>
        {
            println!("Deleted.");
            Ok(())
        }
        seen => output::print(cli.output, &seen?, COLUMNS),
    }
}

fn body(command: &NodeGroupCommand) -> Result<Value, Failure> {
    let NodeGroupCommand::Create {
        name, count, driver, vcpus, memory_mib, disk_gib, labels, ..
    } = command
    else {
        return Ok(Value::Null);
    };
    let mut body = json!({ "name": name, "count": count });
    if let Some(driver) = driver {
        body["driver"] = driver.as_str().into();
    }
    for (key, value) in [("vcpus", vcpus), ("memory_mib", memory_mib), ("disk_gib", disk_gib)] {
        if let Some(value) = value {
            body[key] = (*value).into();
        }
    }
    for label in labels {
        let (key, value) = label
            .split_once('=')
            .with_context(|| format!("--label {label}: write it as key=value"))?;
        body["labels"][key] = value.into();
    }
    Ok(body)
}

/// Waits until all workers are Ready and no surplus one is left, or the group is gone.
fn wait_for(client: &Client, path: &str, wait: &WaitArgs) -> Result<Value, Failure> {
    let progress = Progress::new();
    let deadline = Instant::now() + Duration::from_secs(wait.timeout);
    loop {
        let seen = client.get(path)?;
        let settled = seen["ready"] == seen["count"] && seen["total"] == seen["count"];
        if settled && seen["deleting"] == false && seen["observed_generation"] == seen["generation"]
        {
            return Ok(seen);
        }
        let state = format!("{} of {} ready", text(&seen, "ready"), text(&seen, "count"));
        progress.say(format!("{state} {}", text(&seen, "message")).trim());
        if Instant::now() >= deadline {
            return Err(Failure::TimedOut(state));
        }
        std::thread::sleep(POLL);
    }
}

/// `marina nodes`.
pub fn nodes(cli: &Cli, cluster: &str) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("NAME", |v| text(v, "name")),
        ("STATE", |v| text(v, "phase")),
        ("ADDRESS", |v| text(v, "address")),
        ("DRIVER", |v| text(v, "driver")),
        ("AGE", |v| age(v, "created_ms")),
        ("MESSAGE", |v| text(v, "message")),
    ];
    let client = Client::signed_in(cli)?;
    output::print(cli.output, &client.get(&format!("/clusters/{cluster}/nodes"))?, COLUMNS)
}
