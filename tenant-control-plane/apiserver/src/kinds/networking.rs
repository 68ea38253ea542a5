//! `networking.k8s.io`.

use super::row::{Rows, cluster, namespaced};
use crate::strategy::{Strategy, generic};

pub(super) fn rows() -> Rows {
    Rows::of(
        "networking.k8s.io",
        "v1",
        vec![
            cluster("IngressClass", "ingressclasses").strategy(generic::counted()),
            namespaced("Ingress", "ingresses")
                .short(&["ing"])
                .status()
                .strategy(generic::counted()),
            cluster("IPAddress", "ipaddresses")
                .short(&["ip"])
                .strategy(Strategy { name: machinery::names::ip_address, ..Strategy::default() })
                .field("spec.parentRef.resource", "/spec/parentRef/resource"),
            namespaced("NetworkPolicy", "networkpolicies")
                .short(&["netpol"])
                .strategy(generic::counted()),
            cluster("ServiceCIDR", "servicecidrs").status(),
        ],
    )
}
