use std::io::Write;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::read::Reader;
use super::write::{Bucket, Small, write};
use crate::machine::tests::mangled::{mangle, rounds};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn file(buckets: &[Small]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let all: Vec<&dyn Bucket> = buckets.iter().map(|bucket| bucket as &dyn Bucket).collect();
    let mut remains = None;
    write(&all, |piece, left| {
        file.write_all(&piece).unwrap();
        if let Some(before) = remains.replace(left) {
            assert_eq!(before, left + piece.len() as u64, "what remains is exact");
        }
        true
    })
    .unwrap();
    assert_eq!(remains, Some(0));
    file
}

fn read(path: &std::path::Path, bucket: &str) -> anyhow::Result<Pairs> {
    let mut pairs = Pairs::new();
    Reader::open(path)?.each(bucket, |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    Ok(pairs)
}

fn pairs(count: usize, value: usize) -> Pairs {
    (0..count).map(|i| (format!("{i:08}").into_bytes(), vec![i as u8; value])).collect()
}

#[test]
fn what_is_written_can_be_read() {
    // Three levels of branches, values beyond a page, and nothing at all.
    let buckets = [
        Small { name: "big", pairs: pairs(60_000, 100) },
        Small { name: "empty", pairs: Vec::new() },
        Small { name: "long", pairs: pairs(5, 20_000) },
        Small { name: "one", pairs: pairs(1, 0) },
    ];
    let file = file(&buckets);
    for bucket in &buckets {
        assert!(read(file.path(), bucket.name).unwrap() == bucket.pairs, "{}", bucket.name);
    }
    assert!(read(file.path(), "absent").unwrap().is_empty());
}

#[test]
fn damage_is_an_error_and_never_a_panic_or_a_circle() {
    let file = file(&[Small { name: "b", pairs: pairs(400, 30) }]);
    let whole = std::fs::read(file.path()).unwrap();
    let damaged = tempfile::NamedTempFile::new().unwrap();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(13) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        std::fs::write(damaged.path(), &bytes).unwrap();
        refused += usize::from(read(damaged.path(), "b").is_err());
    }
    assert!(refused > 20, "{refused}");
    for keep in [0, 100, 4096, 8192, whole.len() - 1] {
        std::fs::write(damaged.path(), &whole[..keep]).unwrap();
        assert!(read(damaged.path(), "b").is_err(), "{keep} bytes");
    }
    let mut one_meta = whole.clone();
    one_meta[20] ^= 1;
    std::fs::write(damaged.path(), &one_meta).unwrap();
    assert_eq!(read(damaged.path(), "b").unwrap().len(), 400, "the other meta is enough");
}

#[test]
fn a_mangled_file_is_refused_or_read_without_a_panic() {
    let file = file(&[
        Small { name: "a", pairs: pairs(3_000, 40) },
        Small { name: "b", pairs: pairs(9, 9_000) },
    ]);
    let whole = std::fs::read(file.path()).unwrap();
    let damaged = tempfile::NamedTempFile::new().unwrap();
    let mut refused = 0;
    for seed in 0..rounds() {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut bytes = whole.clone();
        for _ in 0..random.random_range(1..5) {
            mangle(&mut bytes, random);
        }
        std::fs::write(damaged.path(), &bytes).unwrap();
        refused += u64::from(["a", "b"].iter().any(|name| read(damaged.path(), name).is_err()));
    }
    assert!(refused > rounds() / 10, "{refused}");
}
