//! Finds the times of sending in a stream of events, without parsing it.

use std::time::Duration;

/// What a stamp begins with; nothing else in an object has it.
const MARK: &[u8] = b"sent@";
/// Decimal digits of nanoseconds.
const DIGITS: usize = 15;
/// Characters of a stamp.
pub const WIDTH: usize = MARK.len() + DIGITS;

/// A stamp: [`WIDTH`] characters that need no escape in any form.
pub fn stamp(time: Duration) -> String {
    format!("sent@{:0DIGITS$}", time.as_nanos())
}

/// Scans the chunks of one stream, in JSON or protobuf: texts stand in both as they are.
#[derive(Debug, Default)]
pub struct Stamps {
    /// The end of the last chunk, when a stamp may go on in the next.
    rest: Vec<u8>,
}

impl Stamps {
    /// Calls `found` for every stamp that is complete now.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(Duration)) {
        let mut from = 0;
        if !self.rest.is_empty() {
            // A stamp that begins in the rest ends here.
            from = chunk.len().min(WIDTH);
            let kept = self.rest.len();
            self.rest.extend_from_slice(&chunk[..from]);
            let end = scan(&self.rest, &mut found);
            if from == chunk.len() {
                let keep = end.max(self.rest.len().saturating_sub(WIDTH - 1));
                self.rest.drain(..keep);
                return;
            }
            // Where the rest's last stamp ended in this chunk; a stamp that begins in the chunk may
            // have been cut off above and is looked for again.
            from = end.saturating_sub(kept);
        }
        let end = from + scan(&chunk[from..], &mut found);
        let keep = end.max(chunk.len().saturating_sub(WIDTH - 1));
        self.rest.clear();
        self.rest.extend_from_slice(&chunk[keep..]);
    }
}

/// Returns the end of the last stamp.
fn scan(bytes: &[u8], found: &mut impl FnMut(Duration)) -> usize {
    let mut end = 0;
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|byte| *byte == b'@') {
        at += offset + 1;
        let digits = bytes.get(at..at + DIGITS).filter(|_| bytes[..at].ends_with(MARK));
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        if let Some(nanoseconds) = number {
            found(Duration::from_nanos(nanoseconds));
            at += DIGITS;
            end = at;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_however_the_stream_is_cut() {
        let times: Vec<_> = [0, 7, 123_456_789_012].map(Duration::from_nanos).into();
        let text = format!(
            "{{\"a\":\"x@y\",\"sent\":\"{}\"}}\n\u{1}{}{}sent@ no sent@12",
            stamp(times[0]),
            stamp(times[1]),
            stamp(times[2])
        );
        for size in 1..=text.len() {
            let mut seen = Vec::new();
            let mut stamps = Stamps::default();
            for chunk in text.as_bytes().chunks(size) {
                stamps.feed(chunk, |time| seen.push(time));
            }
            assert_eq!(seen, times, "chunks of {size}");
        }
        assert_eq!(stamp(times[2]).len(), WIDTH);
    }
}
