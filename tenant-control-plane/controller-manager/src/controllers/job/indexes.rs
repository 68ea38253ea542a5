//! Sets of completion indexes, in the compressed form of `status.completedIndexes`: `1,3-5,7`.

use std::collections::BTreeMap;

/// Indexes as intervals: their number does not matter, only that of the gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// The last index of each interval, by its first. No two overlap or touch.
    intervals: BTreeMap<i32, i32>,
}

impl Indexes {
    /// Reads the compressed form; what cannot be read or is not below `completions` is left out.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let mut set = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(from), Ok(to)) = (from.parse::<i32>(), to.parse::<i32>()) {
                set.add(from, to.min(completions.saturating_sub(1)));
            }
        }
        set
    }

    fn add(&mut self, mut first: i32, mut last: i32) {
        if first > last {
            return;
        }
        // From the end: the intervals that overlap or touch the new one become part of it.
        while let Some((&start, &end)) = self.intervals.range(..=last.saturating_add(1)).next_back()
        {
            if end < first.saturating_sub(1) {
                break;
            }
            (first, last) = (first.min(start), last.max(end));
            self.intervals.remove(&start);
        }
        self.intervals.insert(first, last);
    }

    /// Adds an index.
    pub(super) fn insert(&mut self, index: i32) {
        self.add(index, index);
    }

    /// True when the index is in the set.
    pub(super) fn contains(&self, index: i32) -> bool {
        self.intervals.range(..=index).next_back().is_some_and(|(_, last)| index <= *last)
    }

    /// True when there is no index in the set.
    pub(super) fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// How many indexes there are.
    pub(super) fn len(&self) -> i32 {
        let sizes = self.intervals.iter().map(|(first, last)| i64::from(*last) - i64::from(*first));
        i32::try_from(sizes.map(|size| size + 1).sum::<i64>()).unwrap_or(i32::MAX)
    }

    /// The indexes that are also in the other set.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (&first, &last) in &self.intervals {
            let before = other.intervals.range(..first).next_back();
            for (&start, &end) in before.into_iter().chain(other.intervals.range(first..=last)) {
                both.add(first.max(start), last.min(end));
            }
        }
        both
    }

    /// Writes the compressed form.
    pub(super) fn format(&self) -> String {
        let parts = self.intervals.iter().map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        });
        parts.collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compressed_form_round_trips() {
        for text in ["", "0", "0,1", "1,3-5,7", "0-99"] {
            assert_eq!(Indexes::parse(text, 200).format(), text);
        }
        assert_eq!(Indexes::parse("1,3-5000000", 6).format(), "1,3-5");
        assert_eq!(Indexes::parse("5-3,x,4-", 6).format(), "");
    }

    #[test]
    fn intervals_join_when_they_touch() {
        let mut set = Indexes::default();
        for index in [7, 3, 5, 4, 0, 3] {
            set.insert(index);
        }
        assert_eq!((set.format().as_str(), set.len()), ("0,3-5,7", 5));
        assert!(set.contains(4) && !set.contains(6) && !set.contains(8) && !set.contains(-1));
        assert_eq!(Indexes::parse("2-9,4,0-5", 20).format(), "0-9");
    }

    #[test]
    fn the_size_of_an_interval_costs_nothing() {
        let all = Indexes::parse("0-2147483646", i32::MAX);
        assert_eq!(all.len(), i32::MAX);
        let some = Indexes::parse("1,3-5,100-2000000000", i32::MAX);
        assert_eq!(all.intersection(&some), some);
        assert_eq!(some.intersection(&all), some);
        assert_eq!(some.intersection(&Indexes::parse("4-7,99,101", 200)).format(), "4,5,101");
    }
}
