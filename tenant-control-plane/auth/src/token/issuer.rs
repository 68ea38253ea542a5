//! Answers TokenRequests, and publishes what others need to check the tokens: the OpenID
//! discovery document and the key set.

use anyhow::Context;
use machinery::{Cause, GroupResource, ObjectSource, Status};
use serde_json::{Map, Value, json};

use super::claims::{BoundObject, Claims, Kubernetes};
use super::jwt;
use super::keys::{KeySet, SigningKey};

/// Seconds for which clients ask that only want to be warned when they do not renew.
const WARN_ONLY_SECONDS: i64 = 3607;
/// Validity of such a token when expiry is extended: one year.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;
const DEFAULT_SECONDS: i64 = 3600;
const SHORTEST_SECONDS: i64 = 10 * 60;
const LONGEST_SECONDS: i64 = 1 << 32;

/// How tokens are made.
pub struct IssuerConfig {
    /// The first `--service-account-issuer`.
    pub issuer: String,
    /// `--service-account-signing-key-file`.
    pub signing_key: SigningKey,
    /// All keys whose tokens are accepted: what the key set publishes.
    pub keys: KeySet,
    /// `--api-audiences`, or the issuer.
    pub api_audiences: Vec<String>,
    /// `--service-account-max-token-expiration` in seconds; 0 means no limit.
    pub max_seconds: i64,
    /// `--service-account-extend-token-expiration`.
    pub extend_expiration: bool,
}

/// Makes ServiceAccount tokens.
pub struct Issuer {
    config: IssuerConfig,
}

impl Issuer {
    /// An issuer; the signing key's public half is added to the published keys.
    pub fn new(mut config: IssuerConfig) -> Self {
        config.keys.add(config.signing_key.public().clone());
        if config.api_audiences.is_empty() {
            config.api_audiences = vec![config.issuer.clone()];
        }
        Self { config }
    }

    /// Answers `POST serviceaccounts/<name>/token`: the TokenRequest with its status filled in.
    ///
    /// # Errors
    /// 404 when the ServiceAccount or the bound object does not exist, 409 when a uid differs,
    /// 422 for fields out of range.
    pub fn token_request(
        &self,
        source: &dyn ObjectSource,
        namespace: &str,
        name: &str,
        body: &Value,
        now: jiff::Timestamp,
    ) -> Result<Value, Status> {
        check_meta(body, namespace, name)?;
        let accounts = GroupResource::new("", "serviceaccounts");
        let account = source
            .get(&accounts, namespace, name)
            .ok_or_else(|| Status::not_found(&accounts, name))?;
        let uid = text(&account["metadata"]["uid"]);
        check_uid(body, &uid, name)?;
        let spec = &body["spec"];
        let audiences = self.audiences(spec);
        let asked = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        check_seconds(asked)?;
        let seconds = match self.config.max_seconds {
            0 => asked,
            max => asked.min(max),
        };
        let mut kubernetes = Kubernetes {
            namespace: namespace.to_owned(),
            node: None,
            pod: None,
            secret: None,
            serviceaccount: BoundObject { name: name.to_owned(), uid: uid.clone() },
            warnafter: None,
        };
        bind(source, &spec["boundObjectRef"], &mut kubernetes)?;
        let mut valid = seconds;
        let own = audiences.iter().all(|a| self.config.api_audiences.contains(a));
        if self.config.extend_expiration
            && kubernetes.pod.is_some()
            && seconds == WARN_ONLY_SECONDS
            && own
        {
            kubernetes.warnafter = Some(now.as_second() + seconds);
            valid = EXTENDED_SECONDS;
        }
        let claims = Claims {
            aud: audiences.clone(),
            exp: now.as_second() + valid,
            iat: now.as_second(),
            iss: self.config.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            nbf: now.as_second(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            kubernetes,
        };
        let token = self.sign(&claims).map_err(Status::internal)?;
        Ok(answer(body, namespace, name, &uid, &audiences, seconds, &token, now))
    }

    /// Signs claims.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn sign(&self, claims: &Claims) -> anyhow::Result<String> {
        let claims = serde_json::to_value(claims).context("claims")?;
        jwt::sign(&self.config.signing_key, &claims)
    }

