//! The log on a real directory: what a crash can leave behind.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::disk::Host;
use super::log::{EntryType, Log, LogView};
use super::recover::RecoverError;
use crate::pb;

fn append(log: &Log, entries: &[(u64, u64, &str)]) {
    let entries: Vec<_> = entries
        .iter()
        .map(|(index, term, data)| {
            let data = Bytes::from(data.to_string());
            (*index, *term, EntryType::Batch, data)
        })
        .collect();
    log.append(entries, Box::new(|| {}));
    log.sync();
}

fn texts(log: &Log) -> Vec<String> {
    log.read(0, u64::MAX, usize::MAX)
        .unwrap()
        .into_iter()
        .map(|e| {
            let data = String::from_utf8(e.data.to_vec()).unwrap();
            format!("{}.{} {data}", e.term, e.index)
        })
        .collect()
}

fn open(dir: &Path) -> Log {
    Log::open(Arc::new(Host), dir, 0).unwrap()
}

fn error(dir: &Path) -> RecoverError {
    let e = Log::open(Arc::new(Host), dir, 0).err().expect("the log must be refused");
    e.downcast().unwrap()
}

fn segment(dir: &Path, id: u32) -> std::path::PathBuf {
    dir.join(format!("{id:010}.seg"))
}

#[test]
fn deleting_segments_leaves_alone_what_is_in_the_making() {
    let dir = TempDir::new().unwrap();
    let making = dir.path().join("0000000009.tmp");
    {
        let log = open(dir.path());
        append(&log, &[(0, 0, "first")]);
        std::fs::write(&making, "half a segment").unwrap();
        log.remove_segments(9, |_| false).unwrap();
        assert!(making.exists());
    }
    open(dir.path());
    assert!(!making.exists(), "a start clears up behind a crash");
}

#[test]
fn entries_votes_and_marks_survive_a_restart() {
    let dir = TempDir::new().unwrap();
    let vote = pb::VoteState { term: 3, node: 9, committed: true };
    {
        let log = open(dir.path());
        append(&log, &[(0, 0, "first"), (1, 1, "a"), (2, 1, "b")]);
        log.save_vote(vote, Box::new(|| {}));
        log.set_committed(Some((1, 1)));
        append(&log, &[(3, 1, "c")]);
        log.truncate_after(Some((1, 1)));
        append(&log, &[(2, 3, "B")]);
    }
    let log = open(dir.path());
    assert_eq!(texts(&log), ["0.0 first", "1.1 a", "3.2 B"]);
    assert_eq!((log.vote(), log.committed()), (Some(vote), Some((1, 1))));
    log.purge((1, 1));
    drop(log);
    let log = open(dir.path());
    assert_eq!(texts(&log), ["3.2 B"]);
    let view = LogView { purged: Some((1, 1)), last: Some((3, 2)) };
    assert_eq!(log.view(), view);
    log.truncate_after(Some((1, 1)));
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.view().last, Some((1, 1)));
    // A snapshot may skip entries that were never here.
    log.purge((5, 50));
    append(&log, &[(51, 5, "z")]);
    drop(log);
    assert_eq!(texts(&open(dir.path())), ["5.51 z"]);
}

#[test]
fn a_log_cut_at_any_byte_loses_only_the_end() {
    let dir = TempDir::new().unwrap();
    let mut ends = Vec::new();
    {
        let log = open(dir.path());
        for i in 0..6 {
            append(&log, &[(i, 1, "entry data")]);
            ends.push(log.usage().0 as usize);
        }
    }
    let whole = std::fs::read(segment(dir.path(), 1)).unwrap();
    // Within the last two records and at the border between them.
    for cut in (ends[3]..ends[5]).step_by(3) {
        for tail in [&[][..], &[0; 64], &[0xff; 64]] {
            let crashed = TempDir::new().unwrap();
            let bytes = [&whole[..cut], tail].concat();
            std::fs::write(segment(crashed.path(), 1), bytes).unwrap();
            let log = open(crashed.path());
            // Five bytes of padding end each record, and may be missing.
            let kept = ends.iter().filter(|end| **end - 5 <= cut).count();
            assert_eq!(texts(&log).len(), kept, "cut at {cut}");
            // And it can be continued, and opened again.
            append(&log, &[(kept as u64, 2, "more")]);
            drop(log);
            assert_eq!(texts(&open(crashed.path())).len(), kept + 1);
        }
    }
}

