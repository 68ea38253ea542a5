//! Clusters and what happens to them.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use crate::args::{Cli, ClusterCommand, WaitArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Column, age, text};

const COLUMNS: &[Column] = &[
    ("NAME", |v| text(v, "name")),
    ("ID", |v| text(v, "id")),
    ("STATE", |v| text(v, "phase")),
    ("VERSION", |v| text(v, "version")),
    ("CONTROL PLANE", |v| text(v, "control_plane")),
    ("AGE", |v| age(v, "created_ms")),
];
/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(250);

/// `marina clusters …`.
pub fn run(cli: &Cli, command: &ClusterCommand) -> Result<(), Failure> {
    let client = Client::signed_in(cli)?;
    match command {
        ClusterCommand::List => output::print(cli.output, &all(&client)?, COLUMNS),
        ClusterCommand::Get { cluster } => {
            output::print(cli.output, &client.get(&format!("/clusters/{cluster}"))?, COLUMNS)
        }
        ClusterCommand::Create { name, wait, .. } => {
            let mut cluster = client.send("POST", "/clusters", Some(&body(command)))?;
            if wait.wait {
                cluster = wait_for(&client, name, wait, |cluster| cluster["phase"] == "ready")?;
            }
            output::print(cli.output, &cluster, COLUMNS)
        }
        ClusterCommand::Delete { cluster, yes, wait } => {
            let found = client.get(&format!("/clusters/{cluster}"))?;
            if !yes {
                confirm("cluster", &text(&found, "name"), "everything in it")?;
            }
            let path = format!("/clusters/{}", text(&found, "id"));
            let deleted = client.send("DELETE", &path, None)?;
            if !wait.wait {
                return output::print(cli.output, &deleted, COLUMNS);
            }
            match wait_for(&client, &text(&found, "id"), wait, |_| false) {
                Err(Failure::Refused { status: 404, .. }) => {
                    println!("Deleted.");
                    Ok(())
                }
                other => other.map(drop),
            }
        }
    }
}

/// All pages of the list as one.
fn all(client: &Client) -> Result<Value, Failure> {
    let mut page = client.get("/clusters")?;
    while let Some(cursor) = page["next_cursor"].as_str().map(str::to_owned) {
        let mut next = client.get(&format!("/clusters?cursor={cursor}"))?;
        let more = next["items"].take();
        if let (Some(items), Value::Array(more)) = (page["items"].as_array_mut(), more) {
            items.extend(more);
        }
        page["next_cursor"] = next["next_cursor"].take();
    }
    Ok(page)
}

fn body(command: &ClusterCommand) -> Value {
    let ClusterCommand::Create {
        name,
        version,
        control_plane,
        driver,
        pod_cidr,
        service_cidr,
        vpc_cidr,
        ..
    } = command
    else {
        return Value::Null;
    };
    let mut body = Map::from_iter([("name".to_owned(), name.as_str().into())]);
    for (key, value) in [
        ("version", version),
        ("control_plane", control_plane),
        ("driver", driver),
        ("pod_cidr", pod_cidr),
        ("service_cidr", service_cidr),
        ("vpc_cidr", vpc_cidr),
    ] {
        if let Some(value) = value {
            body.insert(key.to_owned(), value.as_str().into());
        }
    }
    Value::Object(body)
}

/// Asks before something is deleted with all that belongs to it.
pub fn confirm(noun: &str, name: &str, with: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(anyhow!("nobody is there to ask: give --yes").into());
    }
    eprint!("This deletes {noun} {name} and {with}. Type its name: ");
    std::io::stderr().flush().context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    if answer.trim() == name { Ok(()) } else { Err(anyhow!("that is not its name").into()) }
}

/// Waits until a cluster is as wanted; shows the step that runs.
fn wait_for(
    client: &Client,
    cluster: &str,
    wait: &WaitArgs,
    done: impl Fn(&Value) -> bool,
) -> Result<Value, Failure> {
    let progress = Progress::new();
    let deadline = Instant::now() + Duration::from_secs(wait.timeout);
    loop {
        let seen = client.get(&format!("/clusters/{cluster}"))?;
        if done(&seen) {
            return Ok(seen);
        }
        let steps = seen["steps"].as_array().into_iter().flatten();
        let running = steps.clone().find(|step| step["state"] == "running");
        let running = running.map(|step| text(step, "title"));
        let message = running.unwrap_or_else(|| text(&seen, "message"));
        progress.say(&format!("{}: {message}", text(&seen, "phase")));
        if Instant::now() >= deadline {
            return Err(Failure::TimedOut(format!("{cluster} is {}", text(&seen, "phase"))));
        }
        std::thread::sleep(POLL);
    }
}

/// A spinner on a terminal, a line per change elsewhere.
pub struct Progress {
    bar: ProgressBar,
    last: std::cell::RefCell<String>,
}

impl Progress {
    /// Starts it.
    pub fn new() -> Self {
        let bar = match std::io::stderr().is_terminal() {
            false => ProgressBar::hidden(),
            true => {
                let bar = ProgressBar::new_spinner();
                let style = ProgressStyle::with_template("{spinner} [{elapsed}] {msg}");
                bar.set_style(style.expect("the template is a constant that parses"));
                bar.enable_steady_tick(Duration::from_millis(120));
                bar
            }
        };
        Self { bar, last: Default::default() }
    }

    /// Shows what happens now.
    pub fn say(&self, message: &str) {
        if *self.last.borrow() != message {
            if self.bar.is_hidden() {
                eprintln!("{message}");
            }
            self.bar.set_message(message.to_owned());
            message.clone_into(&mut self.last.borrow_mut());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `marina events`.
pub fn events(cli: &Cli, cluster: &str, follow: bool) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("AGE", |v| age(v, "time_ms")),
        ("SEVERITY", |v| text(v, "severity")),
        ("SUBJECT", |v| text(v, "subject")),
        ("MESSAGE", |v| text(v, "message")),
    ];
    let client = Client::signed_in(cli)?;
    let mut page = client.get(&format!("/clusters/{cluster}/events"))?;
    if let Some(items) = page["items"].as_array_mut() {
        items.reverse();
    }
    output::print(cli.output, &page, COLUMNS)?;
    if follow {
        client.follow(&format!("/clusters/{cluster}/events/stream"), |name, data| {
            match name {
                "event" => {
                    println!("{}   {}", text(data, "subject"), text(data, "message"));
                }
                "gone" => println!("The cluster is gone."),
                _ => {}
            }
            name != "gone"
        })?;
    }
    Ok(())
}
