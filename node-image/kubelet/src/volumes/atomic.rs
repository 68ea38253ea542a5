//! Writes a set of files so that a reader sees either all old or all new ones.
//!
//! ```text
//! dir/..2026_11_24_03_00_00.1234/a   the files
//! dir/..data -> ..2026_11_24_…       switched by one rename
//! dir/a      -> ..data/a             what users open
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

use super::ownership;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Files by relative path.
pub type Payload = BTreeMap<String, Entry>;

/// Checks that a path stays inside the volume and does not collide with our own names.
///
/// # Errors
/// A sentence for the event.
pub fn check_path(path: &str) -> Result<(), String> {
    let inside = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !inside || path.starts_with("..") {
        return Err(format!(
            "invalid path {path:?} in a volume: it must be relative and not begin with '..'"
        ));
    }
    Ok(())
}

fn unchanged(current: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    let mut stack = vec![current.to_path_buf()];
    while let Some(dir) = stack.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { return false };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                stack.push(path);
                continue;
            }
            let name = path.strip_prefix(current).ok().and_then(Path::to_str).unwrap_or_default();
            let same = payload
                .get(name)
                .is_some_and(|want| fs::read(&path).is_ok_and(|have| have == want.data));
            if !same {
                return false;
            }
            found += 1;
        }
    }
    found == payload.len()
}

/// Makes `dir` hold exactly `payload`; true when something changed. `group` owns the files
/// (fsGroup) when given.
///
/// # Errors
/// When the file system refuses; the old content stays then.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let data = dir.join("..data");
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && unchanged(&dir.join(old), payload)
    {
        return Ok(false);
    }
    let stamp = jiff::Zoned::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let name = format!("{stamp}.{}", uuid::Uuid::new_v4().as_fields().0);
    let fresh = dir.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, entry) in payload {
        let file = fresh.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, &entry.data)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(entry.mode))?;
    }
    if let Some(group) = group {
        ownership::set_group(&fresh, group, true)?;
    }
    let next = dir.join("..data_tmp");
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;

    let tops: BTreeSet<&str> = payload.keys().filter_map(|p| p.split('/').next()).collect();
    for top in &tops {
        let link = dir.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let stale_link = !file.starts_with("..") && !tops.contains(file.as_str());
        if stale_link && entry.path().is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        Entry { data: text.into(), mode: 0o640 }
    }

    #[test]
    fn files_appear_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut payload =
            Payload::from([("a".to_owned(), entry("1")), ("d/b".to_owned(), entry("2"))]);
        assert!(write(dir, &payload, None).unwrap());
        assert!(!write(dir, &payload, None).unwrap());
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(dir.join("..data")).unwrap();
        payload.remove("a");
        payload.insert("d/b".into(), entry("3"));
        assert!(write(dir, &payload, None).unwrap());
        assert!(!dir.join("a").exists() && !dir.join(before).exists());
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "3");
    }

    #[test]
    fn paths_stay_inside() {
        assert!(check_path("a/b").is_ok() && check_path(".hidden").is_ok());
        for bad in ["", "/a", "../a", "a/../b", "..data"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
