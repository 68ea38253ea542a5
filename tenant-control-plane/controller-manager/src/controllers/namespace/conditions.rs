//! Conditions that tell users why a namespace is still there.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Remaining;

/// Condition type, reason and message when all is well, reason when not.
const KINDS: [(&str, &str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
        "DiscoveryFailed",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
        "GroupVersionParsingFailed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
        "ContentDeletionFailed",
    ),
    (
        "NamespaceContentRemaining",
        "ContentRemoved",
        "All content successfully removed",
        "SomeResourcesRemain",
    ),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
        "SomeFinalizersRemain",
    ),
];

fn list(counts: &[(String, usize)], what: &str) -> String {
    let parts: Vec<_> = counts
        .iter()
        .map(|(name, count)| format!("{name} {what} {count} resource instances"))
        .collect();
    parts.join(", ")
}

/// Writes what remains into the namespace's conditions. True when something changed.
pub(super) fn note(namespace: &mut Namespace, remaining: &Remaining) -> bool {
    let problems = [
        (!remaining.discovery.is_empty()).then(|| {
            format!(
                "Discovery failed for some groups, {} failing: {}",
                remaining.discovery.len(),
                remaining.discovery.join(", ")
            )
        }),
        None,
        (!remaining.failures.is_empty()).then(|| {
            format!(
                "Failed to delete all resource types, {} remaining: {}",
                remaining.failures.len(),
                remaining.failures.join(", ")
            )
        }),
        (!remaining.objects.is_empty())
            .then(|| format!("Some resources are remaining: {}", list(&remaining.objects, "has"))),
        (!remaining.finalizers.is_empty()).then(|| {
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                list(&remaining.finalizers, "in")
            )
        }),
    ];
    let status = namespace.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    let mut changed = false;
    for ((kind, fine, fine_message, bad), problem) in KINDS.into_iter().zip(problems) {
        let (state, reason, message) = match problem {
            Some(message) => ("True", bad, message),
            None => ("False", fine, fine_message.to_owned()),
        };
        changed |= set(conditions, kind, state, reason, message);
    }
    changed
}

fn set(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    state: &str,
    reason: &str,
    message: String,
) -> bool {
    let old = conditions.iter().position(|condition| condition.type_ == kind);
    let mut since = Some(Time(Timestamp::now()));
    if let Some(index) = old {
        let condition = &conditions[index];
        if condition.status == state
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(&message)
        {
            return false;
        }
        if condition.status == state {
            since.clone_from(&condition.last_transition_time);
        }
        conditions.remove(index);
    }
    conditions.push(NamespaceCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: since,
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_named_and_later_cleared() {
        let mut namespace = Namespace::default();
        let left = Remaining {
            objects: vec![("pods.".into(), 2)],
            finalizers: vec![("example.com/hold".into(), 1)],
            ..Remaining::default()
        };
        assert!(note(&mut namespace, &left));
        assert!(!note(&mut namespace, &left), "the same again is no change");
        let find = |namespace: &Namespace, kind: &str| {
            let conditions = namespace.status.clone().unwrap().conditions.unwrap();
            conditions.into_iter().find(|c| c.type_ == kind).unwrap()
        };
        let condition = find(&namespace, "NamespaceContentRemaining");
        assert_eq!(
            condition.message.unwrap(),
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert!(note(&mut namespace, &Remaining::default()));
        assert_eq!(find(&namespace, "NamespaceContentRemaining").status, "False");
    }
}
