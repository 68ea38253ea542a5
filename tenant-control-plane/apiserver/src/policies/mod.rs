//! ValidatingAdmissionPolicies: expressions of the tenant that decide about requests.
//!
//! ```text
//!  policies and bindings (cache) ─► compile, once per change
//!  request ─► policy matches? ─► binding matches? ─► its parameters ─► evaluate ─► deny, warn
//! ```
//!
//! Audit annotations are not kept: this server writes no audit log.
//!
//! Source: Kubernetes documentation, "Validating Admission Policy"; KEP-3488.

pub mod access;
mod compiled;
mod evaluate;
mod params;

use std::sync::{Arc, RwLock};

use admission::rule::Rule;
use admission::{Operation, rule};
use machinery::{GroupResource, ObjectSource, Reason, Status};
use serde_json::{Value, json};

pub use compiled::{result_types, variables};

use self::compiled::{Binding, Criteria, Policy};
use self::evaluate::{Decision, Evaluation};
use crate::cache::Caches;
use crate::hooks::conditions::{authorizer, evaluating};
use crate::hooks::select::{
    Invocation, NamespaceLabels, asked, in_selected_namespace, invocation, namespace,
    object_selected,
};
use crate::hooks::{Facts, Passing, Subject, version};
use crate::registry::Call;

/// The policies that are bound.
pub struct Policies {
    enabled: bool,
    policies: GroupResource,
    bindings: GroupResource,
    parsed: RwLock<Option<Parsed>>,
}

/// Compiled policies, as of generations of the caches of policies and bindings.
struct Parsed {
    of: [u64; 2],
    policies: Arc<[Policy]>,
}

/// A request on its way through the policies.
struct Request<'a> {
    passing: Passing<'a>,
    object: Option<&'a Value>,
    labels: NamespaceLabels,
}

/// A refusal, and who refuses.
struct Denial {
    policy: String,
    binding: Option<String>,
    decision: Decision,
}

impl Policies {
    /// Policies are read from the caches when they are needed, if they are on at all.
    pub fn new(enabled: bool) -> Self {
        let resource = |plural: &str| GroupResource::new("admissionregistration.k8s.io", plural);
        Self {
            enabled,
            policies: resource("validatingadmissionpolicies"),
            bindings: resource("validatingadmissionpolicybindings"),
            parsed: RwLock::default(),
        }
    }

    /// Lets the policies judge an object (`None` for deletions).
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(
        &self,
        call: &Call,
        subject: &Subject<'_>,
        operation: Operation,
        object: Option<&Value>,
    ) -> Result<(), Status> {
        let policies = self.read(&call.api.caches);
        if policies.is_empty() || rule::is_exempt(&subject.gvk.group, &subject.gvk.kind) {
            return Ok(());
        }
        let facts = Facts::new(call, subject, operation, object);
        let asker = facts.asker(call, subject);
        let passing = Passing { call, subject, asker: &asker };
        let request = Request { passing, object, labels: NamespaceLabels::default() };
        let mut denials = Vec::new();
        for policy in policies.iter() {
            judge(&request, policy, &mut denials).await?;
        }
        denials.first().map_or(Ok(()), |denial| Err(refusal(&request, denial)))
    }

    fn read(&self, caches: &Caches) -> Arc<[Policy]> {
        if !self.enabled {
            return Arc::new([]);
        }
        let generations = [caches.generation(&self.policies), caches.generation(&self.bindings)];
        if let Some(parsed) = &*self.parsed.read().expect("no panic while locked")
            && parsed.of == generations
        {
            return parsed.policies.clone();
        }
        let bindings = caches.list(&self.bindings, None);
        let compiled: Arc<[Policy]> = caches
            .list(&self.policies, None)
            .iter()
            .map(|policy| Policy::compile(policy, &bindings))
            .filter(|policy| !policy.bindings.is_empty())
            .collect();
        *self.parsed.write().expect("no panic while locked") =
            Some(Parsed { of: generations, policies: compiled.clone() });
        compiled
    }
}

