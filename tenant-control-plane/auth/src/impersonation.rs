//! Impersonation headers: acting as somebody else, when allowed to.
//!
//! Source: Kubernetes documentation, "User impersonation".

use std::collections::BTreeMap;

use http::HeaderMap;
use machinery::{GroupResource, RequestInfo, Status, UserInfo};

use crate::authn::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::authz::{Authorizer, Decision};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// Whom a request wants to act as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impersonation {
    /// The user, with exactly the groups and extras of the headers.
    pub user: UserInfo,
}

impl Impersonation {
    /// Reads the headers; `None` when there are none.
    ///
    /// # Errors
    /// 500, as upstream, when groups, uid or extras come without a user.
    pub fn parse(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        let all = |name: &str| -> Vec<String> {
            let values = headers.get_all(name).iter();
            values.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
        };
        let name = all(USER).into_iter().next().unwrap_or_default();
        let uid = all(UID).into_iter().next().unwrap_or_default();
        let groups = all(GROUP);
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for header in headers.keys() {
            if let Some(key) = header.as_str().strip_prefix(EXTRA) {
                extra.entry(unescape_key(key)).or_default().extend(all(header.as_str()));
            }
        }
        if name.is_empty() {
            return if uid.is_empty() && groups.is_empty() && extra.is_empty() {
                Ok(None)
            } else {
                Err(Status::internal(
                    "requested impersonation of groups, a uid or extras without a user",
                ))
            };
        }
        Ok(Some(Self { user: UserInfo { name, uid, groups, extra } }))
    }

    /// Every permission that acting so needs.
    pub fn checks(&self) -> Vec<RequestInfo> {
        let check =
            |group: &str, resource: &str, subresource: &str, ns: &str, name: &str| RequestInfo {
                is_resource_request: true,
                verb: "impersonate".into(),
                group: group.into(),
                version: "v1".into(),
                namespace: ns.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                name: name.into(),
                ..RequestInfo::default()
            };
        let user = &self.user;
        let mut checks = vec![match user.service_account() {
            Some((namespace, name)) => check("", "serviceaccounts", "", namespace, name),
            None => check("", "users", "", "", &user.name),
        }];
        checks.extend(user.groups.iter().map(|g| check("", "groups", "", "", g)));
        let group = "authentication.k8s.io";
        for (key, values) in &user.extra {
            checks.extend(values.iter().map(|v| check(group, "userextras", key, "", v)));
        }
        if !user.uid.is_empty() {
            checks.push(check(group, "uids", "", "", &user.uid));
        }
        checks
    }

    /// The user that the request continues as: with the groups that follow from his name.
    pub fn into_user(self) -> UserInfo {
        let mut user = self.user;
        if user.groups.is_empty()
            && let Some((namespace, _)) = user.service_account()
        {
            let of_namespace = format!("system:serviceaccounts:{namespace}");
            user.groups = vec!["system:serviceaccounts".into(), of_namespace];
        }
        let known = user.in_group(AUTHENTICATED) || user.in_group(UNAUTHENTICATED);
        if user.name == ANONYMOUS && !user.in_group(UNAUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.into());
        } else if user.name != ANONYMOUS && !known {
            user.groups.push(AUTHENTICATED.into());
        }
        user
    }
}

/// Carries out what the headers ask for: `None` when they ask for nothing, else the user to
/// continue as.
///
/// # Errors
/// 403 when `requestor` may not impersonate one of the attributes.
pub fn impersonate(
    authorizer: &Authorizer,
    requestor: &UserInfo,
    headers: &HeaderMap,
) -> Result<Option<UserInfo>, Status> {
    let Some(wanted) = Impersonation::parse(headers)? else { return Ok(None) };
    for check in wanted.checks() {
        match authorizer.authorize(requestor, &check) {
            Decision::Allow { .. } => {}
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                let why = crate::authz::forbidden_message(requestor, &check, &reason);
                let resource = GroupResource::new(check.group, check.resource);
                return Err(Status::forbidden(&resource, &check.name, &why));
            }
        }
    }
    Ok(Some(wanted.into_user()))
}

/// Header names carry extra keys in lower case and percent-encoded.
pub(crate) fn unescape_key(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let decoded = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        match (first, decoded) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}
