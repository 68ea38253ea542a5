//! How results are printed.

use serde_json::Value;

use crate::args::Format;
use crate::failure::Failure;

/// Title of a column and how its cell is made.
pub type Column = (&'static str, fn(&Value) -> String);

/// Prints one object or a page of them.
pub fn print(format: Format, answer: &Value, columns: &[Column]) -> Result<(), Failure> {
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(answer)?),
        Format::Yaml => print!("{}", serde_yaml_ng::to_string(answer)?),
        Format::Table => {
            let rows = match answer["items"].as_array() {
                Some(items) => items.iter().collect(),
                None => vec![answer],
            };
            print!("{}", table(&rows, columns));
        }
    }
    Ok(())
}

/// Columns as wide as their widest cell.
fn table(rows: &[&Value], columns: &[Column]) -> String {
    let mut lines = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|(_, cell)| cell(row)).collect()));
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("   ").trim_end();
        text.push('\n');
    }
    text
}

/// A text field.
pub fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Time since a moment (Unix ms).
pub fn age(value: &Value, key: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    match value[key].as_i64() {
        None => String::new(),
        Some(then) => match (now - then).max(0) / 1000 {
            seconds @ 0..120 => format!("{seconds}s"),
            seconds @ 120..7200 => format!("{}m", seconds / 60),
            seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
            seconds => format!("{}d", seconds / 86_400),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned() {
        let (one, two) = (json!({"a": "x", "b": 1}), json!({"a": "long", "b": 22}));
        let columns: [Column; 2] = [("A", |v| text(v, "a")), ("B", |v| text(v, "b"))];
        assert_eq!(table(&[&one, &two], &columns), "A      B\nx      1\nlong   22\n");
    }
}
