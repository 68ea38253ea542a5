//! A set of ports, stored as upstream stores it: the bytes of one big-endian number whose bit N
//! stands for the Nth port of the range.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A set of ports of a range.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    first: u16,
    used: Vec<bool>,
}

impl Bitmap {
    /// The empty set.
    pub fn new(first: u16, last: u16) -> Self {
        Self { first, used: vec![false; usize::from(last - first) + 1] }
    }

    /// From its stored form; `None` when that is not base64.
    pub fn from_base64(first: u16, last: u16, data: &str) -> Option<Self> {
        let bytes = STANDARD.decode(data).ok()?;
        let mut bitmap = Self::new(first, last);
        for (at, used) in bitmap.used.iter_mut().enumerate() {
            let byte = bytes.len().checked_sub(at / 8 + 1).map_or(0, |i| bytes[i]);
            *used = byte & (1 << (at % 8)) != 0;
        }
        Some(bitmap)
    }

    /// The stored form.
    pub fn to_base64(&self) -> String {
        let mut bytes = vec![0u8; self.used.len().div_ceil(8)];
        let end = bytes.len();
        for (at, _) in self.used.iter().enumerate().filter(|(_, used)| **used) {
            bytes[end - at / 8 - 1] |= 1 << (at % 8);
        }
        let start = bytes.iter().position(|b| *b != 0).unwrap_or(end);
        STANDARD.encode(&bytes[start..])
    }

    fn index(&self, port: u16) -> Option<usize> {
        let at = usize::from(port.checked_sub(self.first)?);
        (at < self.used.len()).then_some(at)
    }

    /// Takes a port; false when it is taken or outside the range.
    pub fn take(&mut self, port: u16) -> bool {
        match self.index(port) {
            Some(at) => !std::mem::replace(&mut self.used[at], true),
            None => false,
        }
    }

    /// Takes any free port, at random.
    pub fn take_any(&mut self) -> Option<u16> {
        let start = rand::random_range(0..self.used.len());
        let at = (0..self.used.len())
            .map(|i| (start + i) % self.used.len())
            .find(|at| !self.used[*at])?;
        self.used[at] = true;
        Some(self.first + at as u16)
    }

    /// Gives a port back.
    pub fn clear(&mut self, port: u16) {
        if let Some(at) = self.index(port) {
            self.used[at] = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bitmap;

    #[test]
    fn the_stored_form_is_a_big_endian_number() {
        let mut bitmap = Bitmap::new(30000, 32767);
        assert!(bitmap.take(30000));
        assert!(bitmap.take(30009));
        assert!(!bitmap.take(30009));
        assert!(!bitmap.take(29999));
        let stored = bitmap.to_base64();
        assert_eq!(stored, "AgE=");
        assert!(Bitmap::from_base64(30000, 32767, &stored).unwrap() == bitmap);
        bitmap.clear(30000);
        assert!(bitmap.take(30000));
        let mut small = Bitmap::new(1, 2);
        assert!(small.take_any().is_some() && small.take_any().is_some());
        assert_eq!(small.take_any(), None);
    }
}
