//! A cluster that somebody wants.

use ipnet::Ipv4Net;
use marina_db::clusters::{ClusterSpec, ControlPlane, Driver};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::check_name;
use crate::problem::FieldError;

/// Body of `POST /clusters`. Only the name is needed.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCluster {
    /// Unique in the organization: 1 to 40 lower-case letters, digits and `-`.
    #[schema(example = "demo")]
    pub name: String,
    /// Kubernetes minor, one of `GET /versions`. Default: the newest one that is offered.
    #[schema(example = "1.35")]
    pub version: Option<String>,
    /// `single` (one of each process) or `ha` (three etcd members, two of the others).
    /// Default: `single`.
    pub control_plane: Option<String>,
    /// How workers run unless a node group says otherwise: `qemu` (virtual machines) or `sandbox`
    /// (namespaces of the host, not a security boundary). Default: `qemu`.
    pub driver: Option<String>,
    /// Addresses of pods, /12 to /22. Default: `10.244.0.0/16`.
    pub pod_cidr: Option<String>,
    /// Addresses of Services, /12 to /24. Default: `10.96.0.0/16`.
    pub service_cidr: Option<String>,
    /// Addresses of workers, /12 to /22. Default: `10.0.0.0/16`.
    pub vpc_cidr: Option<String>,
}

impl NewCluster {
    /// Checks everything that needs no database, and fills in defaults. `versions` are on offer,
    /// `default_version` is taken when none is asked for.
    ///
    /// # Errors
    /// One entry per field that is not valid.
    pub fn check(
        &self,
        versions: &[String],
        default_version: &str,
    ) -> Result<ClusterSpec, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut spec = ClusterSpec::named(&self.name);
        check_name("name", &self.name, &mut errors);
        spec.version = self.version.clone().unwrap_or_else(|| default_version.to_owned());
        if !versions.contains(&spec.version) {
            let message = format!("must be one of {}, is {:?}.", versions.join(", "), spec.version);
            errors.push(FieldError::new("version", message));
        }
        if let Some(text) = &self.control_plane {
            match text.parse::<ControlPlane>() {
                Ok(value) => spec.control_plane = value,
                Err(_) => {
                    errors.push(FieldError::new("control_plane", "must be `single` or `ha`."))
                }
            }
        }
        if let Some(text) = &self.driver {
            match text.parse::<Driver>() {
                Ok(value) => spec.driver = value,
                Err(_) => errors.push(FieldError::new("driver", "must be `qemu` or `sandbox`.")),
            }
        }
        let nets = [
            ("pod_cidr", &self.pod_cidr, &mut spec.pod_cidr, 12..=22),
            ("service_cidr", &self.service_cidr, &mut spec.service_cidr, 12..=24),
            ("vpc_cidr", &self.vpc_cidr, &mut spec.vpc_cidr, 12..=22),
        ]
        .map(|(field, asked, value, sizes)| {
            if let Some(asked) = asked {
                value.clone_from(asked);
            }
            let net = check_cidr(field, value, sizes, &mut errors);
            (field, net)
        });
        check_overlap(&nets, &mut errors);
        if errors.is_empty() { Ok(spec) } else { Err(errors) }
    }
}

fn check_cidr(
    field: &str,
    text: &str,
    sizes: std::ops::RangeInclusive<u8>,
    errors: &mut Vec<FieldError>,
) -> Option<Ipv4Net> {
    let (low, high) = (*sizes.start(), *sizes.end());
    let good = text
        .parse::<Ipv4Net>()
        .ok()
        .filter(|net| net.trunc() == *net && sizes.contains(&net.prefix_len()))
        .filter(|net| private(*net));
    if good.is_none() {
        errors.push(FieldError::new(
            field,
            format!(
                "must be a private IPv4 network such as 10.64.0.0/16, with its host bits zero and \
                 a prefix of /{low} to /{high}; {text:?} is not."
            ),
        ));
    }
    good
}

/// RFC 1918 and RFC 6598 addresses.
fn private(net: Ipv4Net) -> bool {
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]
        .iter()
        .filter_map(|range| range.parse::<Ipv4Net>().ok())
        .any(|range| range.contains(&net))
}

fn check_overlap(nets: &[(&str, Option<Ipv4Net>)], errors: &mut Vec<FieldError>) {
    for (index, (field, net)) in nets.iter().enumerate() {
        for (other_field, other) in &nets[..index] {
            let (Some(net), Some(other)) = (net, other) else { continue };
            if net.contains(other) || other.contains(net) {
                let message =
                    format!("{net} overlaps {other_field} {other}; choose another range.");
                errors.push(FieldError::new(*field, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: serde_json::Value) -> Result<ClusterSpec, Vec<FieldError>> {
        let new: NewCluster = serde_json::from_value(body).expect("a body");
        new.check(&["1.34".into(), "1.35".into()], "1.35")
    }

    fn fields(body: serde_json::Value) -> Vec<String> {
        check(body).expect_err("refused").into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn a_name_is_enough() {
        let spec = check(json!({"name": "demo"})).expect("accepted");
        assert_eq!((spec.version.as_str(), spec.control_plane), ("1.35", ControlPlane::Single));
    }

    #[test]
    fn every_field_at_fault_is_named() {
        let body = json!({"name": "Demo!", "version": "1.9", "control_plane": "big",
            "driver": "ec3", "pod_cidr": "10.244.0.1/16", "service_cidr": "8.8.0.0/16"});
        let expected = ["name", "version", "control_plane", "driver", "pod_cidr", "service_cidr"];
        assert_eq!(fields(body), expected);
        assert_eq!(fields(json!({"name": "x".repeat(41)})), ["name"]);
        assert_eq!(fields(json!({"name": "-a"})), ["name"]);
    }

    #[test]
    fn networks_must_not_overlap() {
        let body = json!({"name": "demo", "service_cidr": "10.244.8.0/24"});
        assert_eq!(fields(body), ["service_cidr"]);
    }
}
