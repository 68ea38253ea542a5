//! LimitRanger: defaults, floors and ceilings that a namespace's LimitRanges set.

use machinery::amounts::{Amounts, amounts, pod_amounts};
use machinery::{GroupResource, Quantity, Status};
use serde_json::Value;

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{child_mut, items, text};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger;

impl Plugin for LimitRanger {
    fn mutate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        pod: &mut Value,
    ) -> Result<(), Status> {
        if !attributes.is("", "pods") || attributes.operation() != Operation::Create {
            return Ok(());
        }
        let mut set = Vec::new();
        for range in ranges(context, attributes) {
            for (key, label) in [("containers", "container"), ("initContainers", "init container")]
            {
                for container in pod["spec"][key].as_array_mut().into_iter().flatten() {
                    fill_in(&range, container, label, &mut set);
                }
            }
        }
        if !set.is_empty() {
            child_mut(pod, "metadata");
            let text = format!("LimitRanger plugin set: {}", set.join("; "));
            child_mut(&mut pod["metadata"], "annotations").insert(ANNOTATION.into(), text.into());
        }
        Ok(())
    }

    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let operation = attributes.operation();
        let pod = (attributes.is("", "pods") && operation == Operation::Create)
            || (attributes.is_sub("", "pods", "resize") && operation == Operation::Update);
        let claim = attributes.is("", "persistentvolumeclaims")
            && matches!(operation, Operation::Create | Operation::Update);
        let deleting =
            attributes.old.is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null());
        if !(pod || claim) || deleting {
            return Ok(());
        }
        for range in ranges(context, attributes) {
            let faults =
                if pod { pod_faults(&range, object) } else { claim_faults(&range, object) };
            let why = match faults.as_slice() {
                [] => continue,
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            return Err(attributes.forbidden(Some(object), &why));
        }
        Ok(())
    }
}

fn ranges(context: &Context, attributes: &Attributes<'_>) -> Vec<std::sync::Arc<Value>> {
    context.source.list(&GroupResource::new("", "limitranges"), Some(attributes.namespace))
}

fn limits<'a>(range: &'a Value, of: &'a str) -> impl Iterator<Item = &'a Value> {
    items(&range["spec"]["limits"]).filter(move |limit| text(&limit["type"]) == of)
}

fn fill_in(range: &Value, container: &mut Value, label: &str, set: &mut Vec<String>) {
    let name = text(&container["name"]).to_owned();
    for (kind, field, default) in
        [("request", "requests", "defaultRequest"), ("limit", "limits", "default")]
    {
        let mut added = Vec::new();
        for limit in limits(range, "Container") {
            for (resource, amount) in limit[default].as_object().into_iter().flatten() {
                let resources = child_mut(container, "resources");
                let list = resources.entry(field).or_insert(Value::Null);
                let list = crate::object::map_mut(list);
                if !list.contains_key(resource) {
                    list.insert(resource.clone(), amount.clone());
                    added.push(resource.clone());
                }
            }
        }
        if !added.is_empty() {
            added.sort();
            set.push(format!("{} {kind} for {label} {name}", added.join(", ")));
        }
    }
}

fn pod_faults(range: &Value, pod: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for limit in limits(range, "Container") {
        for key in ["containers", "initContainers"] {
            for container in items(&pod["spec"][key]) {
                let of = |key: &str| amounts(&container["resources"][key]);
                compare(limit, "Container", &of("requests"), &of("limits"), &mut faults);
            }
        }
    }
    for limit in limits(range, "Pod") {
        let of = |key: &str| pod_amounts(pod, key);
        compare(limit, "Pod", &of("requests"), &of("limits"), &mut faults);
    }
    faults
}

fn claim_faults(range: &Value, claim: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let kind = "PersistentVolumeClaim";
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    for limit in limits(range, kind) {
        minimum(limit, kind, &requests, &Amounts::new(), &mut faults);
        for (name, most) in amounts(&limit["max"]) {
            let bound = format!("maximum {name} usage per {kind} is {most}");
            match requests.get(&name) {
                None => faults.push(format!("{bound}.  No request is specified")),
                Some(asked) if *asked > most => {
                    faults.push(format!("{bound}, but request is {asked}"));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

fn minimum(
    limit: &Value,
    kind: &str,
    requests: &Amounts,
    limits: &Amounts,
    faults: &mut Vec<String>,
) {
    for (name, least) in amounts(&limit["min"]) {
        let bound = format!("minimum {name} usage per {kind} is {least}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => faults.push(format!("{bound}.  No request is specified")),
            (Some(asked), _) if *asked < least => {
                faults.push(format!("{bound}, but request is {asked}"));
            }
            (_, Some(most)) if *most < least => {
                faults.push(format!("{bound}, but limit is {most}"));
            }
            _ => {}
        }
    }
}

fn compare(
    limit: &Value,
    kind: &str,
    requests: &Amounts,
    limits: &Amounts,
    faults: &mut Vec<String>,
) {
    minimum(limit, kind, requests, limits, faults);
    for (name, most) in amounts(&limit["max"]) {
        let bound = format!("maximum {name} usage per {kind} is {most}");
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => faults.push(format!("{bound}.  No limit is specified")),
            (Some(given), _) if *given > most => {
                faults.push(format!("{bound}, but limit is {given}"));
            }
            (_, Some(asked)) if *asked > most => {
                faults.push(format!("{bound}, but request is {asked}"));
            }
            _ => {}
        }
    }
    for (name, ratio) in amounts(&limit["maxLimitRequestRatio"]) {
        let bound = format!("{name} max limit to request ratio per {kind} is {ratio}");
        let given = |list: &Amounts| list.get(&name).copied().filter(|amount| !amount.is_zero());
        match (given(requests), given(limits)) {
            (None, _) => {
                faults.push(format!("{bound}, but no request is specified or request is 0"));
            }
            (_, None) => faults.push(format!("{bound}, but no limit is specified or limit is 0")),
            (Some(asked), Some(most)) => {
                let provided = thousandths(most) / thousandths(asked);
                if provided > thousandths(ratio) / 1000.0 {
                    faults.push(format!("{bound}, but provided ratio is {provided:.6}"));
                }
            }
        }
    }
}

fn thousandths(amount: Quantity) -> f64 {
    amount.milli_value() as f64
}
