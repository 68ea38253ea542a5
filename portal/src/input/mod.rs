//! What callers send, and the rules that it has to keep. Pure.

pub mod cluster;
pub mod node_group;

use crate::problem::FieldError;

/// Longest name of a cluster or node group: names of Nodes and certificates are made from it.
pub const NAME_MAX: usize = 40;

/// A DNS label (RFC 1123) of at most [`NAME_MAX`] characters.
pub(crate) fn check_name(field: &str, name: &str, errors: &mut Vec<FieldError>) {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let good = name.len() <= NAME_MAX
        && name.chars().all(inner)
        && edge(name.chars().next())
        && edge(name.chars().next_back());
    if !good {
        errors.push(FieldError::new(
            field,
            format!(
                "must have 1 to {NAME_MAX} characters, only lower-case letters, digits and dashes, \
                 and begin and end with a letter or digit."
            ),
        ));
    }
}

/// A number in a range, both ends allowed.
pub(crate) fn check_range(
    field: &str,
    value: i64,
    range: std::ops::RangeInclusive<i64>,
    unit: &str,
    errors: &mut Vec<FieldError>,
) {
    if !range.contains(&value) {
        let (low, high) = (range.start(), range.end());
        errors.push(FieldError::new(field, format!("must be {low} to {high}{unit}, is {value}.")));
    }
}
