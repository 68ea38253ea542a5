//! The part of kubectl's JSONPath that printed columns use: `.a.b`, `['a']`, `[0]`, `[*]` and
//! `[?(@.x=="y")]`.
//!
//! Source: Kubernetes documentation, "JSONPath Support" and "Additional printer columns".

use serde_json::Value;

/// The values at a path; none when the path leads nowhere or is not understood.
pub fn find<'v>(path: &str, root: &'v Value) -> Vec<&'v Value> {
    let mut at = vec![root];
    let mut rest = path.trim().trim_start_matches('$');
    while !rest.is_empty() && !at.is_empty() {
        let Some((step, tail)) = step(rest) else { return Vec::new() };
        at = at.into_iter().flat_map(|value| step.follow(value)).collect();
        rest = tail;
    }
    at
}

enum Step<'p> {
    Key(String),
    Index(i64),
    Every,
    Where { path: &'p str, value: &'p str, negated: bool },
}

impl Step<'_> {
    fn follow<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match self {
            Step::Key(key) => value.get(key).into_iter().collect(),
            Step::Index(index) => {
                let Some(items) = value.as_array() else { return Vec::new() };
                let index = if *index < 0 { *index + items.len() as i64 } else { *index };
                usize::try_from(index).ok().and_then(|i| items.get(i)).into_iter().collect()
            }
            Step::Every => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Step::Where { path, value: wanted, negated } => {
                let items = value.as_array().into_iter().flatten();
                let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                items
                    .filter(|item| find(path, item).iter().any(|v| text(v) == *wanted) != *negated)
                    .collect()
            }
        }
    }
}

/// The first step of a path, and the rest.
fn step(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(rest) = path.strip_prefix('[') {
        let end = closing(rest)?;
        return Some((bracket(&rest[..end])?, &rest[end + 1..]));
    }
    let rest = path.strip_prefix('.').unwrap_or(path);
    let mut key = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => key.push(chars.next()?.1),
            '.' | '[' => return Some((named(key), &rest[at..])),
            _ => key.push(c),
        }
    }
    Some((named(key), ""))
}

fn named(key: String) -> Step<'static> {
    if key == "*" { Step::Every } else { Step::Key(key) }
}

/// Position of the bracket that closes, with quotes and nesting in between.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step<'_>> {
    let inside = inside.trim();
    if inside == "*" {
        return Some(Step::Every);
    }
    if let Some(condition) = inside.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        let (path, value, negated) = match condition.split_once("==") {
            Some((path, value)) => (path, value, false),
            None => {
                let (path, value) = condition.split_once("!=")?;
                (path, value, true)
            }
        };
        let path = path.trim().strip_prefix('@')?;
        return Some(Step::Where { path, value: value.trim().trim_matches(['"', '\'']), negated });
    }
    match inside.parse() {
        Ok(index) => Some(Step::Index(index)),
        Err(_) => Some(Step::Key(inside.trim_matches(['"', '\'']).to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::find;
    use serde_json::json;

    #[test]
    fn paths_of_printed_columns() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "A", "status": "1"}, {"type": "Ready", "status": "True"}]},
            "spec": {"list": [1, 2, 3]},
        });
        let text = |path: &str| json!(find(path, &object)).to_string();
        assert_eq!(text(".spec.list[1]"), "[2]");
        assert_eq!(text(".spec.list[-1]"), "[3]");
        assert_eq!(text(".spec.list[*]"), "[1,2,3]");
        assert_eq!(text(r#".status.conditions[?(@.type=="Ready")].status"#), r#"["True"]"#);
        assert_eq!(text(r".metadata.labels.a\.b/c"), r#"["x"]"#);
        assert_eq!(text(".metadata.labels['a.b/c']"), r#"["x"]"#);
        assert_eq!(text(".nope.at[all"), "[]");
    }
}
