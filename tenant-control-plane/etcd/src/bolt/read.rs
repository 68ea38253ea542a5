//! Reading a file. Nothing in it is trusted: whatever does not fit is an error.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::*;

/// Deeper trees than this do not occur: a branch has at least two children.
const DEEPEST: usize = 40;
const META_READ: usize = PAGE_HEADER + META_SUMMED + 8;

/// A file that is open.
pub struct Reader {
    file: File,
    page: usize,
    pages: u64,
    root: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

struct MetaPage {
    page: usize,
    root: u64,
    pages: u64,
    transaction: u64,
}

impl Reader {
    /// Opens a file and checks its metas.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let first = meta_at(&file, 0);
        // The second one stands behind the first page, whose size the first one may not tell.
        let sizes = (9..=16).map(|power| 1_u64 << power);
        let second = match &first {
            Ok(meta) => meta_at(&file, meta.page as u64),
            Err(_) => sizes
                .map(|size| meta_at(&file, size))
                .find(Result::is_ok)
                .unwrap_or_else(|| bail!("neither meta is valid")),
        };
        let meta = match (first, second) {
            (Ok(a), Ok(b)) => {
                if a.transaction > b.transaction {
                    a
                } else {
                    b
                }
            }
            (Ok(meta), Err(_)) | (Err(_), Ok(meta)) => meta,
            (Err(e), Err(_)) => return Err(e.context("this is no bbolt file")),
        };
        let length = file.metadata()?.len();
        ensure!(
            meta.pages.checked_mul(meta.page as u64).is_some_and(|bytes| bytes <= length),
            "the file ends early: it should have {} pages of {} bytes",
            meta.pages,
            meta.page
        );
        Ok(Self { file, page: meta.page, pages: meta.pages, root: meta.root })
    }

    /// Gives every key and value of a bucket in order. A bucket that is not there has none.
    pub fn each(
        &self,
        bucket: &str,
        mut take: impl FnMut(&[u8], &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut found = None;
        self.walk(self.root, &mut |flags, key, value| {
            if flags & IS_BUCKET != 0 && key == bucket.as_bytes() {
                found = Some(value.to_vec());
            }
            Ok(())
        })?;
        let Some(value) = found else { return Ok(()) };
        ensure!(value.len() >= BUCKET_HEADER, "bucket {bucket:?} has no header");
        let mut take = |_: u32, key: &[u8], value: &[u8]| take(key, value);
        match u64_at(&value, 0) {
            0 => self.inside(&value[BUCKET_HEADER..], &mut Budget::of(self), 0, &mut take),
            root => self.walk(root, &mut take),
        }
        .with_context(|| format!("bucket {bucket:?}"))
    }

    fn walk(&self, root: u64, take: &mut Take<'_>) -> anyhow::Result<()> {
        self.descend(root, &mut Budget::of(self), 0, take)
    }

    fn descend(
        &self,
        id: u64,
        budget: &mut Budget,
        depth: usize,
        take: &mut Take<'_>,
    ) -> anyhow::Result<()> {
        ensure!(id >= 2 && id < self.pages, "page {id} is not in the file");
        ensure!(depth < DEEPEST && budget.spend(), "the pages form a circle");
        let mut header = [0; PAGE_HEADER];
        let start = id * self.page as u64;
        self.file.read_exact_at(&mut header, start)?;
        ensure!(u64_at(&header, 0) == id, "page {id} says that it is {}", u64_at(&header, 0));
        let pages = u64::from(u32_at(&header, 12)) + 1;
        ensure!(id + pages <= self.pages, "page {id} overflows the file");
        let mut bytes = vec![0; pages as usize * self.page];
        self.file.read_exact_at(&mut bytes, start)?;
        self.inside(&bytes, budget, depth, take).with_context(|| format!("page {id}"))
    }

    fn inside(
        &self,
        page: &[u8],
        budget: &mut Budget,
        depth: usize,
        take: &mut Take<'_>,
    ) -> anyhow::Result<()> {
        ensure!(page.len() >= PAGE_HEADER, "the page is too short");
        let flags = u16_at(page, 8);
        for i in 0..usize::from(u16_at(page, 10)) {
            let at = PAGE_HEADER + ELEMENT * i;
            ensure!(at + ELEMENT <= page.len(), "element {i} is outside of the page");
            let part = |from: usize, len: usize| {
                from.checked_add(len).and_then(|end| page.get(from..end)).context("outside")
            };
            let number = |field: usize| u32_at(page, at + 4 * field) as usize;
            match flags {
                LEAF => {
                    let (key_at, key_len) = (at + number(1), number(2));
                    let key = part(key_at, key_len)?;
                    let value = part(key_at + key_len, number(3))?;
                    take(u32_at(page, at), key, value)?;
                }
                BRANCH => self.descend(u64_at(page, at + 8), budget, depth + 1, take)?,
                other => bail!("the page has unknown flags {other:#x}"),
            }
        }
        Ok(())
    }
}

type Take<'a> = dyn FnMut(u32, &[u8], &[u8]) -> anyhow::Result<()> + 'a;

/// How many pages may still be visited: each page is in one place only.
struct Budget(u64);

impl Budget {
    fn of(reader: &Reader) -> Self {
        Self(reader.pages)
    }

    fn spend(&mut self) -> bool {
        let has = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        has
    }
}

fn meta_at(file: &File, at: u64) -> anyhow::Result<MetaPage> {
    let mut bytes = [0; META_READ];
    file.read_exact_at(&mut bytes, at)?;
    let meta = &bytes[PAGE_HEADER..];
    ensure!(u16_at(&bytes, 8) == META && u32_at(meta, 0) == MAGIC, "no meta page");
    ensure!(u32_at(meta, 4) == VERSION, "version {} is unknown", u32_at(meta, 4));
    ensure!(u64_at(meta, META_SUMMED) == fnv1a(&meta[..META_SUMMED]), "its checksum is wrong");
    let page = u32_at(meta, 8) as usize;
    ensure!(page.is_power_of_two() && (512..=65_536).contains(&page), "page size {page}");
    Ok(MetaPage {
        page,
        root: u64_at(meta, 16),
        pages: u64_at(meta, 40),
        transaction: u64_at(meta, 48),
    })
}
