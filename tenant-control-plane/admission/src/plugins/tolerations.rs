//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or cannot be
//! reached, unless it says otherwise.

use machinery::Status;
use serde_json::{Value, json};

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{items, list_mut, text};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn mutate(
        &self,
        _context: &Context,
        attributes: &Attributes<'_>,
        pod: &mut Value,
    ) -> Result<(), Status> {
        let writes = matches!(attributes.operation(), Operation::Create | Operation::Update);
        if !attributes.is("", "pods") || !writes {
            return Ok(());
        }
        for taint in TAINTS {
            let tolerated = items(&pod["spec"]["tolerations"]).any(|t| {
                let key = text(&t["key"]);
                (key.is_empty() || key == taint) && matches!(text(&t["effect"]), "" | "NoExecute")
            });
            if !tolerated {
                list_mut(&mut pod["spec"], "tolerations").push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": SECONDS,
                }));
            }
        }
        Ok(())
    }
}
