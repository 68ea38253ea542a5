//! The protobuf wire format: tags, varints, length-delimited values.

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf: {0}")]
pub struct Malformed(pub(super) &'static str);

/// A field's value as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a message, string or byte sequence was expected")),
        }
    }

    pub(super) fn text(self) -> Result<String, Malformed> {
        let text =
            std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a string is not UTF-8"))?;
        Ok(text.to_owned())
    }

    pub(super) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Wire::Varint(value) => Ok(value),
            _ => Err(Malformed("a number was expected")),
        }
    }

    pub(super) fn double(self) -> Result<f64, Malformed> {
        match self {
            Wire::Fixed64(bits) => Ok(f64::from_bits(bits)),
            Wire::Fixed32(bits) => Ok(f64::from(f32::from_bits(bits))),
            _ => Err(Malformed("a floating point number was expected")),
        }
    }
}

/// Reads one message.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field's tag and value; `None` at the end.
    pub(crate) fn next_field(&mut self) -> Result<Option<(u32, Wire<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| Malformed("a tag is too large"))?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take_array()?)),
            2 => {
                let length = usize::try_from(self.varint()?)
                    .map_err(|_| Malformed("a length is too large"))?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take_array()?)),
            _ => return Err(Malformed("an unknown wire type")),
        };
        Ok(Some((tag, value)))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let (first, rest) =
                self.rest.split_first().ok_or(Malformed("the message ends early"))?;
            self.rest = rest;
            if shift < 64 {
                value |= u64::from(first & 0x7f) << shift;
            }
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or(Malformed("the message ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("the message ends early"))
    }
}

/// Writes one message.
#[derive(Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    pub(crate) fn varint(&mut self, tag: u32, value: u64) {
        self.raw_varint(u64::from(tag) << 3);
        self.raw_varint(value);
    }

    /// A signed number, as `int32` and `int64` are written: sign-extended to 64 bits.
    pub(crate) fn int(&mut self, tag: u32, value: i64) {
        self.varint(tag, value as u64);
    }

    pub(crate) fn double(&mut self, tag: u32, value: f64) {
        self.raw_varint(u64::from(tag) << 3 | 1);
        self.out.extend(value.to_bits().to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, tag: u32, value: &[u8]) {
        self.length_prefix(tag, value.len());
        self.out.extend(value);
    }

    /// The tag and length of a message that the caller puts behind this one's bytes.
    pub(crate) fn length_prefix(&mut self, tag: u32, length: usize) {
        self.raw_varint(u64::from(tag) << 3 | 2);
        self.raw_varint(length as u64);
    }

    pub(crate) fn text(&mut self, tag: u32, value: &str) {
        self.bytes(tag, value.as_bytes());
    }
}
