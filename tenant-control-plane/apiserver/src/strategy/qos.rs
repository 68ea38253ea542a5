//! A pod's quality of service class.
//!
//! Source: Kubernetes documentation, "Pod Quality of Service Classes".

use machinery::Quantity;
use serde_json::Value;

/// `Guaranteed`, `Burstable` or `BestEffort`, from requests and limits of CPU and memory.
pub fn class(spec: &Value) -> &'static str {
    let containers = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten());
    let (mut guaranteed, mut best_effort) = (true, true);
    for container in
        containers.chain(std::iter::once(spec).filter(|s| s.get("resources").is_some()))
    {
        let amount = |list: &str, name: &str| {
            let quantity = Quantity::from_json(&container["resources"][list][name]).ok()?;
            (!quantity.is_zero()).then_some(quantity)
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", name), amount("limits", name));
            best_effort &= request.is_none() && limit.is_none();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (best_effort, guaranteed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::class;
    use serde_json::json;

    #[test]
    fn classes() {
        let pod = |resources| json!({"containers": [{"name": "a", "resources": resources}]});
        assert_eq!(class(&pod(json!({}))), "BestEffort");
        assert_eq!(class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(class(&pod(full)), "Guaranteed");
        let more = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        assert_eq!(class(&pod(more)), "Burstable");
    }
}
