//! kubeconfig files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_yaml_ng::{Mapping, Value};

use crate::args::{Cli, KubeconfigArgs};
use crate::client::Client;
use crate::config::replace_private;
use crate::failure::Failure;

/// `marina kubeconfig`.
pub fn run(cli: &Cli, args: &KubeconfigArgs) -> Result<(), Failure> {
    let client = Client::signed_in(cli)?;
    let path = format!("/clusters/{}/kubeconfig?ttl_hours={}", args.cluster, args.ttl_hours);
    let yaml = client.text("GET", &path, None)?;
    if args.merge {
        let file = default_path()?;
        let present = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display()))?,
        };
        let merged = merge(&present, &yaml).with_context(|| format!("{}", file.display()))?;
        replace_private(&file, merged.as_bytes())?;
        println!("Merged into {} and made it the current context.", file.display());
    } else if let Some(file) = &args.file {
        replace_private(file, yaml.as_bytes())?;
        println!("Wrote {}. Use it: export KUBECONFIG={}", file.display(), file.display());
    } else {
        print!("{yaml}");
    }
    Ok(())
}

/// The first file of `$KUBECONFIG`, or `~/.kube/config`.
fn default_path() -> anyhow::Result<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG")
        && let Some(first) = std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty())
    {
        return Ok(first);
    }
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(Path::new(&home).join(".kube/config"))
}

/// Puts the clusters, users and contexts of `new` into `present`, replacing those of the same name.
fn merge(present: &str, new: &str) -> anyhow::Result<String> {
    let parse = |text: &str| -> anyhow::Result<Mapping> {
        match serde_yaml_ng::from_str(text).context("is not YAML")? {
            Value::Mapping(map) => Ok(map),
            Value::Null => Ok(Mapping::new()),
            _ => anyhow::bail!("is not a kubeconfig"),
        }
    };
    let (mut merged, new) = (parse(present)?, parse(new)?);
    for (key, value) in new {
        match (merged.get_mut(&key), value) {
            (Some(Value::Sequence(have)), Value::Sequence(add)) => {
                have.retain(|old| !add.iter().any(|item| item.get("name") == old.get("name")));
                have.extend(add);
            }
            (_, value) => {
                merged.insert(key, value);
            }
        }
    }
    Ok(serde_yaml_ng::to_string(&merged)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_replaces_same_names_and_keeps_the_others() {
        let present = "current-context: old\nclusters:\n- name: old\n  cluster: {server: a}\n\
            - name: demo\n  cluster: {server: b}\n";
        let new = "current-context: demo\nclusters:\n- name: demo\n  cluster: {server: c}\n";
        let merged: Value = serde_yaml_ng::from_str(&merge(present, new).unwrap()).unwrap();
        assert_eq!(merged["current-context"], "demo");
        let clusters = merged["clusters"].as_sequence().unwrap();
        assert_eq!(clusters.len(), 2);
        assert_eq!(clusters[1]["cluster"]["server"], "c");
        assert!(merge("", new).is_ok());
        assert!(merge("- a list", new).is_err());
    }
}
