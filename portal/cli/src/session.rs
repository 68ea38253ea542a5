//! Signing in, and what concerns the region as a whole.

use std::io::BufRead;

use anyhow::Context;
use serde_json::{Value, json};

use crate::args::{Cli, LoginArgs};
use crate::client::Client;
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::output::{self, Column, text};

/// Signs in with a password and keeps the token. A one-time password is replaced on the way.
pub fn login(cli: &Cli, args: &LoginArgs) -> Result<(), Failure> {
    let kept = config::load()?;
    let server = cli.server.clone().or_else(|| kept.server.clone());
    let server = server.context("give the portal's address: --server URL")?;
    let name = kept.token_name.unwrap_or_else(token_name);
    if let Some(token) = &cli.token {
        Client::new(&server, Some(token.clone())).get("/me")?;
        return keep(server, token.clone(), None, name);
    }
    let client = Client::new(&server, None);
    let mut lines = std::io::stdin().lock().lines();
    let mut ask = |prompt: &str| -> anyhow::Result<Option<String>> {
        match args.password_stdin {
            true => Ok(lines.next().transpose().context("cannot read standard input")?),
            false => Ok(Some(rpassword::prompt_password(prompt).context("cannot ask")?)),
        }
    };
    let password = ask("Password: ")?.context("standard input holds no password")?;
    let mut body = json!({"login": args.login, "password": password, "token_name": name});
    let answer = match client.send("POST", "/sign-in", Some(&body)) {
        Err(Failure::Refused { status: 403, problem }) => {
            eprintln!("{}", problem["detail"].as_str().unwrap_or("Choose a new password."));
            let Some(new) = ask("New password: ")? else {
                return Err(Failure::Refused { status: 403, problem });
            };
            if !args.password_stdin && ask("Again: ")?.as_ref() != Some(&new) {
                return Err(anyhow::anyhow!("the two passwords differ").into());
            }
            body["new_password"] = new.into();
            client.send("POST", "/sign-in", Some(&body))?
        }
        other => other?,
    };
    let token = answer["token"].as_str().context("the portal sent no token")?.to_owned();
    keep(server, token, answer["id"].as_str().map(str::to_owned), name)
}

/// A name that no other configuration file has, so that a login replaces its own token only.
fn token_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let user = std::env::var("USER").unwrap_or_default();
    let printable = |text: String| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let who = format!("cli {}@{}", printable(user), printable(host));
    let who: String = who.chars().take(50).collect();
    format!("{who} {:08x}", rand::random::<u32>())
}

fn keep(server: String, token: String, id: Option<String>, name: String) -> Result<(), Failure> {
    config::save(&Config {
        server: Some(server.clone()),
        token: Some(token),
        token_id: id,
        token_name: Some(name),
    })?;
    println!("Signed in to {server}.");
    Ok(())
}

/// Forgets the token, and revokes it if a login made it.
pub fn logout() -> Result<(), Failure> {
    let kept = config::load()?;
    let (server, token_name) = (kept.server.clone(), kept.token_name);
    config::save(&Config { server, token_name, ..Config::default() })?;
    let (Some(server), Some(token)) = (kept.server, kept.token) else {
        println!("Nobody was signed in.");
        return Ok(());
    };
    let Some(id) = kept.token_id else {
        println!("Signed out. The token stays valid until it is revoked in the console.");
        return Ok(());
    };
    match Client::new(&server, Some(token)).send("DELETE", &format!("/tokens/{id}"), None) {
        Ok(_) => println!("Signed out and revoked the token."),
        Err(Failure::Refused { status: 401 | 404, .. }) => {
            println!("Signed out. The token was no longer valid.");
        }
        Err(failure) => {
            println!("Signed out.");
            eprintln!("The token stays valid until it is revoked in the console: {failure}");
        }
    }
    Ok(())
}

/// Who is signed in.
pub fn whoami(cli: &Cli) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("LOGIN", |v| text(v, "login")),
        ("ORGANIZATION", |v| text(v, "organization")),
        ("ROLE", |v| text(v, "role")),
        ("SCOPE", |v| text(v, "scope")),
    ];
    output::print(cli.output, &Client::signed_in(cli)?.get("/me")?, COLUMNS)
}

/// Kubernetes versions.
pub fn versions(cli: &Cli) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("VERSION", |v| text(v, "name")),
        ("STATE", |v| text(v, "state")),
        ("DEFAULT", |v| text(v, "is_default")),
    ];
    output::print(cli.output, &Client::signed_in(cli)?.get("/versions")?, COLUMNS)
}

/// Hosts of the region.
pub fn hosts(cli: &Cli) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("NAME", |v| text(v, "name")),
        ("ZONE", |v| text(v, "zone")),
        ("CPUS", |v| text(v, "vcpus")),
        ("MEMORY MIB", |v| text(v, "memory_mib")),
        ("DRIVERS", drivers),
    ];
    output::print(cli.output, &Client::signed_in(cli)?.get("/hosts")?, COLUMNS)
}

fn drivers(host: &Value) -> String {
    let drivers = host["drivers"].as_array().into_iter().flatten();
    let drivers: Vec<_> = drivers
        .map(|driver| match driver["usable"].as_bool() {
            Some(true) => text(driver, "name"),
            _ => format!("{} unusable: {}", text(driver, "name"), text(driver, "message")),
        })
        .collect();
    drivers.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tokens_differ_and_are_short_enough() {
        let (one, two) = (token_name(), token_name());
        assert_ne!(one, two);
        assert!(one.starts_with("cli ") && one.chars().count() <= 60, "{one}");
    }
}
