//! A kindness to old clients.
//!
//! etcdctl 3.4 dials the endpoint of a maintenance call (`endpoint status`, `endpoint hashkv`,
//! `defrag`) with its whole URL as the HTTP/2 `:authority`. Go's servers take it, hyper's answers
//! PROTOCOL_ERROR, because a `/` cannot be in an authority (RFC 3986). [`FixAuthority`] reads the
//! client's first HEADERS frame and, if the authority begins with `http://` or `https://`,
//! replaces `://` by `B--`. The Huffman codes of these characters have the same lengths, so the
//! frame, and the size that both sides account for in the HPACK table, stay what they are. Nobody
//! reads the authority after that. Everything behind the first HEADERS frame passes untouched.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
/// A client that has not sent HEADERS by then is left alone.
const MAX_BUFFERED: usize = 64 << 10;

/// "literal with incremental indexing, name 1", the only way a Go client sends `:authority` first.
const LITERAL_AUTHORITY: u8 = 0x41;
const HUFFMAN: u8 = 0x80;

/// Huffman-coded `http://` (41 bits) and `https://` (46 bits), what replaces them, and the mask of
/// the last byte's bits that belong to it. RFC 7541, appendix B.
const PATTERNS: [([u8; 6], [u8; 6], u8); 2] = [
    ([0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x00], [0x9d, 0x29, 0xae, 0xea, 0xcb, 0x00], 0x80),
    ([0x9d, 0x29, 0xad, 0x17, 0x18, 0x60], [0x9d, 0x29, 0xad, 0x17, 0x56, 0x58], 0xfc),
];

/// Replaces the URL scheme in the `:authority` of a header block, if there is one.
fn fix_block(block: &mut [u8]) {
    for at in 0..block.len().saturating_sub(8) {
        if block[at] != LITERAL_AUTHORITY || block[at + 1] & HUFFMAN == 0 {
            continue;
        }
        let text = &mut block[at + 2..at + 8];
        for (find, replace, mask) in PATTERNS {
            if text[..5] == find[..5] && text[5] & mask == find[5] {
                text[..5].copy_from_slice(&replace[..5]);
                text[5] = replace[5] | (text[5] & !mask);
                return;
            }
        }
    }
}

/// Bytes from a client until its first HEADERS frame is complete.
#[derive(Default)]
struct Opening {
    bytes: Vec<u8>,
    /// Bytes that may be passed on.
    ready: usize,
    done: bool,
}

impl Opening {
    fn feed(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        let n = self.bytes.len().min(PREFACE.len());
        if self.bytes[..n] != PREFACE[..n] || self.bytes.len() > MAX_BUFFERED {
            self.done = true;
        }
        if self.ready == 0 && n == PREFACE.len() {
            self.ready = n;
        }
        while !self.done && self.ready >= PREFACE.len() {
            let Some(head) = self.bytes[self.ready..].first_chunk::<FRAME_HEAD>() else {
                return;
            };
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let kind = head[3];
            let end = self.ready + FRAME_HEAD + len;
            if kind == HEADERS {
                if self.bytes.len() < end {
                    return;
                }
                fix_block(&mut self.bytes[self.ready + FRAME_HEAD..end]);
                self.done = true;
            } else if self.bytes.len() < end {
                return;
            } else {
                self.ready = end;
            }
        }
        if self.done {
            self.ready = self.bytes.len();
        }
    }
}

/// A connection from a client.
pub struct FixAuthority<S> {
    inner: S,
    /// Gone when everything passes through.
    opening: Option<Opening>,
    /// Bytes of the opening that were passed on.
    passed: usize,
}

