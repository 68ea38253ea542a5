//! Label selectors of typed objects. Source: Kubernetes documentation, "Labels and Selectors".

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether a `LabelSelector` selects the labels. An empty selector selects everything; an operator
/// that does not exist selects nothing.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let empty = Labels::new();
    let labels = labels.unwrap_or(&empty);
    let equal = selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    equal
        && selector.match_expressions.iter().flatten().all(|rule| {
            let values = rule.values.as_deref().unwrap_or_default();
            requirement(labels, &rule.key, &rule.operator, values)
        })
}

/// Whether a selector that may be absent selects the labels; an absent one selects nothing.
pub fn matches_opt(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    selector.is_some_and(|selector| matches(selector, labels))
}

/// Whether all of a plain map's pairs (`Service.spec.selector`) are among the labels.
pub fn matches_map(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(k, v)| labels.and_then(|labels| labels.get(k)) == Some(v))
}

/// One requirement of a selector: `In`, `NotIn`, `Exists`, `DoesNotExist`, and for nodes also `Gt`
/// and `Lt`.
pub fn requirement(labels: &Labels, key: &str, operator: &str, values: &[String]) -> bool {
    let value = labels.get(key);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = || match values {
        [bound] => number(bound),
        _ => None,
    };
    match operator {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(|v| number(v)).zip(bound()).is_some_and(|(v, b)| v > b),
        "Lt" => value.and_then(|v| number(v)).zip(bound()).is_some_and(|(v, b)| v < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    #[test]
    fn every_operator_selects_as_documented() {
        let labels = Labels::from([("app".into(), "web".into()), ("cpu".into(), "8".into())]);
        let holds = |key: &str, operator: &str, values: &[&str]| {
            let values: Vec<_> = values.iter().map(|&v| v.to_owned()).collect();
            requirement(&labels, key, operator, &values)
        };
        assert!(holds("app", "In", &["web", "db"]));
        assert!(!holds("app", "NotIn", &["web"]));
        assert!(holds("zone", "NotIn", &["a"]));
        assert!(holds("app", "Exists", &[]));
        assert!(holds("zone", "DoesNotExist", &[]));
        assert!(holds("cpu", "Gt", &["7"]) && !holds("cpu", "Gt", &["8"]));
        assert!(holds("cpu", "Lt", &["9"]) && !holds("app", "Lt", &["9"]));
        assert!(!holds("app", "Like", &["web"]));
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!matches_opt(None, None));
        assert!(matches(&LabelSelector::default(), None));
        let rule =
            LabelSelectorRequirement { key: "app".into(), operator: "Exists".into(), values: None };
        let selector = LabelSelector { match_expressions: Some(vec![rule]), match_labels: None };
        assert!(!matches(&selector, None));
    }
}
