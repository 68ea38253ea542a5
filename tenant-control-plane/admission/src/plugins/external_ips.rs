//! DenyServiceExternalIPs: no new `spec.externalIPs`, because who sets one can take over traffic
//! that is meant for somebody else (CVE-2020-8554).

use machinery::Status;
use serde_json::Value;

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::items;

pub(super) struct DenyServiceExternalIPs;

impl Plugin for DenyServiceExternalIPs {
    fn validate(
        &self,
        _context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let Some(service) = object.filter(|_| attributes.is("", "services")) else {
            return Ok(());
        };
        if !matches!(attributes.operation(), Operation::Create | Operation::Update) {
            return Ok(());
        }
        let old = attributes.old.unwrap_or(&Value::Null);
        let kept = |ip: &Value| items(&old["spec"]["externalIPs"]).any(|o| o == ip);
        match items(&service["spec"]["externalIPs"]).all(kept) {
            true => Ok(()),
            false => {
                Err(attributes
                    .forbidden(object, "Use of external IPs is denied by admission control"))
            }
        }
    }
}