impl<S> FixAuthority<S> {
    /// Wraps a fresh connection.
    pub fn new(inner: S) -> Self {
        Self { inner, opening: Some(Opening::default()), passed: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FixAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let Some(opening) = &mut this.opening else {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            };
            let waiting = &opening.bytes[this.passed..opening.ready];
            if !waiting.is_empty() {
                let n = waiting.len().min(buf.remaining());
                buf.put_slice(&waiting[..n]);
                this.passed += n;
                return Poll::Ready(Ok(()));
            }
            if opening.done {
                this.opening = None;
                continue;
            }
            let mut space = [0; 4096];
            let mut piece = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                // The end, with whatever there was.
                opening.done = true;
                opening.ready = opening.bytes.len();
                if this.passed == opening.ready {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            opening.feed(piece.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FixAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::mangled::{mangle, rounds};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tokio::io::AsyncReadExt;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.push(kind);
        out.extend_from_slice(&[0, 0, 0, 0, 1]);
        out.extend_from_slice(payload);
        out
    }

    /// Huffman code of the characters that the tests need: (code, bits).
    fn huffman(text: &str) -> Vec<u8> {
        let mut bits = String::new();
        for c in text.chars() {
            let (code, len) = match c {
                'h' => (0x27, 6),
                't' => (0x09, 5),
                'p' => (0x2b, 6),
                's' => (0x08, 5),
                ':' => (0x5c, 7),
                '/' => (0x18, 6),
                'B' => (0x5d, 7),
                '-' => (0x16, 6),
                '.' => (0x17, 6),
                '0' => (0x00, 5),
                '1' => (0x01, 5),
                '2' => (0x02, 5),
                '7' => (0x1d, 6),
                other => panic!("{other}"),
            };
            bits.push_str(&format!("{code:0len$b}"));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        (0..bits.len() / 8)
            .map(|i| u8::from_str_radix(&bits[i * 8..i * 8 + 8], 2).unwrap())
            .collect()
    }

    fn block(authority: &str) -> Vec<u8> {
        let text = huffman(authority);
        let mut out = vec![0x83, 0x86, LITERAL_AUTHORITY, HUFFMAN | text.len() as u8];
        out.extend(text);
        out.extend([0x5f, 0x01, b'x']);
        out
    }

    async fn through(input: &[u8]) -> Vec<u8> {
        // One byte at a time: every boundary is hit.
        let mut fixed = FixAuthority::new(tokio_test_reader(input.to_vec()));
        let mut out = Vec::new();
        fixed.read_to_end(&mut out).await.unwrap();
        out
    }

    fn tokio_test_reader(bytes: Vec<u8>) -> impl AsyncRead + Unpin {
        let pieces = bytes.into_iter().map(|b| Ok::<_, io::Error>(bytes::Bytes::from(vec![b])));
        tokio_util::io::StreamReader::new(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_url_as_authority_becomes_a_valid_one_of_the_same_size() {
        for (url, fixed) in [
            ("http://127.0.0.1:2", "httpB--127.0.0.1:2"),
            ("https://127.0.0.1:2", "httpsB--127.0.0.1:2"),
            ("127.0.0.1:2", "127.0.0.1:2"),
        ] {
            let rest = [frame(0, &block("http://1")), frame(1, &block("http://1"))].concat();
            let start = [PREFACE, &frame(4, &[0; 6])].concat();
            let input = [&start[..], &frame(1, &block(url)), &rest].concat();
            let expected = [&start[..], &frame(1, &block(fixed)), &rest].concat();
            assert_eq!(through(&input).await, expected, "{url}");
        }
    }

    #[tokio::test]
    async fn what_is_not_http2_passes() {
        for input in [&b"GET /health HTTP/1.1\r\n\r\n"[..], b"", b"PRI * HT"] {
            assert_eq!(through(input).await, input);
        }
    }

    #[tokio::test]
    async fn whatever_a_client_sends_comes_through_but_for_one_scheme() {
        let block = block("https://127.0.0.1:2");
        let whole = [PREFACE, &frame(4, &[0; 6]), &frame(1, &block), &frame(0, &[7; 900])].concat();
        for seed in 0..rounds() {
            let random = &mut StdRng::seed_from_u64(seed);
            let mut input = whole.clone();
            mangle(&mut input, random);
            let output = through(&input).await;
            assert_eq!(output.len(), input.len(), "seed {seed}");
            let changed = input.iter().zip(&output).filter(|(sent, came)| sent != came).count();
            assert!(changed <= 6, "seed {seed}: {changed} bytes");
        }
    }
}