async fn judge(
    request: &Request<'_>,
    policy: &Policy,
    denials: &mut Vec<Denial>,
) -> Result<(), Status> {
    let mut misconfigured = |why: String, binding: Option<&Binding>| {
        if policy.fails_open {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        denials.push(Denial {
            policy: policy.name.clone(),
            binding: binding.map(|b| b.name.clone()),
            decision: Decision::invalid(format!("failed to configure {what}: {why}")),
        });
    };
    let invocation = match matches(request, &policy.criteria).await {
        Ok(None) => return Ok(()),
        Ok(Some(invocation)) => invocation,
        Err(status) => {
            misconfigured(status.message, None);
            return Ok(());
        }
    };
    let kind = match params::kind(request.passing.call, policy.param_kind.as_ref()) {
        Ok(kind) => kind,
        Err(why) => {
            misconfigured(why, None);
            return Ok(());
        }
    };
    let mut found = Vec::new();
    for binding in &policy.bindings {
        let bound = match &binding.criteria {
            None => Ok(true),
            Some(criteria) => matches(request, criteria).await.map(|m| m.is_some()),
        };
        match bound {
            Ok(false) => continue,
            Ok(true) => {}
            Err(status) => {
                misconfigured(status.message, Some(binding));
                continue;
            }
        }
        let space = request.passing.asker.namespace;
        let call = request.passing.call;
        match params::collect(call, kind.as_deref(), &binding.params, space).await {
            Err(why) => misconfigured(why, Some(binding)),
            Ok(params) => found.push((binding, params)),
        }
    }
    if found.iter().all(|(_, params)| params.is_empty()) {
        return Ok(());
    }
    let evaluation = evaluation(request, policy, &invocation).await?;
    for (binding, params) in found {
        for param in params {
            let decisions = evaluating(policy.may_take_long(), || evaluation.decide(&param));
            apply(request.passing.call, policy, binding, decisions, denials);
        }
    }
    Ok(())
}

/// What a policy's expressions see.
async fn evaluation<'a>(
    request: &Request<'a>,
    policy: &'a Policy,
    invocation: &Invocation,
) -> Result<Evaluation<'a>, Status> {
    let Passing { call, subject, asker } = request.passing;
    let is_namespace = asker.gvr.group.is_empty() && asker.gvr.resource == "namespaces";
    let space = match asker.namespace {
        "" => Value::Null,
        _ if is_namespace => Value::Null,
        name => Value::clone(&*namespace(call, name).await?),
    };
    Ok(Evaluation {
        policy,
        object: version::converted(call, &invocation.row, request.object).await?,
        old: version::converted(call, &invocation.row, subject.old).await?,
        request: asker.request(&invocation.gvk, &invocation.gvr),
        namespace: space,
        authorizer: authorizer(call),
        info: &call.info,
    })
}

fn apply(
    call: &Call,
    policy: &Policy,
    binding: &Binding,
    decisions: Vec<Decision>,
    denials: &mut Vec<Denial>,
) {
    for decision in decisions {
        if binding.warns {
            call.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, decision.message
            ));
        }
        if binding.denies {
            denials.push(Denial {
                policy: policy.name.clone(),
                binding: Some(binding.name.clone()),
                decision,
            });
        }
    }
}

/// The version of the resource that the criteria name; `None` when they do not select the request.
async fn matches(request: &Request<'_>, criteria: &Criteria) -> Result<Option<Invocation>, Status> {
    let Passing { call, subject, asker } = request.passing;
    let asked = asked(asker);
    let find = |rules: &[Rule]| invocation(request.passing, rules, criteria.equivalent, &asked);
    let found = match criteria.rules.as_slice() {
        [] => Some(Invocation {
            row: call.row.clone(),
            gvr: asker.gvr.clone(),
            gvk: asker.gvk.clone(),
        }),
        rules => find(rules),
    };
    let Some(found) = found.filter(|_| find(&criteria.excluded).is_none()) else {
        return Ok(None);
    };
    let (object, selector) = (request.object, &criteria.namespaces);
    let selected = in_selected_namespace(call, &asked, object, selector, &request.labels).await?
        && object_selected(&criteria.objects, object, subject.old)?;
    Ok(selected.then_some(found))
}

fn refusal(request: &Request<'_>, denial: &Denial) -> Status {
    let why = &denial.decision.message;
    let message = match &denial.binding {
        Some(binding) => format!(
            "ValidatingAdmissionPolicy '{}' with binding '{binding}' denied request: {why}",
            denial.policy
        ),
        None => format!("ValidatingAdmissionPolicy '{}' denied request: {why}", denial.policy),
    };
    let Passing { call, asker, .. } = request.passing;
    let mut status = Status::forbidden(&call.resource(), asker.name, &message);
    status.reason = Reason::from_name(&denial.decision.reason).unwrap_or(Reason::Invalid);
    status.code = status.reason.http_code();
    if let Some(details) = status.details.as_object_mut() {
        details.insert("causes".into(), json!([{"message": message}]));
    }
    status
}
