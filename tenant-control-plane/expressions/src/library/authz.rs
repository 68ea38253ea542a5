//! Asking whether a user may do something: `authorizer.group('apps').resource('deployments')
//! .namespace('ns').check('create').allowed()`.

use std::sync::Arc;

use cel::common::types::{STRING_TYPE, Type};
use cel::objects::Opaque;
use cel::{DeclarationError, Env, ExecutionError, Value};
use machinery::{RequestInfo, UserInfo};

use super::{Args, Returned, member, opaque, own, returned, text, values};

/// Names of the types.
pub(crate) const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const PATH: &str = "kubernetes.authorization.PathCheck";
const GROUP: &str = "kubernetes.authorization.GroupCheck";
pub(crate) const RESOURCE: &str = "kubernetes.authorization.ResourceCheck";
const DECISION: &str = "kubernetes.authorization.Decision";

/// Decides what users may do.
pub trait Access: Send + Sync {
    /// Whether the user may do what the request describes, and why.
    fn decide(&self, user: &UserInfo, request: &RequestInfo) -> (bool, String);
}

/// The variable `authorizer`: what may this user do?
#[derive(Clone)]
pub struct Authorizer {
    access: Arc<dyn Access>,
    user: Arc<UserInfo>,
}

impl Authorizer {
    /// Asks for a user.
    pub fn new(access: Arc<dyn Access>, user: UserInfo) -> Self {
        Self { access, user: Arc::new(user) }
    }
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").field("user", &self.user.name).finish_non_exhaustive()
    }
}

impl PartialEq for Authorizer {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user
    }
}

impl Eq for Authorizer {}

impl Opaque for Authorizer {
    fn runtime_type_name(&self) -> &str {
        AUTHORIZER
    }
}

/// A question that is not complete; its kind is its type in expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    kind: &'static str,
    by: Authorizer,
    request: RequestInfo,
}

impl Opaque for Check {
    fn runtime_type_name(&self) -> &str {
        self.kind
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision {
    allowed: bool,
    reason: String,
}

impl Opaque for Decision {
    fn runtime_type_name(&self) -> &str {
        DECISION
    }
}

/// `authorizer.requestResource`: a question about the resource of a request.
pub(crate) fn request_resource(by: &Authorizer, request: &RequestInfo) -> Value {
    let mut request = request.clone();
    request.is_resource_request = true;
    Value::Opaque(Arc::new(Check { kind: RESOURCE, by: by.clone(), request }))
}

pub(super) fn extension(environment: &mut Env) -> Result<(), DeclarationError> {
    let of = Type::new_opaque_type::<&'static str>;
    let one = || vec![STRING_TYPE];
    member(environment, "path", of(AUTHORIZER), one(), path)?;
    member(environment, "group", of(AUTHORIZER), one(), group)?;
    let account = vec![STRING_TYPE, STRING_TYPE];
    member(environment, "serviceAccount", of(AUTHORIZER), account, service_account)?;
    member(environment, "resource", of(GROUP), one(), resource)?;
    member(environment, "subresource", of(RESOURCE), one(), subresource)?;
    member(environment, "namespace", of(RESOURCE), one(), namespace)?;
    member(environment, "name", of(RESOURCE), one(), name)?;
    member(environment, "check", of(RESOURCE), one(), check)?;
    member(environment, "check", of(PATH), one(), check)?;
    member(environment, "allowed", of(DECISION), vec![], allowed)?;
    member(environment, "reason", of(DECISION), vec![], reason)?;
    member(environment, "errored", of(DECISION), vec![], errored)?;
    member(environment, "error", of(DECISION), vec![], error)
}

/// A new question.
fn begin<'b, 'v>(args: Args<'b, 'v>, kind: &'static str, resource: bool) -> Returned<'b, 'v> {
    let [by, given] = values(args)?;
    let (by, given) = (own::<Authorizer>(&by)?, text(&given)?.to_owned());
    let mut request = RequestInfo { is_resource_request: resource, ..RequestInfo::default() };
    if resource {
        request.group = given;
        request.version = "*".to_owned();
    } else {
        request.path = given;
    }
    opaque(Check { kind, by, request })
}

fn path<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    begin(args, PATH, false)
}

fn group<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    begin(args, GROUP, true)
}

fn service_account<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [by, namespace, name] = values(args)?;
    let (namespace, name) = (text(&namespace)?, text(&name)?);
    let user = UserInfo {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        ..UserInfo::default()
    };
    opaque(Authorizer { user: Arc::new(user), ..own::<Authorizer>(&by)? })
}

/// A question with one more part.
fn refine<'b, 'v>(args: Args<'b, 'v>, set: fn(&mut RequestInfo, String)) -> Returned<'b, 'v> {
    let [check, given] = values(args)?;
    let mut check = own::<Check>(&check)?;
    set(&mut check.request, text(&given)?.to_owned());
    check.kind = RESOURCE;
    opaque(check)
}

fn resource<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    refine(args, |request, given| request.resource = given)
}

fn subresource<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    refine(args, |request, given| request.subresource = given)
}

fn namespace<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    refine(args, |request, given| request.namespace = given)
}

fn name<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    refine(args, |request, given| request.name = given)
}

fn check<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [check, verb] = values(args)?;
    let Check { by, mut request, .. } = own::<Check>(&check)?;
    request.verb = text(&verb)?.to_owned();
    let (allowed, reason) = by.access.decide(&by.user, &request);
    opaque(Decision { allowed, reason })
}

fn decision(args: Args<'_, '_>) -> Result<Decision, ExecutionError> {
    let [this] = values(args)?;
    own::<Decision>(&this)
}

fn allowed<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(decision(args)?.allowed)
}

fn reason<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(decision(args)?.reason)
}

/// The authorizers of this server decide from memory: they do not fail.
fn errored<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    decision(args)?;
    returned(false)
}

fn error<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    decision(args)?;
    returned(String::new())
}
