//! Reads from method and URL what a request asks for.
//!
//! Source: Kubernetes documentation, "Kubernetes API Concepts" (resource URIs) and "Authorization
//! Overview".

use http::{Method, Uri};
use machinery::{FieldSelector, RequestInfo};

use super::query::{Query, percent_decode};

/// Subresources of a namespace itself; anything else behind `/namespaces/x/` is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Parses a request.
pub fn parse(method: &Method, uri: &Uri) -> RequestInfo {
    let path = uri.path();
    let mut info = RequestInfo {
        path: path.to_owned(),
        verb: method.as_str().to_lowercase(),
        ..RequestInfo::default()
    };
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let rest = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => {
            info.version = (*version).to_owned();
            rest
        }
        ["apis", group, version, rest @ ..] if !rest.is_empty() => {
            info.group = (*group).to_owned();
            info.version = (*version).to_owned();
            rest
        }
        _ => return info,
    };
    info.is_resource_request = true;
    info.verb = match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
    .to_owned();
    let rest = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => {
            info.verb = "watch".to_owned();
            rest
        }
        rest => rest,
    };
    fill_names(&mut info, rest);
    let query = Query::parse(uri.query());
    if info.name.is_empty() {
        match info.verb.as_str() {
            "get" => info.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned(),
            "delete" => info.verb = "deletecollection".to_owned(),
            _ => {}
        }
    }
    if matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
        info.label_selector = query.get("labelSelector").unwrap_or_default().to_owned();
        info.field_selector = query.get("fieldSelector").unwrap_or_default().to_owned();
        if info.name.is_empty()
            && let Ok(selector) = FieldSelector::parse(&info.field_selector)
        {
            info.name = selector.exact("metadata.name").unwrap_or_default().to_owned();
        }
    }
    info
}

fn fill_names(info: &mut RequestInfo, rest: &[&str]) {
    let rest = match rest {
        ["namespaces", namespace, tail @ ..] => {
            info.namespace = percent_decode(namespace, false);
            match tail {
                [first, ..] if !NAMESPACE_SUBRESOURCES.contains(first) => tail,
                _ => rest,
            }
        }
        _ => rest,
    };
    let mut parts = rest.iter();
    let mut next = || parts.next().map(|p| percent_decode(p, false)).unwrap_or_default();
    info.resource = next();
    info.name = next();
    info.subresource = next();
    info.remainder = parts.copied().collect::<Vec<_>>().join("/");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: Method, uri: &str) -> RequestInfo {
        parse(&method, &uri.parse().unwrap())
    }

    #[test]
    fn what_urls_ask_for() {
        let list = info(Method::GET, "/api/v1/namespaces/a/pods?labelSelector=x%3Dy");
        assert_eq!(
            (list.verb.as_str(), list.namespace.as_str(), list.resource.as_str()),
            ("list", "a", "pods")
        );
        assert_eq!(list.label_selector, "x=y");
        let ns = info(Method::PUT, "/api/v1/namespaces/a/finalize");
        assert_eq!(
            (ns.resource.as_str(), ns.name.as_str(), ns.subresource.as_str()),
            ("namespaces", "a", "finalize")
        );
        let scale = info(Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/d/scale");
        assert_eq!((scale.group.as_str(), scale.subresource.as_str()), ("apps", "scale"));
        let proxy = info(Method::GET, "/api/v1/namespaces/a/services/s:80/proxy/x/y");
        assert_eq!(proxy.remainder, "x/y");
        assert_eq!(info(Method::GET, "/api/v1/pods?watch=true").verb, "watch");
        assert_eq!(info(Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dp").name, "p");
        assert_eq!(info(Method::DELETE, "/api/v1/namespaces/a/pods").verb, "deletecollection");
        for path in ["/api/v1", "/apis/apps/v1", "/healthz", "/"] {
            assert!(!info(Method::GET, path).is_resource_request, "{path}");
        }
    }
}