    /// The document at `/.well-known/openid-configuration`. `jwks_uri` is the absolute address of
    /// the key set.
    pub fn discovery(&self, jwks_uri: &str) -> Value {
        let algorithms: Vec<Value> = {
            let keys = self.config.keys.to_jwks();
            let mut found: Vec<Value> = Vec::new();
            for key in keys["keys"].as_array().into_iter().flatten() {
                if !found.contains(&key["alg"]) {
                    found.push(key["alg"].clone());
                }
            }
            found
        };
        json!({
            "issuer": self.config.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// The document at `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        self.config.keys.to_jwks()
    }

    fn audiences(&self, spec: &Value) -> Vec<String> {
        let asked: Vec<String> =
            spec["audiences"].as_array().into_iter().flatten().map(text).collect();
        if asked.is_empty() { self.config.api_audiences.clone() } else { asked }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn invalid(name: &str, field: &str, value: &Value, why: &str) -> Status {
    let message = format!("Invalid value: {value}: {why}");
    let cause = Cause { reason: "FieldValueInvalid".into(), message, field: field.to_owned() };
    Status::invalid("authentication.k8s.io", "TokenRequest", name, vec![cause])
}

fn check_meta(body: &Value, namespace: &str, name: &str) -> Result<(), Status> {
    for (field, expected) in [("name", name), ("namespace", namespace)] {
        let given = &body["metadata"][field];
        if given.as_str().is_some_and(|g| !g.is_empty() && g != expected) {
            let why = format!("must match the service account {field} if specified");
            return Err(invalid(name, &format!("metadata.{field}"), given, &why));
        }
    }
    Ok(())
}

fn check_uid(body: &Value, uid: &str, name: &str) -> Result<(), Status> {
    let given = text(&body["metadata"]["uid"]);
    if given.is_empty() || given == uid {
        return Ok(());
    }
    let kind = GroupResource::new("authentication.k8s.io", "TokenRequest");
    let why = format!(
        "the UID in the token request ({given}) does not match the UID of the service account \
         ({uid})"
    );
    Err(Status::conflict(&kind, name, &why))
}

fn check_seconds(seconds: i64) -> Result<(), Status> {
    let why = match seconds {
        i64::MIN..SHORTEST_SECONDS => "may not specify a duration less than 10 minutes",
        SHORTEST_SECONDS..=LONGEST_SECONDS => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    Err(invalid("", "spec.expirationSeconds", &seconds.into(), why))
}

/// Fills in what the token is bound to. Source: KEP-1205, KEP-4193.
fn bind(
    source: &dyn ObjectSource,
    reference: &Value,
    kubernetes: &mut Kubernetes,
) -> Result<(), Status> {
    if reference.is_null() {
        return Ok(());
    }
    let (kind, name) = (text(&reference["kind"]), text(&reference["name"]));
    let version = text(&reference["apiVersion"]);
    let resource = match (version.as_str(), kind.as_str()) {
        ("" | "v1", "Pod") => "pods",
        ("" | "v1", "Secret") => "secrets",
        ("" | "v1", "Node") => "nodes",
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={kind}"
            )));
        }
    };
    let group_resource = GroupResource::new("", resource);
    let namespace = if resource == "nodes" { "" } else { kubernetes.namespace.as_str() };
    let object = source
        .get(&group_resource, namespace, &name)
        .ok_or_else(|| Status::not_found(&group_resource, &name))?;
    let uid = text(&object["metadata"]["uid"]);
    let account = &kubernetes.serviceaccount.name;
    if resource == "pods" && object["spec"]["serviceAccountName"] != account.as_str() {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount \"{account}\" to pod running with different \
             serviceaccount name."
        )));
    }
    let given = text(&reference["uid"]);
    if !given.is_empty() && given != uid {
        let why = format!(
            "the UID in the bound object reference ({given}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&GroupResource::new("", kind), &name, &why));
    }
    let bound = Some(BoundObject { name, uid });
    match resource {
        "pods" => {
            kubernetes.node = object["spec"]["nodeName"]
                .as_str()
                .filter(|n| !n.is_empty())
                .map(|n| node(source, n));
            kubernetes.pod = bound;
        }
        "secrets" => kubernetes.secret = bound,
        _ => kubernetes.node = bound,
    }
    Ok(())
}

fn node(source: &dyn ObjectSource, name: &str) -> BoundObject {
    let object = source.get(&GroupResource::new("", "nodes"), "", name);
    let uid = object.map(|o| text(&o["metadata"]["uid"])).unwrap_or_default();
    BoundObject { name: name.to_owned(), uid }
}

#[allow(clippy::too_many_arguments, reason = "the fields of one answer, used once")]
fn answer(
    body: &Value,
    namespace: &str,
    name: &str,
    uid: &str,
    audiences: &[String],
    seconds: i64,
    token: &str,
    now: jiff::Timestamp,
) -> Value {
    let time = |second: i64| {
        jiff::Timestamp::from_second(second).map(|t| t.to_string()).unwrap_or_default()
    };
    let mut spec: Map<String, Value> = body["spec"].as_object().cloned().unwrap_or_default();
    spec.insert("audiences".into(), json!(audiences));
    spec.insert("expirationSeconds".into(), seconds.into());
    json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid,
            "creationTimestamp": time(now.as_second()),
        },
        "spec": spec,
        "status": {
            "token": token,
            "expirationTimestamp": time(now.as_second() + seconds),
        },
    })
}
