//! What each built-in signer demands of a request. Source: Kubernetes documentation, "Certificates
//! and Certificate Signing Requests", section "Kubernetes signers".

use std::collections::BTreeSet;

use super::x509::Request;

/// Signs kubelets' client certificates.
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs any client's certificate.
pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs kubelets' serving certificates.
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Makes no promises.
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

const NODE_GROUP: &str = "system:nodes";
const NODE_USER: &str = "system:node:";

fn usages_are(given: &[String], needed: &str) -> bool {
    let given: BTreeSet<_> = given.iter().map(String::as_str).collect();
    // Encipherment is for RSA keys only.
    let without = BTreeSet::from(["digital signature", needed]);
    let with = BTreeSet::from(["digital signature", "key encipherment", needed]);
    given == without || given == with
}

/// A kubelet's client certificate: the right subject and usages, and no names beside it.
pub(super) fn kubelet_client(request: &Request, usages: &[String]) -> Result<(), String> {
    if request.organizations != [NODE_GROUP] {
        return Err(format!("subject organization is not {NODE_GROUP}"));
    }
    if !request.common_name.starts_with(NODE_USER) {
        return Err(format!("subject common name does not begin with {NODE_USER}"));
    }
    if request.has_names() {
        return Err("DNS, IP, e-mail and URI names are not allowed".to_owned());
    }
    if !usages_are(usages, "client auth") {
        return Err("usages did not match".to_owned());
    }
    Ok(())
}

/// A kubelet's serving certificate: only its own names and addresses, and asked for by itself.
pub(super) fn kubelet_serving(
    request: &Request,
    usages: &[String],
    username: &str,
) -> Result<(), String> {
    if request.organizations != [NODE_GROUP] {
        return Err(format!("subject organization is not {NODE_GROUP}"));
    }
    if !request.common_name.starts_with(NODE_USER) {
        return Err(format!("subject common name does not begin with {NODE_USER}"));
    }
    if request.common_name != username {
        return Err("subject common name is not the requesting user".to_owned());
    }
    if request.emails > 0 || request.uris > 0 {
        return Err("e-mail and URI names are not allowed".to_owned());
    }
    if request.dns_names == 0 && request.ips == 0 {
        return Err("at least one DNS or IP name is required".to_owned());
    }
    if !usages_are(usages, "server auth") {
        return Err("usages did not match".to_owned());
    }
    Ok(())
}

/// What the signer demands. `None` for signers that are not ours.
pub(super) fn check(
    signer: &str,
    request: &Request,
    usages: &[String],
    username: &str,
) -> Option<Result<(), String>> {
    match signer {
        KUBELET_CLIENT => Some(kubelet_client(request, usages)),
        KUBELET_SERVING => Some(kubelet_serving(request, usages, username)),
        CLIENT => {
            const ALLOWED: [&str; 3] = ["client auth", "digital signature", "key encipherment"];
            let known = usages.iter().all(|usage| ALLOWED.contains(&usage.as_str()));
            let client = usages.iter().any(|usage| usage == "client auth");
            Some(if known && client {
                Ok(())
            } else {
                Err("usages must include client auth and at most digital signature and key encipherment".to_owned())
            })
        }
        LEGACY => Some(Ok(())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            common_name: "system:node:w1".into(),
            organizations: vec![NODE_GROUP.into()],
            ..Request::default()
        }
    }

    fn usages(list: &[&str]) -> Vec<String> {
        list.iter().map(|usage| (*usage).to_owned()).collect()
    }

    #[test]
    fn a_kubelet_may_ask_for_itself_and_nothing_more() {
        let client = usages(&["digital signature", "key encipherment", "client auth"]);
        assert_eq!(kubelet_client(&request(), &client), Ok(()));
        assert!(kubelet_client(&request(), &usages(&["client auth"])).is_err());
        assert!(kubelet_client(&Request { dns_names: 1, ..request() }, &client).is_err());
        let root = Request { organizations: vec!["system:masters".into()], ..request() };
        assert!(kubelet_client(&root, &client).is_err());
        let user = Request { common_name: "admin".into(), ..request() };
        assert!(kubelet_client(&user, &client).is_err());
    }

    #[test]
    fn a_serving_certificate_is_for_the_requesting_kubelet_only() {
        let serving = usages(&["digital signature", "server auth"]);
        let named = Request { ips: 1, ..request() };
        assert_eq!(kubelet_serving(&named, &serving, "system:node:w1"), Ok(()));
        assert!(kubelet_serving(&named, &serving, "system:node:w2").is_err());
        assert!(kubelet_serving(&request(), &serving, "system:node:w1").is_err());
    }

    #[test]
    fn other_signers_are_left_to_others() {
        assert_eq!(check("example.com/mine", &request(), &[], "u"), None);
        assert!(check(CLIENT, &request(), &usages(&["server auth"]), "u").unwrap().is_err());
    }
}
