//! Header blocks: name-value lists, compressed with one zlib stream per direction for the life of
//! the connection, primed with SPDY's dictionary (Draft 3.1 section 2.6.10).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{LARGEST_HEADERS, MOST_HEADERS, SpdyError};

/// The dictionary of SPDY/3 and 3.1, byte for byte as the draft lists it.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

/// Names (lower case) and values, in order.
pub type Headers = Vec<(String, String)>;

/// The sending half of a connection's header compression.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::new(6), true);
        compress.set_dictionary(DICTIONARY).expect("a fresh zlib stream takes a dictionary");
        Self(compress)
    }

    pub(super) fn block(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = Vec::with_capacity(128);
        plain.extend((headers.len() as u32).to_be_bytes());
        for (name, value) in headers {
            for text in [name.to_ascii_lowercase().as_bytes(), value.as_bytes()] {
                plain.extend((text.len() as u32).to_be_bytes());
                plain.extend(text);
            }
        }
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            let before = packed.len();
            packed.reserve(256);
            self.0
                .compress_vec(&plain[done..], &mut packed, FlushCompress::Sync)
                .expect("deflating into a growing buffer cannot fail");
            let all_in = (self.0.total_in() - start) as usize == plain.len();
            // A flush is complete when it left room in the buffer.
            if all_in && (packed.len() < packed.capacity() || packed.len() == before) {
                return packed;
            }
        }
    }
}

/// The receiving half.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn block(&mut self, packed: &[u8]) -> Result<Headers, SpdyError> {
        let mut plain = Vec::with_capacity(1024);
        let mut rest = packed;
        loop {
            let (in_before, out_before) = (self.0.total_in(), plain.len());
            if plain.capacity() == plain.len() {
                plain.reserve(1024);
            }
            let result = self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            rest = &rest[(self.0.total_in() - in_before) as usize..];
            if plain.len() > LARGEST_HEADERS {
                return Err(SpdyError::Protocol("the header block is too large"));
            }
            match result {
                Ok(Status::StreamEnd) => {
                    return Err(SpdyError::Protocol("the header compression ended"));
                }
                Ok(_) if rest.is_empty() && plain.len() < plain.capacity() => break,
                Ok(_) if self.0.total_in() == in_before && plain.len() == out_before => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(DICTIONARY)
                        .map_err(|_| SpdyError::Protocol("unknown compression dictionary"))?;
                }
                Err(_) => return Err(SpdyError::Protocol("the header block does not inflate")),
            }
        }
        parse(&plain)
    }
}

fn parse(plain: &[u8]) -> Result<Headers, SpdyError> {
    let short = || SpdyError::Protocol("the header block is cut short");
    let mut rest = plain;
    let number = |rest: &mut &[u8]| -> Result<usize, SpdyError> {
        let (digits, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        *rest = after;
        Ok(u32::from_be_bytes(*digits) as usize)
    };
    let count = number(&mut rest)?;
    if count > MOST_HEADERS {
        return Err(SpdyError::Protocol("too many headers"));
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let mut text = || -> Result<String, SpdyError> {
            let length = number(&mut rest)?;
            let (bytes, after) = rest.split_at_checked(length).ok_or_else(short)?;
            rest = after;
            Ok(String::from_utf8_lossy(bytes).into_owned())
        };
        headers.push((text()?, text()?));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn compression_state_is_carried_over_many_blocks() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let mut sizes = Vec::new();
        for round in 0..50 {
            let sent = headers(&[("streamtype", "stdout"), ("requestid", &round.to_string())]);
            let packed = deflater.block(&sent);
            sizes.push(packed.len());
            assert_eq!(inflater.block(&packed).unwrap(), sent, "round {round}");
        }
        assert!(sizes[1] < sizes[0], "{sizes:?}");
        let large = headers(&[("a", &"x".repeat(20_000)), ("b", "")]);
        assert_eq!(inflater.block(&deflater.block(&large)).unwrap(), large);
    }

    #[test]
    fn bombs_and_garbage_are_refused() {
        let bomb = headers(&[("a", &"x".repeat(LARGEST_HEADERS + 1))]);
        let packed = Deflater::new().block(&bomb);
        assert!(packed.len() < 1000);
        assert!(Inflater::new().block(&packed).is_err());
        assert!(Inflater::new().block(b"garbage that is no zlib").is_err());
        let many = headers(&vec![("a", "b"); MOST_HEADERS + 1]);
        assert!(Inflater::new().block(&Deflater::new().block(&many)).is_err());
    }
}
