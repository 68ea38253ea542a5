//! `resources` of a container's status: what is in effect, not what is asked for (KEP-1287).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::Quantity;

use crate::runtime::observe::{self, State};
use crate::spec::resize::{self, Resource, Settings};
use crate::spec::resources;

type List = Option<BTreeMap<String, ApiQuantity>>;

/// Replaces an amount that is there: by another, or by none for what is not limited.
fn replace(list: &mut List, name: &str, by: Option<Quantity>) {
    let Some(list) = list.as_mut().filter(|list| list.contains_key(name)) else { return };
    match by {
        Some(amount) => drop(list.insert(name.to_owned(), ApiQuantity(amount.to_string()))),
        None => drop(list.remove(name)),
    }
}

/// What is in effect in `container`, which was given what `spec` says. `old` is what its status
/// said before. Amounts that the kernel cannot tell from those given are those given.
pub fn in_effect(
    spec: &Container,
    container: &observe::Container,
    old: Option<&ResourceRequirements>,
) -> ResourceRequirements {
    let given = spec.resources.clone().unwrap_or_default();
    let reported = container.settings().filter(|_| container.state == State::Running);
    let Some(has) = reported else { return given };
    let mut found = given.clone();
    let wanted = Settings::of(spec);
    if has.shares != wanted.shares {
        let millis = resources::millis_of_shares(has.shares);
        replace(&mut found.requests, "cpu", Some(Quantity::from_millis(millis)));
    }
    if (has.quota, has.period) != (wanted.quota, wanted.period) {
        let millis = (has.period > 0 && has.quota > 0).then(|| has.quota * 1000 / has.period);
        replace(&mut found.limits, "cpu", millis.map(Quantity::from_millis));
    }
    if has.memory != wanted.memory {
        let bytes = Some(has.memory).filter(|b| *b > 0);
        replace(&mut found.limits, "memory", bytes.map(Quantity::from_bytes));
    }
    // No cgroup holds the request: it comes into effect with the limit.
    let made_otherwise =
        container.made_with().is_some_and(|made| !resize::agree(&made, &given, Resource::Memory));
    let restarts = resize::restarts(spec, Resource::Memory);
    if restarts && made_otherwise || !has.has(wanted, Resource::Memory) {
        let before = old.and_then(|r| r.requests.as_ref()?.get("memory")?.0.parse().ok());
        if before.is_some() {
            replace(&mut found.requests, "memory", before);
        }
    }
    ResourceRequirements {
        requests: found.requests.filter(|r| !r.is_empty()),
        limits: found.limits.filter(|l| !l.is_empty()),
        ..found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(resources: &Value) -> Container {
        serde_json::from_value(json!({"name": "c", "resources": resources})).unwrap()
    }

    fn running(resources: &Value) -> observe::Container {
        let settings = Settings::of(&container(resources));
        observe::Container {
            id: "c0".into(),
            sandbox_id: "s".into(),
            name: "c".into(),
            state: State::Running,
            resources: Some(settings.linux()),
            ..Default::default()
        }
    }

    fn effect(given: &Value, has: &Value, old: &Value) -> Value {
        let old: ResourceRequirements = serde_json::from_value(old.clone()).unwrap();
        let found = in_effect(&container(given), &running(has), Some(&old));
        serde_json::to_value(found).unwrap()
    }

    #[test]
    fn what_was_given_is_said_as_it_was_given() {
        for same in [
            json!({}),
            json!({"requests": {"cpu": "1m", "memory": "1Gi", "x/y": "1"}, "limits": {"cpu": "0.005"}}),
            json!({"requests": {"cpu": "1333m"}, "limits": {"memory": "1000000"}}),
        ] {
            assert_eq!(effect(&same, &same, &json!({})), same);
        }
        assert_eq!(
            effect(
                &json!({"limits": {"cpu": "5m"}}),
                &json!({"limits": {"cpu": "10m"}}),
                &json!({})
            ),
            json!({"limits": {"cpu": "5m"}}),
            "less than a hundredth of a processor is the same for the kernel"
        );
    }

    #[test]
    fn what_is_not_in_effect_is_not_said() {
        let small = json!({"requests": {"cpu": "20m", "memory": "20Mi"}, "limits": {"cpu": "30m", "memory": "30Mi"}});
        let large = json!({"requests": {"cpu": "50m", "memory": "50Mi"}, "limits": {"cpu": "60m", "memory": "60Mi"}});
        assert_eq!(effect(&large, &small, &small), small);
        let requests = json!({"requests": {"cpu": "20m", "memory": "20Mi"}});
        assert_eq!(effect(&small, &requests, &requests), requests, "limits that are new");
    }
}
