//! One layer of a container image: files by path, written as a tar archive.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};

/// What goes into a tar archive, by path; sorted, so that equal contents give equal bytes.
///
/// A path names a file of the layer itself: where a lower layer has a link on the way, such as
/// `/bin` to `usr/bin`, the path behind the link must be used. Directories on the way to a file
/// are added with mode 0755 where the layer has none yet.
#[derive(Clone, Debug, Default)]
pub struct Layer(BTreeMap<String, Entry>);

#[derive(Clone, Debug)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Link(String),
}

impl Layer {
    /// Adds a directory.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.add(path, Entry { kind: Kind::Directory, mode, owner: (0, 0) });
    }

    /// Adds a file; `mode` may have the bits for setuid and setgid.
    pub fn file(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        self.add(path, Entry { kind: Kind::File(bytes), mode, owner: (0, 0) });
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, Entry { kind: Kind::Link(target.to_owned()), mode: 0o777, owner: (0, 0) });
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something has exactly this path.
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path.trim_start_matches('/'))
    }

    /// All files, directories and links below `root`, with their owners and modes. Hard links
    /// become files of their own; devices and sockets are left out.
    ///
    /// # Errors
    /// Something cannot be read, or has a name that is not UTF-8.
    pub fn from_tree(root: &Path) -> anyhow::Result<Self> {
        let mut layer = Self::default();
        layer.read(root, "")?;
        Ok(layer)
    }

    fn read(&mut self, dir: &Path, prefix: &str) -> anyhow::Result<()> {
        let reading = || format!("reading {}", dir.display());
        for entry in std::fs::read_dir(dir).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.with_context(|| format!("{} is not UTF-8", path.display()))?;
            let inside = format!("{prefix}{name}");
            let context = || format!("reading {}", path.display());
            let meta = std::fs::symlink_metadata(&path).with_context(context)?;
            let kind = if meta.is_dir() {
                Kind::Directory
            } else if meta.is_symlink() {
                let target = std::fs::read_link(&path).with_context(context)?;
                Kind::Link(target.to_str().with_context(context)?.to_owned())
            } else if meta.is_file() {
                Kind::File(std::fs::read(&path).with_context(context)?)
            } else {
                continue;
            };
            let owner = (meta.uid(), meta.gid());
            self.add(&inside, Entry { kind, mode: meta.mode() & 0o7777, owner });
            if meta.is_dir() {
                self.read(&path, &format!("{inside}/"))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            let parent = Entry { kind: Kind::Directory, mode: 0o755, owner: (0, 0) };
            self.0.entry(path[..at].to_owned()).or_insert(parent);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// The archive.
    ///
    /// # Errors
    /// A path is too long for the format.
    pub fn tar(&self) -> anyhow::Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = header(entry.mode)?;
            header.set_uid(u64::from(entry.owner.0));
            header.set_gid(u64::from(entry.owner.1));
            match &entry.kind {
                Kind::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    builder.append_data(&mut header, format!("{path}/"), &[][..])?;
                }
                Kind::File(bytes) => {
                    header.set_size(bytes.len() as u64);
                    builder.append_data(&mut header, path, &bytes[..])?;
                }
                Kind::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(builder.into_inner()?)
    }
}

/// A header of an empty file that belongs to root, with the one fixed time.
fn header(mode: u32) -> anyhow::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_mtime(u64::try_from(crate::SOURCE_DATE_EPOCH)?);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mode(mode);
    Ok(header)
}

/// Writes everything below `dir` to a tar archive at `out`, in sorted order, owned by root and
/// with the one fixed time; files are copied, not held in memory.
///
/// # Errors
/// Something cannot be read, or `out` cannot be written.
pub fn archive(dir: &Path, out: &Path) -> anyhow::Result<()> {
    let writing = || format!("writing {}", out.display());
    let file = std::fs::File::create(out).with_context(writing)?;
    let mut builder = tar::Builder::new(std::io::BufWriter::with_capacity(1 << 20, file));
    append(&mut builder, dir, Path::new(""))?;
    let mut inner = builder.into_inner().with_context(writing)?;
    std::io::Write::flush(&mut inner).with_context(writing)
}

fn append<W: std::io::Write>(
    builder: &mut tar::Builder<W>,
    root: &Path,
    inside: &Path,
) -> anyhow::Result<()> {
    let dir = root.join(inside);
    let reading = || format!("reading {}", dir.display());
    let entries = std::fs::read_dir(&dir).with_context(reading)?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| (entry.file_name(), entry.file_type())).collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, kind) in names {
        let path = inside.join(&name);
        if kind.with_context(reading)?.is_dir() {
            let mut header = header(0o755)?;
            header.set_entry_type(tar::EntryType::Directory);
            let mut with_slash = path.as_os_str().as_bytes().to_vec();
            with_slash.push(b'/');
            let name = Path::new(std::ffi::OsStr::from_bytes(&with_slash));
            builder.append_data(&mut header, name, &[][..])?;
            append(builder, root, &path)?;
        } else {
            let file = std::fs::File::open(root.join(&path)).with_context(reading)?;
            let size = file.metadata().with_context(reading)?;
            if !size.is_file() {
                bail!("{} is no file", root.join(&path).display());
            }
            let mut header = header(0o644)?;
            header.set_size(size.len());
            builder.append_data(&mut header, &path, file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_tree_becomes_a_layer_with_its_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(dir.path().join("tmp"), mode).unwrap();
        std::fs::write(dir.path().join("tmp/f"), "x").unwrap();
        std::os::unix::fs::symlink("tmp/f", dir.path().join("l")).unwrap();
        let layer = Layer::from_tree(dir.path()).unwrap();
        assert!(layer.contains("/tmp/f") && layer.contains("l") && !layer.contains("f"));
        let bytes = layer.tar().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let found: Vec<(String, u32, Option<String>)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name().unwrap().map(|l| l.to_string_lossy().into_owned());
                let path = entry.path().unwrap().to_string_lossy().into_owned();
                (path, entry.header().mode().unwrap(), link)
            })
            .collect();
        assert_eq!(found[0], ("l".to_owned(), 0o777, Some("tmp/f".to_owned())));
        assert_eq!(found[1].0.trim_end_matches('/'), "tmp");
        assert_eq!(found[1].1, 0o1777);
        assert_eq!(found[2].0, "tmp/f");
    }

    #[test]
    fn a_layer_keeps_setuid_and_makes_the_way_to_a_file() {
        let mut layer = Layer::default();
        layer.file("/usr/local/bin/x", 0o4755, b"elf".to_vec());
        let bytes = layer.tar().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let modes: Vec<u32> =
            archive.entries().unwrap().map(|e| e.unwrap().header().mode().unwrap()).collect();
        assert_eq!(modes, [0o755, 0o755, 0o755, 0o4755]);
    }
}
