//! Reads a container's log file as the runtime writes it: `time stream F|P text` per line.

use std::collections::VecDeque;

use jiff::Timestamp;

/// What of the log is asked for.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Options {
    pub follow: bool,
    pub tail_lines: Option<usize>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<usize>,
    /// `stdout` or `stderr`; both when `None`.
    pub stream: Option<&'static str>,
}

/// One line of the file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    /// The text goes on in the next line of this stream.
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let partial = parts.next()?.starts_with(b"P");
    Some(Line { time, stream, partial, text: parts.next()? })
}

/// Turns bytes of the file into what the client gets.
#[derive(Debug)]
pub struct Printer {
    options: Options,
    /// An incomplete line at the end of what was read.
    rest: Vec<u8>,
    left: Option<usize>,
    /// The last line printed was partial: no new timestamp.
    continues: bool,
}

impl Printer {
    /// A printer for one client.
    pub fn new(options: Options) -> Self {
        let left = options.limit_bytes;
        Self { options, rest: Vec::new(), left, continues: false }
    }

    /// Whether the byte limit is reached.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(line) else { return };
        if self.options.stream.is_some_and(|s| s != line.stream) {
            return;
        }
        if let Some(since) = self.options.since
            && line.time.parse::<Timestamp>().is_ok_and(|t| t < since)
        {
            return;
        }
        let start = out.len();
        if self.options.timestamps && !self.continues {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.continues = line.partial;
        if let Some(left) = &mut self.left {
            let printed = (out.len() - start).min(*left);
            out.truncate(start + printed);
            *left -= printed;
        }
    }

    /// Takes more bytes of the file in; answers with what they print.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut data = std::mem::take(&mut self.rest);
        data.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(end) = data[at..].iter().position(|b| *b == b'\n') {
            if self.is_full() {
                return out;
            }
            self.print(&data[at..at + end], &mut out);
            at += end + 1;
        }
        self.rest = data.split_off(at);
        out
    }
}

/// Where the last `lines` complete lines of a log begin, in bytes. `read` gives the bytes at an
/// offset; blocks are read from the end.
///
/// # Errors
/// Those of `read`.
pub fn tail_offset(
    size: u64,
    lines: usize,
    mut read: impl FnMut(u64, usize) -> std::io::Result<Vec<u8>>,
) -> std::io::Result<u64> {
    const BLOCK: u64 = 16 * 1024;
    if lines == 0 {
        return Ok(size);
    }
    // Offsets just after line ends, newest first; one more than asked for marks the start.
    let mut found: VecDeque<u64> = VecDeque::new();
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let length = usize::try_from(end - start).expect("a block fits into memory");
        let block = read(start, length)?;
        for (i, byte) in block.iter().enumerate().rev() {
            let after = start + i as u64 + 1;
            if *byte == b'\n' && after < size {
                found.push_back(after);
                if found.len() == lines {
                    return Ok(after);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr F two\n\
        2026-01-01T00:00:03Z stdout P th\n2026-01-01T00:00:03Z stdout F ree\n";

    fn print(options: Options) -> String {
        let mut printer = Printer::new(options);
        let (a, b) = LOG.as_bytes().split_at(40);
        let out = [printer.feed(a), printer.feed(b)].concat();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_printed_by_options() {
        assert_eq!(print(Options::default()), "one\ntwo\nthree\n");
        let timestamps = print(Options { timestamps: true, ..Default::default() });
        assert!(timestamps.ends_with("2026-01-01T00:00:03Z three\n"));
        assert_eq!(
            print(Options { since: "2026-01-01T00:00:02Z".parse().ok(), ..Default::default() }),
            "two\nthree\n"
        );
        assert_eq!(print(Options { limit_bytes: Some(6), ..Default::default() }), "one\ntw");
        assert_eq!(print(Options { stream: Some("stderr"), ..Default::default() }), "two\n");
    }

    #[test]
    fn tails() {
        let text = "a\nb\nc\n";
        let read = |at: u64, n: usize| Ok(text.as_bytes()[at as usize..at as usize + n].to_vec());
        let tail = |lines| tail_offset(text.len() as u64, lines, read).unwrap();
        assert_eq!([tail(0), tail(1), tail(2), tail(3), tail(9)], [6, 4, 2, 0, 0]);
        let long = format!("{}\nend\n", "x".repeat(40_000));
        let read = |at: u64, n: usize| Ok(long.as_bytes()[at as usize..at as usize + n].to_vec());
        assert_eq!(tail_offset(long.len() as u64, 1, read).unwrap(), 40_001);
    }
}
