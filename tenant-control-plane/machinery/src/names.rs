//! Rules for names, keys and label values.
//!
//! Each check returns `Ok(())` or the texts of what is wrong, as the API reports them.
//! Source: Kubernetes documentation "Object Names and IDs" and "Labels and Selectors";
//! RFC 1123 and RFC 1035 for the label and subdomain forms.

/// Longest DNS label.
pub const DNS_LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const DNS_SUBDOMAIN_MAX: usize = 253;
/// Longest label value, and longest name part of a qualified name.
pub const LABEL_VALUE_MAX: usize = 63;

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
    '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case \
    alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character \
    (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters \
    or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
    'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must \
    start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
    regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What is wrong with a name: one text per broken rule.
pub type Faults = Vec<String>;

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn is_lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label_shaped(s: &str) -> bool {
    let bytes = s.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            is_lower_alnum(first)
                && is_lower_alnum(last)
                && bytes.iter().all(|&b| is_lower_alnum(b) || b == b'-')
        }
        _ => false,
    }
}

fn is_qualified_shaped(s: &str) -> bool {
    let bytes = s.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        }
        _ => false,
    }
}

fn outcome(faults: Faults) -> Result<(), Faults> {
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn checked(s: &str, max: usize, shaped: bool, text: &str) -> Result<(), Faults> {
    let mut faults = Faults::new();
    if s.len() > max {
        faults.push(too_long(max));
    }
    if !shaped {
        faults.push(text.to_owned());
    }
    outcome(faults)
}

/// RFC 1123 label: namespaces, container names.
pub fn dns1123_label(s: &str) -> Result<(), Faults> {
    checked(s, DNS_LABEL_MAX, is_label_shaped(s), LABEL_TEXT)
}

/// RFC 1123 subdomain: most object names.
pub fn dns1123_subdomain(s: &str) -> Result<(), Faults> {
    let shaped = !s.is_empty() && s.split('.').all(is_label_shaped);
    checked(s, DNS_SUBDOMAIN_MAX, shaped, SUBDOMAIN_TEXT)
}

/// RFC 1035 label: Service names.
pub fn dns1035_label(s: &str) -> Result<(), Faults> {
    let shaped = is_label_shaped(s) && s.as_bytes()[0].is_ascii_lowercase();
    checked(s, DNS_LABEL_MAX, shaped, DNS1035_TEXT)
}

/// A name that is one segment of a URL path: RBAC objects, whose names may hold `:` and more.
pub fn path_segment(s: &str) -> Result<(), Faults> {
    if s == "." || s == ".." {
        return Err(vec![format!("may not be '{s}'")]);
    }
    outcome(
        ['/', '%']
            .into_iter()
            .filter(|c| s.contains(*c))
            .map(|c| format!("may not contain '{c}'"))
            .collect(),
    )
}

/// An IP address as everybody writes it: IPAddresses.
pub fn ip_address(s: &str) -> Result<(), Faults> {
    match s.parse::<std::net::IpAddr>() {
        Ok(address) if address.to_string() == s => Ok(()),
        Ok(address) => Err(vec![format!("must be in canonical form (\"{address}\")")]),
        Err(_) => {
            Err(vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()])
        }
    }
}

/// Qualified name: label and annotation keys, resource names, condition types, finalizers.
pub fn qualified_name(s: &str) -> Result<(), Faults> {
    let mut faults = Faults::new();
    let name = match s.split_once('/') {
        None => s,
        Some((_, rest)) if rest.contains('/') => {
            return Err(vec![format!(
                "a qualified name {QUALIFIED_TEXT} with an optional DNS subdomain prefix and '/' \
                 (e.g. 'example.com/MyName')"
            )]);
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else if let Err(more) = dns1123_subdomain(prefix) {
                faults.extend(more.into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_VALUE_MAX {
        faults.push(format!("name part {}", too_long(LABEL_VALUE_MAX)));
    }
    if !is_qualified_shaped(name) {
        faults.push(format!("name part {QUALIFIED_TEXT}"));
    }
    outcome(faults)
}

/// Value of a label; may be empty.
pub fn label_value(s: &str) -> Result<(), Faults> {
    let shaped = s.is_empty() || is_qualified_shaped(s);
    checked(s, LABEL_VALUE_MAX, shaped, LABEL_VALUE_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains() {
        for good in ["a", "a-b", "0a", "kube-system"] {
            dns1123_label(good).unwrap();
            dns1123_subdomain(good).unwrap();
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä"] {
            assert!(dns1123_label(bad).is_err(), "{bad}");
        }
        dns1123_subdomain("a.b-c.d").unwrap();
        assert!(dns1123_subdomain("a..b").is_err());
        assert!(dns1123_label(&"a".repeat(64)).is_err());
        assert!(dns1035_label("0a").is_err());
        dns1035_label("a0").unwrap();
    }

    #[test]
    fn addresses_have_one_name() {
        for good in ["255.255.255.255", "fe80::42:1dff:fe84:f9e2"] {
            ip_address(good).unwrap();
        }
        for bad in ["10.0.0", "fe80:0::1", "FE80::1", ""] {
            assert!(ip_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn qualified_names_and_label_values() {
        for good in ["app", "app.kubernetes.io/name", "example.com/My_Name.x"] {
            qualified_name(good).unwrap();
        }
        for bad in ["", "/a", "a/", "a/b/c", "UP/x", "-x", "a b"] {
            assert!(qualified_name(bad).is_err(), "{bad}");
        }
        label_value("").unwrap();
        label_value("v1.2_3-x").unwrap();
        assert!(label_value("-x").is_err());
        assert!(path_segment("system:node/x").is_err());
        path_segment("system:node").unwrap();
    }
}
