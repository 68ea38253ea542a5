//! Kernel parameters of a pod.

use std::collections::HashSet;

use serde_json::Value;

use super::super::faults::{is_set, items, text};
use super::super::{At, Faults};

const LONGEST: usize = 253;
const RULE: &str = "must have at most 253 characters and match regex \
    ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Parameters of the kernel that each IPC namespace has.
const IPC: [&str; 3] = ["kernel.shm", "kernel.msg", "fs.mqueue."];

/// Checks `securityContext.sysctls` of a pod's spec.
pub(super) fn check(spec: &Value, at: &At<'_>, faults: &mut Faults) {
    let context = at.field("securityContext");
    let list = context.field("sysctls");
    let mut names = HashSet::new();
    for (index, sysctl) in items(&spec["securityContext"], "sysctls").iter().enumerate() {
        let here = list.index(index);
        let here = here.field("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            faults.required(&here, "");
        } else if !is_name(name) {
            faults.invalid(&here, name, RULE);
        } else if !names.insert(name) {
            faults.duplicate(&here, name);
        }
        let dotted = name.replace('/', ".");
        if dotted.starts_with("net.") && is_set(spec, "hostNetwork") {
            faults.invalid(&here, name, "may not be specified when 'hostNetwork' is true");
        }
        let is_ipc = dotted == "kernel.sem" || IPC.iter().any(|prefix| dotted.starts_with(prefix));
        if is_ipc && is_set(spec, "hostIPC") {
            faults.invalid(&here, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_name(name: &str) -> bool {
    let segment = |text: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| matches!(c, 'a'..='z' | '0'..='9'));
        let inside = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
        ends(text.chars().next()) && ends(text.chars().last()) && text.chars().all(inside)
    };
    name.len() <= LONGEST && name.split(['.', '/']).all(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kernel_parameters() {
        for good in ["kernel.shm_rmid_forced", "net/ipv4/ip_forward", "safe-and-unsafe", "a"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["foo-", "bar..", "", ".a", "Kernel", &"a".repeat(254)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
