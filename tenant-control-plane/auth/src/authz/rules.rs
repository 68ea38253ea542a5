//! One RBAC rule and whether it covers a request. Source: Kubernetes documentation, "Using RBAC
//! Authorization".

use machinery::RequestInfo;
use serde_json::{Map, Value, json};

/// A `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<String>,
    /// Object names; empty means every name.
    pub resource_names: Vec<String>,
    /// Paths, with `*` allowed at the end.
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// Reads a rule as it stands in a role. Fields that are missing or not lists of strings are
    /// empty, and so grant nothing.
    pub fn from_value(value: &Value) -> Self {
        let list = |key: &str| {
            let items = value[key].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// The rules of a Role or ClusterRole.
    pub fn all_of(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::from_value).collect()
    }

    /// The rule as it stands in a role.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, list) in [
            ("verbs", &self.verbs),
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !list.is_empty() {
                map.insert(key.into(), json!(list));
            }
        }
        Value::Object(map)
    }

    /// True when the rule allows the request.
    pub fn allows(&self, request: &RequestInfo) -> bool {
        if !has(&self.verbs, &request.verb) {
            return false;
        }
        if !request.is_resource_request {
            return self.non_resource_urls.iter().any(|url| url_covers(url, &request.path));
        }
        has(&self.api_groups, &request.group)
            && self.has_resource(&request.resource, &request.subresource)
            && (self.resource_names.is_empty() || self.resource_names.contains(&request.name))
    }

    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|allowed| match allowed.split_once('/') {
            _ if allowed == "*" => true,
            None => subresource.is_empty() && allowed == resource,
            Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
            Some((of, sub)) => of == resource && sub == subresource,
        })
    }

    /// True when this rule alone grants everything that `asked` (with one verb, one resource, at
    /// most one name, or one path) grants.
    pub(crate) fn covers_single(&self, asked: &Rule) -> bool {
        if !asked.verbs.iter().all(|v| has(&self.verbs, v)) {
            return false;
        }
        if let Some(url) = asked.non_resource_urls.first() {
            return self.non_resource_urls.iter().any(|mine| mine == url || url_covers(mine, url));
        }
        let resources = asked.resources.iter().all(|asked| match asked.split_once('/') {
            Some((resource, sub)) => {
                self.resources.contains(asked) || self.has_resource(resource, sub)
            }
            None => self.resources.contains(asked) || self.has_resource(asked, ""),
        });
        let names = self.resource_names.is_empty()
            || (!asked.resource_names.is_empty()
                && asked.resource_names.iter().all(|n| self.resource_names.contains(n)));
        resources && names && asked.api_groups.iter().all(|g| has(&self.api_groups, g))
    }

    /// The same grant, taken apart into rules of one verb and one resource (and name) or path.
    pub(crate) fn singles(&self) -> Vec<Rule> {
        let mut singles = Vec::new();
        for verb in &self.verbs {
            for url in &self.non_resource_urls {
                singles.push(Rule {
                    verbs: vec![verb.clone()],
                    non_resource_urls: vec![url.clone()],
                    ..Rule::default()
                });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let single = Rule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Rule::default()
                    };
                    if self.resource_names.is_empty() {
                        singles.push(single);
                        continue;
                    }
                    singles.extend(
                        self.resource_names.iter().map(|name| Rule {
                            resource_names: vec![name.clone()],
                            ..single.clone()
                        }),
                    );
                }
            }
        }
        singles
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn url_covers(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}
