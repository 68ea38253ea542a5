//! Label selectors and field selectors: parsed once, matched often and without allocation.
//!
//! Source: Kubernetes documentation "Labels and Selectors" and "Field Selectors".

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::names;

/// The text or object is not a selector; says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

fn error<T>(text: impl Into<String>) -> Result<T, SelectorError> {
    Err(SelectorError(text.into()))
}

/// How a requirement compares the label with its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is one of the values.
    In,
    /// The label is absent or none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is a whole number above the value.
    GreaterThan,
    /// The label is a whole number below the value.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values; empty for `Exists` and `DoesNotExist`.
    pub values: Vec<String>,
}

impl Requirement {
    /// A checked requirement: key, number of values and (for `In`-like operators) values are legal.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        values: Vec<String>,
    ) -> Result<Self, SelectorError> {
        let key = key.into();
        if let Err(faults) = names::qualified_name(&key) {
            return error(format!("key: Invalid value: {key:?}: {}", faults.join("; ")));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return error("for 'in', 'notin' operators, values set can't be empty");
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return error("values set must be empty for exists and does not exist");
            }
            Operator::GreaterThan | Operator::LessThan
                if values.len() != 1 || values[0].parse::<i64>().is_err() =>
            {
                return error("for 'Gt', 'Lt' operators, the value must be an integer");
            }
            _ => {}
        }
        for value in &values {
            if let Err(faults) = names::label_value(value) {
                return error(format!(
                    "values[0][{key}]: Invalid value: {value:?}: {}",
                    faults.join("; ")
                ));
            }
        }
        Ok(Self { key, operator, values })
    }

    fn matches(&self, label: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|value| value == v);
        let number = || label.and_then(|v| v.parse::<i64>().ok());
        let bound = || self.values.first().and_then(|v| v.parse::<i64>().ok());
        match self.operator {
            Operator::In => label.is_some_and(listed),
            Operator::NotIn => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => matches!((number(), bound()), (Some(n), Some(b)) if n > b),
            Operator::LessThan => matches!((number(), bound()), (Some(n), Some(b)) if n < b),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In if self.values.len() == 1 => write!(f, "{key}={values}"),
            Operator::NotIn if self.values.len() == 1 => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A label selector: every requirement must hold. Without requirements it matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// From parts.
    pub fn from_requirements(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// Exact labels, as in a Service's or ReplicationController's `spec.selector`.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirement = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            operator: Operator::In,
            values: vec![value.to_owned()],
        };
        Self::from_requirements(labels.into_iter().map(requirement).collect())
    }

    /// From a JSON map of exact labels. `null`, absent or empty selects everything.
    pub fn from_label_map(labels: &Value) -> Self {
        let entries = labels.as_object().into_iter().flatten();
        Self::from_labels(entries.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))))
    }

    /// From a `meta/v1 LabelSelector`. `null` selects nothing, `{}` everything.
    pub fn from_json(selector: &Value) -> Result<Self, SelectorError> {
        let Some(selector) = selector.as_object() else {
            return if selector.is_null() { Ok(Self::nothing()) } else { error("not an object") };
        };
        let mut requirements = Vec::new();
        for (key, value) in
            selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten()
        {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::In, vec![value])?);
        }
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return error(format!("{other:?} is not a valid label selector operator")),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(|v| Some(v.as_str()?.to_owned())).collect();
            let key = expression["key"].as_str().unwrap_or_default();
            requirements.push(Requirement::new(key, operator, values)?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// From the text of a `labelSelector` query parameter. Empty selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { tokens: tokenize(text)?, at: 0 };
        let mut requirements = Vec::new();
        if parser.peek() == &Token::End {
            return Ok(Self::everything());
        }
        loop {
            requirements.push(parser.requirement()?);
            match parser.next() {
                Token::End => return Ok(Self::from_requirements(requirements)),
                Token::Comma if parser.peek() != &Token::End => {}
                other => {
                    return error(format!("found '{other}', expected: ',' or 'end of string'"));
                }
            }
        }
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True when nothing is asked for.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Matches labels that a function looks up.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Matches a JSON map of labels; `null` is an empty map.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.matches(|key| labels.get(key)?.as_str())
    }

    /// Matches an object by its `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches_labels(&object["metadata"]["labels"])
    }

    /// Matches a map of labels.
    pub fn matches_map(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Not,
    Equal,
    NotEqual,
    Greater,
    Less,
    Open,
    Close,
    Comma,
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Token::Word(word) => word,
            Token::Not => "!",
            Token::Equal => "=",
            Token::NotEqual => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::Open => "(",
            Token::Close => ")",
            Token::Comma => ",",
            Token::End => "",
        })
    }
}

fn tokenize(text: &str) -> Result<Vec<Token>, SelectorError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '>' => (Token::Greater, 1),
            '<' => (Token::Less, 1),
            '=' if rest.starts_with("==") => (Token::Equal, 2),
            '=' => (Token::Equal, 1),
            '!' if rest.starts_with("!=") => (Token::NotEqual, 2),
            '!' => (Token::Not, 1),
            _ => {
                let stop = |c: char| c.is_whitespace() || "()!,=<>".contains(c);
                let end = rest.find(stop).unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens.push(Token::End);
    Ok(tokens)
}

