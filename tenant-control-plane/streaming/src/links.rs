//! Links of what a proxy passes on: a page that says `/style.css` means a path of its own server,
//! which a browser reaches below the proxy's path only.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, Uri, header};
use http_body_util::BodyExt;
use lol_html::element;
use lol_html::send::{Element, HtmlRewriter, Settings};

use crate::body::{self, Body, BoxError};
use crate::node::NodeTarget;

/// Attributes that hold a link, by element (HTML standard, "Attributes", those of type URL).
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];

/// How links of a backend become links of the proxy.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    /// Path of the proxy that stands for the backend's root.
    prefix: String,
    /// The backend by name.
    authority: String,
}

impl Links {
    /// For a request to a proxy. `None` when the backend's path is not the end of the request's.
    pub(crate) fn of(uri: &Uri, target: &NodeTarget) -> Option<Self> {
        let path = target.path_and_query.split('?').next().unwrap_or_default();
        let prefix = match uri.path().strip_suffix(path) {
            Some(prefix) => prefix,
            None if path == "/" => uri.path(),
            None => return None,
        };
        Some(Self { prefix: prefix.to_owned(), authority: target.authority() })
    }

    /// The link as the client has to follow it; `None` when that is what it says already.
    fn rewritten(&self, link: &str) -> Option<String> {
        let own = link.split_once("//").and_then(|(scheme, rest)| {
            let known = matches!(scheme, "" | "http:" | "https:");
            rest.strip_prefix(&self.authority).filter(|_| known)
        });
        let path = match own {
            Some("") => "/",
            Some(path) => path,
            None if link.starts_with("//") => return None,
            None => link,
        };
        let is_there = path.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('/'));
        (path.starts_with('/') && !is_there).then(|| format!("{}{path}", self.prefix))
    }

    /// Changes the links of a page and where a redirection leads.
    pub(crate) fn rewrite(self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        let location = headers.get(header::LOCATION).and_then(|l| l.to_str().ok());
        if let Some(location) = location.and_then(|l| self.rewritten(l))
            && let Ok(value) = HeaderValue::from_str(&location)
        {
            headers.insert(header::LOCATION, value);
        }
        if !is_page(headers) {
            return response;
        }
        headers.remove(header::CONTENT_LENGTH);
        response.map(|page| self.page(page))
    }

    fn page(self, page: Body) -> Body {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let written = written.clone();
            move |bytes: &[u8]| lock(&written).extend_from_slice(bytes)
        };
        let settings = Settings::new_send().with_strict(false).append_element_content_handler(
            element!("*", move |at: &mut Element<'_, '_>| {
                self.element(at);
                Ok(())
            }),
        );
        let rewriter = HtmlRewriter::new(settings, sink);
        let state = Some((rewriter, page.into_data_stream(), written));
        let pieces = futures::stream::unfold(state, |state| async move {
            let (mut rewriter, mut page, written) = state?;
            let taken = || Bytes::from(std::mem::take(&mut *lock(&written)));
            match page.next().await {
                Some(Ok(bytes)) => match rewriter.write(&bytes) {
                    Ok(()) => Some((Ok(taken()), Some((rewriter, page, written)))),
                    Err(error) => Some((Err(BoxError::from(error)), None)),
                },
                Some(Err(error)) => Some((Err(error), None)),
                None => Some((rewriter.end().map(|()| taken()).map_err(BoxError::from), None)),
            }
        });
        body::stream(pieces.filter(|piece| {
            let is_piece = !piece.as_ref().is_ok_and(Bytes::is_empty);
            std::future::ready(is_piece)
        }))
    }

    fn element(&self, element: &mut Element<'_, '_>) {
        let name = element.tag_name();
        let Some((_, attributes)) = LINKS.iter().find(|(known, _)| *known == name) else { return };
        for attribute in *attributes {
            let link = element.get_attribute(attribute);
            if let Some(link) = link.and_then(|link| self.rewritten(&link)) {
                // The names are valid ones.
                let _ = element.set_attribute(attribute, &link);
            }
        }
    }
}

fn lock(written: &Mutex<Vec<u8>>) -> std::sync::MutexGuard<'_, Vec<u8>> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True for HTML that is not compressed; backends are not asked for other.
fn is_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let kind = text(header::CONTENT_TYPE).and_then(|t| t.split(';').next()).unwrap_or_default();
    let encoding = text(header::CONTENT_ENCODING).unwrap_or("identity");
    kind.trim().eq_ignore_ascii_case("text/html") && encoding.eq_ignore_ascii_case("identity")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Scheme;

    const PROXY: &str = "/api/v1/namespaces/a/pods/b:8080/proxy";

    fn links(below: &str) -> Links {
        let target = NodeTarget {
            scheme: Scheme::Plain,
            host: "10.0.0.1".to_owned(),
            port: 8080,
            path_and_query: format!("/{}?q=1", below.trim_start_matches('/')),
        };
        Links::of(&format!("{PROXY}{below}").parse().unwrap(), &target).unwrap()
    }

    #[test]
    fn a_link_of_the_backend_is_one_of_the_proxy() {
        let links = links("/x/y");
        let new = |link: &str| links.rewritten(link);
        assert_eq!(new("/").unwrap(), format!("{PROXY}/"));
        assert_eq!(new("/a?b#c").unwrap(), format!("{PROXY}/a?b#c"));
        assert_eq!(new("http://10.0.0.1:8080/a").unwrap(), format!("{PROXY}/a"));
        assert_eq!(new("//10.0.0.1:8080").unwrap(), format!("{PROXY}/"));
        for same in ["a", "", "#a", "//other/a", "http://other/a", &format!("{PROXY}/a")] {
            assert_eq!(new(same), None, "{same}");
        }
        assert_eq!(super::tests::links("").prefix, PROXY);
        assert_eq!(super::tests::links("/").prefix, PROXY);
    }

    #[tokio::test]
    async fn a_page_that_comes_in_pieces_has_new_links() {
        let pieces = ["<p><a hr", "ef=\"/a\">/a</a><img src='b'>", "<FORM action=/c>"];
        let pieces = pieces.map(|piece| Ok::<_, BoxError>(Bytes::from(piece)));
        let mut response = Response::new(body::stream(futures::stream::iter(pieces)));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, "text/html; charset=x".parse().unwrap());
        response.headers_mut().insert(header::LOCATION, "/d".parse().unwrap());
        let response = links("/").rewrite(response);
        assert_eq!(response.headers()[header::LOCATION], format!("{PROXY}/d").as_str());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let expected =
            format!("<p><a href=\"{PROXY}/a\">/a</a><img src='b'><FORM action=\"{PROXY}/c\">");
        assert_eq!(bytes, expected);
    }
}
