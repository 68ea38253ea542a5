//! Go's notation of durations, which `meta/v1 Duration` has in JSON: `1h2m3.5s`.

const UNITS: [(&str, i64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds of a duration, or `None` when the text is none or out of range.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        rest = &rest[end..];
        let nanos = number * *unit as f64;
        if nanos >= i64::MAX as f64 {
            return None;
        }
        total = total.checked_add(nanos.round() as i64)?;
    }
    Some(sign * total)
}

/// The text that Go writes.
pub(crate) fn format(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let left = nanos.unsigned_abs();
    let fraction = |amount: u64, unit: u64| {
        let (whole, part) = (amount / unit, amount % unit);
        let width = unit.ilog10() as usize;
        let part = format!("{part:0width$}");
        match part.trim_end_matches('0') {
            "" => whole.to_string(),
            digits => format!("{whole}.{digits}"),
        }
    };
    match left {
        0..1_000 => return format!("{sign}{left}ns"),
        1_000..1_000_000 => return format!("{sign}{}µs", fraction(left, 1_000)),
        1_000_000..1_000_000_000 => return format!("{sign}{}ms", fraction(left, 1_000_000)),
        _ => {}
    }
    let seconds = left / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = left - (hours * 3600 + minutes * 60) * 1_000_000_000;
    let rest = fraction(rest, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{rest}s"),
        (0, _) => format!("{sign}{minutes}m{rest}s"),
        _ => format!("{sign}{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write_like_gos() {
        for (text, nanos) in [
            ("0s", 0),
            ("1s", 1_000_000_000),
            ("1.5s", 1_500_000_000),
            ("2m0s", 120_000_000_000),
            ("1h2m3s", 3_723_000_000_000),
            ("-5ms", -5_000_000),
            ("7ns", 7),
            ("1.25µs", 1250),
        ] {
            assert_eq!(format(nanos), text);
            assert_eq!(parse(text), Some(nanos), "{text}");
        }
        assert_eq!(parse("90m"), Some(5_400_000_000_000));
        assert_eq!(parse("x"), None);
        assert_eq!(parse("5"), None);
    }
}
