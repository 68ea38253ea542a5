//! Resource quantities: `500m`, `1Gi`, `12e6`.
//!
//! A quantity is held as an exact whole number of nano-units, the finest step that the API knows;
//! finer input is rounded away from zero and larger input is capped at 2^63−1 units, as the API
//! documents. Source: Kubernetes API reference, "Quantity".

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
const CAP: i128 = i64::MAX as i128 * NANOS;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// `k`, `M`, `G`, …, `m`, `u`, `n`.
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`, ….
    BinarySi,
    /// `e3`, `e6`, ….
    DecimalExponent,
}

/// An amount of a resource. Two quantities are equal when their amounts are, however written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression \
     '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseQuantityError;

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Whole units (cores, bytes, pods).
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANOS, format: Format::DecimalSi }
    }

    /// Thousandths of a unit (millicores).
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// Bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { format: Format::BinarySi, ..Self::from_units(bytes) }
    }

    /// Parses a JSON string or number; anything else is an error.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, ParseQuantityError> {
        match value {
            serde_json::Value::String(s) => s.parse(),
            serde_json::Value::Number(n) => n.to_string().parse(),
            _ => Err(ParseQuantityError),
        }
    }

    /// Whole units, rounded up.
    pub fn value(self) -> i64 {
        clamp(ceil_div(self.nanos, NANOS))
    }

    /// Thousandths, rounded up.
    pub fn milli_value(self) -> i64 {
        clamp(ceil_div(self.nanos, NANOS / 1000))
    }

    /// True for nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// True below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// True when the amount is a whole number of units.
    pub fn is_integer(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The format it was written in.
    pub fn format(self) -> Format {
        self.format
    }

    /// The larger of the two.
    pub fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }

    /// The amount times a whole number, capped.
    pub fn times(self, factor: i64) -> Self {
        let nanos = self.nanos.saturating_mul(i128::from(factor)).clamp(-CAP, CAP);
        Self { nanos, format: self.format }
    }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Division rounded up towards positive infinity.
fn ceil_div(a: i128, b: i128) -> i128 {
    let (quotient, rest) = (a / b, a % b);
    if rest > 0 { quotient + 1 } else { quotient }
}

/// The multiplier in nano-units of a suffix, as (mantissa factor, power of ten, format).
fn suffix(text: &str) -> Option<(i128, i32, Format)> {
    let decimal = |power| Some((1, power, Format::DecimalSi));
    let binary = |shift: u32| Some((1i128 << shift, 0, Format::BinarySi));
    match text {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let power = text.strip_prefix(['e', 'E'])?;
            Some((1, power.parse().ok()?, Format::DecimalExponent))
        }
    }
}

/// `digits × factor × 10^power`, in whole nano-units, rounded away from zero and capped.
fn scaled(digits: i128, factor: i128, power: i32) -> i128 {
    let base = digits.saturating_mul(factor);
    let power = power + 9;
    if power >= 0 {
        match 10i128.checked_pow(power as u32) {
            Some(p) => base.saturating_mul(p).min(CAP),
            None if base == 0 => 0,
            None => CAP,
        }
    } else {
        match 10i128.checked_pow(power.unsigned_abs()) {
            Some(p) => ceil_div(base, p).min(CAP),
            None => i128::from(base > 0),
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseQuantityError);
        }
        let (factor, mut power, format) = suffix(tail).ok_or(ParseQuantityError)?;
        if !(-1000..=1000).contains(&power) {
            return Err(ParseQuantityError);
        }
        let mut digits: i128 = 0;
        let mut dropped = false;
        for b in whole.bytes().chain(fraction.bytes()) {
            // Beyond 27 digits nothing more can matter but that something was there.
            if digits >= 10i128.pow(27) {
                dropped |= b != b'0';
                power += 1;
            } else {
                digits = digits * 10 + i128::from(b - b'0');
            }
        }
        power -= fraction.len() as i32;
        let nanos = scaled(digits + i128::from(dropped), factor, power);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that keeps the amount exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let units = self.nanos / NANOS;
        if self.format == Format::BinarySi && self.is_integer() && units.abs() >= 1024 {
            let shift = (units.trailing_zeros() / 10).min(6);
            let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][shift as usize];
            return write!(f, "{}{suffix}", units >> (shift * 10));
        }
        let (mut mantissa, mut power) = (self.nanos, -9);
        while mantissa % 1000 == 0 && power < 18 {
            mantissa /= 1000;
            power += 3;
        }
        if self.format == Format::DecimalExponent {
            return match power {
                0 => write!(f, "{mantissa}"),
                _ => write!(f, "{mantissa}e{power}"),
            };
        }
        let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((power + 9) / 3) as usize];
        write!(f, "{mantissa}{suffix}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum keeps the left side's format unless that side is nothing.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-CAP, CAP), format }
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, format: self.format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn canonical_forms() {
        for (given, wanted) in [
            ("0", "0"),
            ("0.0", "0"),
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("0.5Gi", "512Mi"),
            ("1024Mi", "1Gi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("1000", "1k"),
            ("100Mi", "100Mi"),
            ("1500Mi", "1500Mi"),
            ("12e6", "12e6"),
            ("1.2E3", "1200"),
            ("-5m", "-5m"),
            ("0.1n", "1n"),
            (".5", "500m"),
            ("5.", "5"),
            ("1E", "1E"),
            ("0.1Ki", "102400m"),
            ("3Ei", "3Ei"),
            ("10k", "10k"),
            ("1e3", "1e3"),
            ("2Ki", "2Ki"),
            ("1023Ki", "1023Ki"),
            ("500Ki", "500Ki"),
            ("64", "64"),
            ("1Ki", "1Ki"),
        ] {
            assert_eq!(canonical(given), wanted, "{given}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for bad in ["", "m", "1.2.3", "1 Gi", "1gi", "1KI", "e3", "0x1", "--1", "1e", "1e99999"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn arithmetic_and_rounding() {
        let q = |s: &str| s.parse::<Quantity>().unwrap();
        assert_eq!(q("1") + q("500m"), q("1500m"));
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!(q("1m").value(), 1);
        assert_eq!(q("-1500m").value(), -1);
        assert_eq!(q("1500u").milli_value(), 2);
        assert_eq!(q("99999999999999999999").value(), i64::MAX);
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("250m").times(4), q("1"));
    }
}