struct Parser {
    /// Ends with `End`, which is never stepped over.
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at]
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == &Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => {
                return error(format!(
                    "found '{other}', expected: !, identifier, or 'end of string'"
                ));
            }
        };
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let (operator, set) = match self.next() {
            Token::Equal => (Operator::In, false),
            Token::NotEqual => (Operator::NotIn, false),
            Token::Greater => (Operator::GreaterThan, false),
            Token::Less => (Operator::LessThan, false),
            Token::Word(word) if word == "in" => (Operator::In, true),
            Token::Word(word) if word == "notin" => (Operator::NotIn, true),
            other => {
                return error(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        let values = if set { self.set()? } else { vec![self.exact()] };
        Requirement::new(key, operator, values)
    }

    /// A value after `=`; an absent one is the empty string.
    fn exact(&mut self) -> String {
        match self.peek() {
            Token::Word(_) => self.next().to_string(),
            _ => String::new(),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        if self.next() != Token::Open {
            return error("found no '(' after in or notin");
        }
        let mut values = vec![self.exact()];
        loop {
            match self.next() {
                Token::Comma => values.push(self.exact()),
                Token::Close => return Ok(values),
                other => return error(format!("found '{other}', expected: ',' or ')'")),
            }
        }
    }
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Field path: `metadata.name`.
    pub field: String,
    /// The value to compare with.
    pub value: String,
    /// True for `!=`.
    pub negated: bool,
}

/// A field selector: every requirement must hold.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// From the text of a `fieldSelector` query parameter: `a=b,c!=d`, with `\` before a literal
    /// `,`, `=` or `\`. Empty selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let terms = split_unescaped(text);
        let terms = terms.into_iter().filter(|term| !term.is_empty());
        let requirements = terms.map(field_requirement).collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    /// The requirements.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// True when nothing is asked for.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that a field must have, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let mut found = self.requirements.iter().filter(|r| r.field == field && !r.negated);
        found.next().map(|r| r.value.as_str())
    }

    /// Matches fields that a function looks up; a field that is not there is the empty string.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (field(&r.field).unwrap_or("") == r.value) != r.negated)
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn field_requirement(term: &str) -> Result<FieldRequirement, SelectorError> {
    let Some(at) = term.find(['=', '!']) else {
        return error(format!("invalid selector: '{term}'; can't understand '{term}'"));
    };
    let (field, rest) = term.split_at(at);
    let (negated, raw) = if let Some(raw) = rest.strip_prefix("!=") {
        (true, raw)
    } else if let Some(raw) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        (false, raw)
    } else {
        return error(format!("invalid selector: '{term}'; can't understand '{term}'"));
    };
    let mut value = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(literal @ (',' | '=' | '\\')) => value.push(literal),
                _ => {
                    return error(format!(
                        "invalid field selector: invalid escape sequence in {raw:?}"
                    ));
                }
            },
            '=' => return error(format!("invalid field selector: unescaped '=' in {raw:?}")),
            _ => value.push(c),
        }
    }
    Ok(FieldRequirement { field: field.to_owned(), value, negated })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parsing_and_matching_labels() {
        let labels = json!({"app": "web", "tier": "front", "n": "7"});
        for (text, wanted) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!nope", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("nope!=x", true),
            ("app in (db, web)", true),
            ("app notin (db)", true),
            ("app in (db),tier", false),
            ("n>6", true),
            ("n<7", false),
            ("tier = front , app=web", true),
            ("nope=", false),
        ] {
            assert_eq!(
                LabelSelector::parse(text).unwrap().matches_labels(&labels),
                wanted,
                "{text}"
            );
        }
        for bad in ["=x", "a b", "a in b", "a in (b", "a,", "-a", "a=-", "a>b", "a in ()x", ","] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn selectors_from_objects() {
        let selector = LabelSelector::from_json(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}],
        }))
        .unwrap();
        assert!(selector.matches_labels(&json!({"app": "web"})));
        assert!(!selector.matches_labels(&json!({"app": "web", "tier": "back"})));
        assert_eq!(selector.to_string(), "app=web,tier!=back");
        assert!(LabelSelector::from_json(&json!({})).unwrap().matches_labels(&Value::Null));
        assert!(
            !LabelSelector::from_json(&Value::Null).unwrap().matches_labels(&json!({"a": "b"}))
        );
    }

    #[test]
    fn field_selectors() {
        let selector = FieldSelector::parse(r"metadata.name=a\,b,spec.nodeName!=x").unwrap();
        let node = |field: &str| match field {
            "metadata.name" => Some("a,b"),
            _ => None,
        };
        assert!(selector.matches(node));
        assert_eq!(selector.exact("metadata.name"), Some("a,b"));
        assert!(FieldSelector::parse("spec.nodeName=").unwrap().matches(|_| None));
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
