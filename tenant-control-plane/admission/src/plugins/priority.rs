//! Priority: a pod's class becomes its number.

use machinery::{GroupResource, Status};
use serde_json::{Value, json};

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::text;

const GROUP: &str = "scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

pub(super) struct Priority;

impl Plugin for Priority {
    fn mutate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        pod: &mut Value,
    ) -> Result<(), Status> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        match attributes.operation() {
            Operation::Create => fill_in(context, attributes, pod),
            Operation::Update => {
                let Some(old) = attributes.old else { return Ok(()) };
                for key in ["priority", "preemptionPolicy"] {
                    if pod["spec"][key].is_null() && !old["spec"][key].is_null() {
                        pod["spec"][key] = old["spec"][key].clone();
                    }
                }
                Ok(())
            }
            Operation::Delete | Operation::Connect => Ok(()),
        }
    }

    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let Some(class) = object.filter(|_| attributes.is(GROUP, "priorityclasses")) else {
            return Ok(());
        };
        let writes = matches!(attributes.operation(), Operation::Create | Operation::Update);
        if !writes || class["globalDefault"] != true {
            return Ok(());
        }
        match default_class(context) {
            Some(other) if text(&other["metadata"]["name"]) != text(&class["metadata"]["name"]) => {
                let name = text(&other["metadata"]["name"]);
                let why = format!(
                    "PriorityClass {name} is already marked as default. Only one default can exist"
                );
                Err(attributes.forbidden(object, &why))
            }
            _ => Ok(()),
        }
    }
}

fn fill_in(context: &Context, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    let name = text(&pod["spec"]["priorityClassName"]).to_owned();
    let resource = GroupResource::new(GROUP, "priorityclasses");
    let (class_name, value, policy) = match name.as_str() {
        "" => match default_class(context) {
            Some(class) => {
                let policy = class["preemptionPolicy"].as_str().map(str::to_owned);
                (text(&class["metadata"]["name"]).to_owned(), number(&class), policy)
            }
            None => (String::new(), 0, Some(PREEMPT.to_owned())),
        },
        _ => match context.source.get(&resource, "", &name) {
            Some(class) => {
                let policy = class["preemptionPolicy"].as_str().map(str::to_owned);
                (name, number(&class), policy)
            }
            None => {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(attributes.forbidden(Some(pod), &why));
            }
        },
    };
    let given = pod["spec"]["priority"].as_i64();
    if let Some(given) = given.filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority \
             admission controller computed {value} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(Some(pod), &why));
    }
    if let Some(policy) = policy {
        let given = text(&pod["spec"]["preemptionPolicy"]);
        if !given.is_empty() && given != policy {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
                 priority admission controller computed {policy} from the given PriorityClass name"
            );
            return Err(attributes.forbidden(Some(pod), &why));
        }
        pod["spec"]["preemptionPolicy"] = policy.into();
    }
    if !class_name.is_empty() {
        pod["spec"]["priorityClassName"] = class_name.into();
    }
    pod["spec"]["priority"] = json!(value);
    Ok(())
}

fn number(class: &Value) -> i64 {
    class["value"].as_i64().unwrap_or(0)
}

/// Of several defaults the one with the smallest value counts.
fn default_class(context: &Context) -> Option<std::sync::Arc<Value>> {
    let resource = GroupResource::new(GROUP, "priorityclasses");
    let classes = context.source.list(&resource, None);
    classes.into_iter().filter(|class| class["globalDefault"] == true).min_by_key(|c| number(c))
}