#[test]
fn damage_to_synced_data_is_corruption_and_not_a_torn_tail() {
    let dir = TempDir::new().unwrap();
    {
        let log = open(dir.path());
        for i in 0..6 {
            append(&log, &[(i, 1, "entry data")]);
        }
    }
    let path = segment(dir.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let places: Vec<usize> = whole
        .windows(10)
        .enumerate()
        .filter(|(_, w)| *w == b"entry data")
        .map(|(i, _)| i)
        .collect();
    for (n, at) in places.iter().enumerate() {
        let mut bad = whole.clone();
        bad[*at] ^= 0x10;
        std::fs::write(&path, &bad).unwrap();
        if n < 4 {
            assert!(matches!(error(dir.path()), RecoverError::Corrupt { .. }), "{n}");
        }
    }
    // The last record has nobody behind it to vouch for it: it may be torn.
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(texts(&open(dir.path())).len(), 6);
    // From now on the segment is closed, and any damage is corruption.
    let mut bad = whole.clone();
    bad[places[5]] ^= 0x10;
    std::fs::write(&path, &bad).unwrap();
    assert!(matches!(error(dir.path()), RecoverError::Corrupt { .. }));
}

#[test]
fn large_entries_span_segments_and_are_read_back_from_disk() {
    let dir = TempDir::new().unwrap();
    let data = |i: u64| Bytes::from(vec![i as u8; 3 << 20]);
    let log = open(dir.path());
    for i in 0..12 {
        log.append([(i, 1, EntryType::Batch, data(i))], Box::new(|| {}));
    }
    log.sync();
    let check = |log: &Log| {
        let all = log.read(0, 12, usize::MAX).unwrap();
        assert_eq!(all.len(), 12);
        for e in &all {
            assert_eq!(e.data, data(e.index));
            let value = e.locate(&e.data.slice(5..1000));
            assert_eq!(log.files().read(value).unwrap(), data(e.index)[5..1000]);
        }
        assert_eq!(log.read(0, 12, 1).unwrap().len(), 1, "at least one");
    };
    check(&log);
    assert!(log.active_segment() >= 3);
    let from = log.segment_from(6);
    drop(log);
    check(&open(dir.path()));
    let log = Log::open(Arc::new(Host), dir.path(), from).unwrap();
    let first = log.read(0, 12, 1).unwrap()[0].index;
    assert!(first <= 6 && first > 0, "starts in the segment of entry 6, at {first}");
    assert_eq!(log.view().purged, Some((1, first - 1)));
}

#[test]
fn a_value_that_rots_is_not_served() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let at = log.put_values(&[Bytes::from_static(b"precious"), Bytes::new()]);
    log.sync();
    assert_eq!(&log.files().read(at[0]).unwrap()[..], b"precious");
    assert!(log.files().read(at[1]).unwrap().is_empty());
    let path = segment(dir.path(), at[0].segment);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at[0].offset as usize] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let e = log.files().read(at[0]).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn a_recovery_may_begin_at_a_segment_whose_predecessor_was_cut_back_later() {
    let dir = TempDir::new().unwrap();
    append(&open(dir.path()), &[(0, 1, "a"), (1, 1, "b"), (2, 1, "never committed")]);
    // A restart begins a new segment behind entry 2; then another leader replaces that entry.
    let log = open(dir.path());
    log.purge((1, 1));
    log.truncate_after(Some((1, 1)));
    append(&log, &[(2, 2, "c")]);
    let from = log.segment_from(0);
    assert_eq!(from, 2);
    drop(log);
    let log = Log::open(Arc::new(Host), dir.path(), from).unwrap();
    assert_eq!((texts(&log), log.view().purged), (vec!["2.2 c".into()], Some((1, 1))));
}
