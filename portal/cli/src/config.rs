//! Where the last login is kept.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The last login.
#[derive(Default, Deserialize, Serialize)]
pub struct Config {
    /// Address of the portal.
    pub server: Option<String>,
    /// API token.
    pub token: Option<String>,
    /// Id of the token, when the last login made it.
    pub token_id: Option<String>,
    /// Name of the tokens that logins make.
    pub token_name: Option<String>,
}

/// `$MARINA_CONFIG`, or `config.json` in the user's configuration directory.
pub fn path() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("MARINA_CONFIG") {
        return Ok(path.into());
    }
    let dir = match std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(&std::env::var_os("HOME").context("HOME is not set")?).join(".config"),
    };
    Ok(dir.join("marina/config.json"))
}

/// Reads the last login; a missing file means none.
pub fn load() -> anyhow::Result<Config> {
    let path = path()?;
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged: remove it and sign in again", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Replaces a file that only its owner may read, all of it or nothing.
pub fn replace_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let partial = path.with_extension("partial");
    let write = || -> std::io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.create(true).write(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Keeps a login.
pub fn save(config: &Config) -> anyhow::Result<()> {
    replace_private(&path()?, &serde_json::to_vec_pretty(config)?)
}
