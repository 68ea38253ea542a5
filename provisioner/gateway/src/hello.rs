//! Reads the server name out of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3).
//!
//! A pure parser over the bytes seen so far. A hello may be split over several records and
//! arrive in pieces of any size.

/// Longest hello that is read, bytes: post-quantum key shares take about 2 KiB.
pub const MAX_HELLO_BYTES: usize = 16 * 1024;

/// `alert(fatal, unrecognized_name)` as a TLS 1.2 record (RFC 8446 section 6; code 112).
pub const ALERT_UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// `alert(fatal, decode_error)` (code 50).
pub const ALERT_DECODE_ERROR: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x32];

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME_EXTENSION: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the bytes so far say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// More bytes are needed.
    Incomplete,
    /// A complete hello with this server name, in lower case.
    Name(String),
    /// A complete hello without a server name.
    NoName,
    /// Not a TLS client hello.
    Malformed,
}

/// Reads what it can from the bytes received so far.
pub fn parse(bytes: &[u8]) -> Hello {
    let message = match handshake_bytes(bytes) {
        Ok(message) => message,
        Err(()) => return Hello::Malformed,
    };
    let Some(header) = message.first_chunk::<4>() else { return Hello::Incomplete };
    if header[0] != CLIENT_HELLO {
        return Hello::Malformed;
    }
    let length =
        usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
    if length > MAX_HELLO_BYTES {
        return Hello::Malformed;
    }
    match message.get(4..4 + length) {
        Some(body) => server_name(body).unwrap_or(Hello::Malformed),
        None => Hello::Incomplete,
    }
}

/// Joins the payloads of the handshake records received so far.
fn handshake_bytes(mut bytes: &[u8]) -> Result<Vec<u8>, ()> {
    let mut message = Vec::new();
    while let Some(&kind) = bytes.first() {
        if kind != HANDSHAKE_RECORD || bytes.get(1).is_some_and(|major| *major != 3) {
            return Err(());
        }
        let Some(header) = bytes.first_chunk::<5>() else { break };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 {
            return Err(());
        }
        let rest = &bytes[5..];
        let payload = &rest[..length.min(rest.len())];
        message.extend_from_slice(payload);
        bytes = &rest[payload.len()..];
        if message.len() >= 4 && hello_complete(&message) {
            break;
        }
    }
    Ok(message)
}

fn hello_complete(message: &[u8]) -> bool {
    let length =
        usize::from(message[1]) << 16 | usize::from(message[2]) << 8 | usize::from(message[3]);
    message.len() >= 4 + length
}

/// A cursor that never reads past its end.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vec8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    fn vec16(&mut self) -> Option<Cursor<'a>> {
        let length = self.u16()?;
        self.take(usize::from(length)).map(Cursor)
    }
}

/// `None` when the body contradicts its own lengths.
fn server_name(body: &[u8]) -> Option<Hello> {
    let mut hello = Cursor(body);
    hello.take(2 + 32)?; // legacy_version, random
    hello.vec8()?; // legacy_session_id
    hello.vec16()?; // cipher_suites
    hello.vec8()?; // legacy_compression_methods
    if hello.0.is_empty() {
        return Some(Hello::NoName);
    }
    let mut extensions = hello.vec16()?;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut content = extensions.vec16()?;
        if kind != SERVER_NAME_EXTENSION {
            continue;
        }
        let mut names = content.vec16()?;
        while !names.0.is_empty() {
            let name_type = names.u8()?;
            let name = names.vec16()?;
            if name_type == HOST_NAME {
                return Some(host_name(name.0));
            }
        }
        return Some(Hello::NoName);
    }
    Some(Hello::NoName)
}

fn host_name(raw: &[u8]) -> Hello {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    match std::str::from_utf8(raw) {
        Ok(name) if !raw.is_empty() && raw.len() <= 253 && raw.iter().all(allowed) => {
            Hello::Name(name.trim_end_matches('.').to_ascii_lowercase())
        }
        _ => Hello::Malformed,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A minimal hello with the given extensions.
    pub(crate) fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 0x01]);
        body.extend([1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        message
    }

    pub(crate) fn record(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![HANDSHAKE_RECORD, 3, 1];
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    pub(crate) fn sni(name: &str) -> Vec<u8> {
        let name = name.as_bytes();
        let mut list = vec![HOST_NAME];
        list.extend((name.len() as u16).to_be_bytes());
        list.extend(name);
        let mut extension = vec![0, 0];
        extension.extend((list.len() as u16 + 2).to_be_bytes());
        extension.extend((list.len() as u16).to_be_bytes());
        extension.extend(list);
        extension
    }

    #[test]
    fn the_name_is_found_at_every_split() {
        let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
        extensions.extend(sni("3FA9C01D.marina.local"));
        let message = hello(&extensions);
        let name = Hello::Name("3fa9c01d.marina.local".into());
        for split in 1..message.len() {
            let (head, tail) = message.split_at(split);
            let two_records = [record(head), record(tail)].concat();
            assert_eq!(parse(&two_records), name, "records split at {split}");
        }
        let whole = record(&message);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Hello::Incomplete, "first {end} bytes");
        }
        assert_eq!(parse(&whole), name);
        assert_eq!(parse(&[whole, b"more".to_vec()].concat()), name, "what follows is not read");
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Hello::Malformed);
        assert_eq!(parse(&record(&[2, 0, 0, 0])), Hello::Malformed);
        assert_eq!(parse(&[22, 3, 1, 0, 0]), Hello::Malformed);
        assert_eq!(parse(&record(&[1, 0xff, 0, 0])), Hello::Malformed);
        assert_eq!(parse(&record(&hello(&[0, 0, 0, 9, 1]))), Hello::Malformed);
        assert_eq!(parse(&record(&hello(&sni("a b")))), Hello::Malformed);
        assert_eq!(parse(&record(&hello(&[]))), Hello::NoName);
    }

    #[test]
    fn no_input_makes_it_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let base = record(&hello(&sni("a.b")));
        for _ in 0..20_000 {
            let mut bytes = base.clone();
            for _ in 0..3 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let at = seed as usize % bytes.len();
                bytes[at] = (seed >> 32) as u8;
            }
            let _ = parse(&bytes);
        }
    }
}
