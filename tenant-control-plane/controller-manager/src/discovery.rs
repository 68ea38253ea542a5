//! What the API server serves, for controllers that work on every kind.

use anyhow::Context as _;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::Client;

use crate::writes::message;

/// One resource of one API version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// `v1` or `group/version`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Plural name.
    pub plural: String,
    /// True when its objects live in namespaces.
    pub namespaced: bool,
    /// What it can do.
    pub verbs: Vec<String>,
}

impl Resource {
    /// True when all of the verbs can be used.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|has| has == verb))
    }

    /// Group without the version, empty for core.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// URL path of the collection; `namespace` for one namespace's, `None` for all.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group().is_empty() { "api" } else { "apis" };
        let base = format!("/{root}/{}", self.api_version);
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{base}/namespaces/{namespace}/{}", self.plural)
            }
            _ => format!("{base}/{}", self.plural),
        }
    }
}

/// Everything served, in each group's preferred version (and resources that only another version
/// has), together with the group versions that did not answer.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Resources without subresources.
    pub resources: Vec<Resource>,
    /// Group versions that could not be read, with the reason.
    pub failed: Vec<(String, String)>,
}

impl Discovery {
    /// Lets the group versions that did not answer serve what they did `before`.
    pub fn keep_unanswered(&mut self, before: &[Resource]) {
        let failed = |version: &str| self.failed.iter().any(|(failed, _)| failed == version);
        let kept: Vec<_> = before.iter().filter(|r| failed(&r.api_version)).cloned().collect();
        self.resources.retain(|found| {
            !kept.iter().any(|r| r.group() == found.group() && r.plural == found.plural)
        });
        self.resources.extend(kept);
    }
}

fn convert(api_version: &str, resource: APIResource) -> Option<Resource> {
    (!resource.name.contains('/')).then(|| Resource {
        api_version: api_version.to_owned(),
        kind: resource.kind,
        plural: resource.name,
        namespaced: resource.namespaced,
        verbs: resource.verbs,
    })
}

/// Asks the API server.
///
/// # Errors
/// When the list of groups itself cannot be read; a single broken group is in
/// [`Discovery::failed`].
pub async fn discover(client: &Client) -> anyhow::Result<Discovery> {
    let mut found = Discovery::default();
    let core = client.list_core_api_resources("v1").await.context("reading the core API")?;
    found.resources.extend(core.resources.into_iter().filter_map(|r| convert("v1", r)));
    let groups = client.list_api_groups().await.context("reading the list of API groups")?;
    let mut versions = Vec::new();
    for group in groups.groups {
        let preferred = group.preferred_version.map(|v| v.group_version);
        let mut all: Vec<_> = group.versions.into_iter().map(|v| v.group_version).collect();
        all.sort_by_key(|version| Some(version) != preferred.as_ref());
        versions.extend(all);
    }
    let answers = join_all(versions.iter().map(|version| client.list_api_group_resources(version)));
    for (version, answer) in versions.iter().zip(answers.await) {
        match answer {
            Ok(list) => {
                let fresh: Vec<_> =
                    list.resources.into_iter().filter_map(|r| convert(version, r)).collect();
                for resource in fresh {
                    let known = found.resources.iter().any(|other| {
                        other.group() == resource.group() && other.plural == resource.plural
                    });
                    if !known {
                        found.resources.push(resource);
                    }
                }
            }
            Err(error) => found.failed.push((version.clone(), message(&error))),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_does_not_answer_serves_what_it_did() {
        let resource = |version: &str, plural: &str| Resource {
            api_version: version.into(),
            kind: String::new(),
            plural: plural.into(),
            namespaced: true,
            verbs: Vec::new(),
        };
        let before = [resource("a/v2", "x"), resource("b/v1", "y"), resource("c/v1", "z")];
        let mut found = Discovery {
            resources: vec![resource("a/v1", "x"), resource("b/v1", "new")],
            failed: vec![("a/v2".into(), "503".into())],
        };
        found.keep_unanswered(&before);
        assert_eq!(found.resources, [resource("b/v1", "new"), resource("a/v2", "x")]);
    }

    #[test]
    fn paths_follow_group_and_scope() {
        let mut resource = Resource {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            plural: "deployments".into(),
            namespaced: true,
            verbs: vec!["list".into()],
        };
        assert_eq!(resource.path(Some("a")), "/apis/apps/v1/namespaces/a/deployments");
        assert_eq!(resource.path(None), "/apis/apps/v1/deployments");
        assert!(resource.can(&["list"]) && !resource.can(&["list", "delete"]));
        resource.api_version = "v1".into();
        resource.namespaced = false;
        assert_eq!(resource.path(Some("a")), "/api/v1/deployments");
    }
}
