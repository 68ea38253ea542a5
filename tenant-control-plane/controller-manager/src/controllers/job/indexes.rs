//! Sets of completion indexes, in the compressed form of `status.completedIndexes`: `1,3-5,7`.

use std::collections::BTreeSet;

/// Reads the compressed form; what cannot be read or is not below `completions` is left out.
pub(super) fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<i32>(), to.parse::<i32>()) {
            set.extend(from..=to.min(completions - 1));
        }
    }
    set
}

/// Writes the compressed form.
pub(super) fn format(set: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &index in set {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let parts = ranges.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compressed_form_round_trips() {
        for text in ["", "0", "0,1", "1,3-5,7", "0-99"] {
            assert_eq!(format(&parse(text, 200)), text);
        }
        assert_eq!(format(&parse("1,3-5000000", 6)), "1,3-5");
    }
}
