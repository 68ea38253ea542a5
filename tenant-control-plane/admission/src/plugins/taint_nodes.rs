//! TaintNodesByCondition: a new Node takes no pods before it is ready.

use machinery::Status;
use serde_json::{Value, json};

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{child_mut, items, list_mut, text};

const TAINT: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn mutate(
        &self,
        _context: &Context,
        attributes: &Attributes<'_>,
        node: &mut Value,
    ) -> Result<(), Status> {
        if !attributes.is("", "nodes") || attributes.operation() != Operation::Create {
            return Ok(());
        }
        let tainted = items(&node["spec"]["taints"])
            .any(|t| text(&t["key"]) == TAINT && text(&t["effect"]) == "NoSchedule");
        if !tainted {
            child_mut(node, "spec");
            list_mut(&mut node["spec"], "taints")
                .push(json!({"key": TAINT, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}
