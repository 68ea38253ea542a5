//! Certificates, tokens, front proxies and impersonation.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use auth::token::{Issuer, IssuerConfig, KeySet, SigningKey};
use auth::{
    AuthConfig, Authenticator, Authorizer, AuthorizerConfig, ServiceAccountConfig,
    bootstrap_policy, impersonation,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use rcgen::KeyPair;
use serde_json::{Value, json};
use support::{Objects, headers, user};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn bearer(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

#[test]
fn a_token_of_the_file_names_its_user_before_any_other_authenticator_is_asked() {
    let config = AuthConfig {
        token_file: Some("admin-token,admin,1,\"system:masters,ops\"\n".into()),
        ..AuthConfig::default()
    };
    let authenticator = Authenticator::new(config, Arc::new(Objects::default())).unwrap();
    let admin = authenticator.authenticate(&bearer("admin-token"), &[]).unwrap().unwrap();
    assert_eq!((admin.name.as_str(), admin.uid.as_str()), ("admin", "1"));
    assert_eq!(admin.groups, ["system:masters", "ops", "system:authenticated"]);
    assert_eq!(authenticator.authenticate(&bearer("other"), &[]).unwrap_err().code, 401);
    let damaged =
        AuthConfig { token_file: Some("admin-token,admin\n".into()), ..Default::default() };
    assert!(Authenticator::new(damaged, Arc::new(Objects::default())).is_err());
}

fn signing_key() -> SigningKey {
    SigningKey::from_pem(KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap()
}

struct Tokens {
    objects: Arc<Objects>,
    issuer: Issuer,
    authenticator: Authenticator,
}

fn tokens() -> Tokens {
    let objects = Arc::new(Objects::default());
    objects.put(json!({"kind": "ServiceAccount",
        "metadata": {"name": "robot", "namespace": "ns", "uid": "sa-1"}}));
    objects
        .put(json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "uid": "pod-1"},
        "spec": {"serviceAccountName": "robot", "nodeName": "n1"}}));
    objects.put(json!({"kind": "Node", "metadata": {"name": "n1", "uid": "node-1"}}));
    let signing_key = signing_key();
    let mut keys = KeySet::default();
    keys.add(signing_key.public().clone());
    let issuer = Issuer::new(IssuerConfig {
        issuer: ISSUER.into(),
        signing_key,
        keys: keys.clone(),
        api_audiences: vec![],
        max_seconds: 0,
        extend_expiration: true,
    });
    let config = AuthConfig {
        anonymous: true,
        service_account: Some(ServiceAccountConfig {
            keys,
            issuers: vec![ISSUER.into()],
            audiences: vec![],
        }),
        bootstrap_tokens: true,
        ..AuthConfig::default()
    };
    let authenticator = Authenticator::new(config, objects.clone()).unwrap();
    Tokens { objects, issuer, authenticator }
}

impl Tokens {
    fn issue(&self, spec: Value, now: jiff::Timestamp) -> Result<Value, machinery::Status> {
        let body = json!({"spec": spec});
        self.issuer.token_request(&*self.objects, "ns", "robot", &body, now)
    }

    fn token(&self, spec: Value) -> String {
        let answer = self.issue(spec, jiff::Timestamp::now()).unwrap();
        answer["status"]["token"].as_str().unwrap().to_owned()
    }
}

const FOR_POD: &str =
    r#"{"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "pod-1"}}"#;

#[test]
fn a_bound_token_lives_as_long_as_what_it_is_bound_to() {
    let all = tokens();
    let token = all.token(serde_json::from_str(FOR_POD).unwrap());
    let found = all.authenticator.authenticate(&bearer(&token), &[]).unwrap().unwrap();
    assert_eq!(found.name, "system:serviceaccount:ns:robot");
    assert_eq!(found.uid, "sa-1");
    assert!(found.in_group("system:serviceaccounts:ns") && found.in_group("system:authenticated"));
    let extra = |key: &str| found.extra[&format!("authentication.kubernetes.io/{key}")][0].as_str();
    assert_eq!((extra("pod-name"), extra("pod-uid")), ("p", "pod-1"));
    assert_eq!((extra("node-name"), extra("node-uid")), ("n1", "node-1"));
    assert!(extra("credential-id").starts_with("JTI="));
    // In a WebSocket handshake it may come as a subprotocol.
    let subprotocol = format!(
        "base64url.bearer.authorization.k8s.io.{}, v5.channel.k8s.io",
        URL_SAFE_NO_PAD.encode(&token)
    );
    let websocket = headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", &subprotocol)]);
    assert!(all.authenticator.authenticate(&websocket, &[]).unwrap().unwrap().uid == "sa-1");

    let pod = json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "uid": "pod-2"},
        "spec": {"serviceAccountName": "robot"}});
    all.objects.put(pod.clone());
    assert_eq!(all.authenticator.authenticate(&bearer(&token), &[]).unwrap_err().code, 401);
    all.objects.remove(&pod);
    assert_eq!(all.authenticator.authenticate(&bearer(&token), &[]).unwrap_err().code, 401);
}

#[test]
fn wrong_tokens_are_refused_and_never_anonymous() {
    let all = tokens();
    let good = all.token(json!({}));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (_, payload) = head.split_once('.').unwrap();
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let hmac = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let past = all.issue(json!({}), "2020-01-01T00:00:00Z".parse().unwrap()).unwrap();
    let other_key = Issuer::new(IssuerConfig {
        issuer: ISSUER.into(),
        signing_key: signing_key(),
        keys: KeySet::default(),
        api_audiences: vec![],
        max_seconds: 0,
        extend_expiration: false,
    });
    let forged = other_key
        .token_request(&*all.objects, "ns", "robot", &json!({}), jiff::Timestamp::now())
        .unwrap();
    let text = |v: &Value| v["status"]["token"].as_str().unwrap().to_owned();
    for token in [
        format!("{unsigned}.{payload}."),
        format!("{hmac}.{payload}.{signature}"),
        format!("{head}.{}", URL_SAFE_NO_PAD.encode([0; 64])),
        text(&past),
        text(&forged),
        all.token(json!({"audiences": ["elsewhere"]})),
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(100_000),
    ] {
        let refused = all.authenticator.authenticate(&bearer(&token), &[]);
        assert_eq!(refused.unwrap_err().code, 401, "{}", &token[..token.len().min(60)]);
    }
    assert!(all.authenticator.authenticate(&bearer(&good), &[]).unwrap().is_some());
}

#[test]
fn token_requests_are_bounded_and_token_reviews_check_audiences() {
    let all = tokens();
    let now = jiff::Timestamp::now();
    for (spec, code, text) in [
        (json!({"expirationSeconds": 599}), 422, "less than 10 minutes"),
        (json!({"expirationSeconds": 4294967297i64}), 422, "larger than 2^32"),
        (json!({"boundObjectRef": {"kind": "Pod", "name": "gone"}}), 404, "not found"),
        (json!({"boundObjectRef": {"kind": "Pod", "name": "p", "uid": "x"}}), 409, "UID"),
        (json!({"boundObjectRef": {"kind": "Job", "name": "p"}}), 400, "cannot bind"),
    ] {
        let refusal = all.issue(spec, now).unwrap_err();
        assert_eq!(refusal.code, code);
        assert!(refusal.message.contains(text), "{}", refusal.message);
    }
    let answer = all
        .issue(
            json!({"expirationSeconds": 3607, "audiences": [ISSUER],
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}),
            now,
        )
        .unwrap();
    let token = answer["status"]["token"].as_str().unwrap();
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 365 * 24 * 3600);
    assert_eq!(claims["kubernetes.io"]["warnafter"], claims["iat"].as_i64().unwrap() + 3607);
    assert_eq!(all.issuer.jwks()["keys"][0]["crv"], "P-256");
    assert_eq!(all.issuer.discovery("https://x/openid/v1/jwks")["issuer"], ISSUER);

    let token = all.token(json!({"audiences": ["vault", ISSUER]}));
    let review = |audiences: Value| {
        let body = json!({"spec": {"token": token, "audiences": audiences}});
        auth::review::token_review(&all.authenticator, &body).unwrap()["status"].clone()
    };
    assert_eq!(review(json!([]))["authenticated"], true);
    assert_eq!(review(json!(["vault", "x"]))["audiences"], json!(["vault"]));
    assert_eq!(review(json!(["x"]))["authenticated"], Value::Null);
}

#[test]
fn bootstrap_tokens_let_machines_ask_for_their_first_certificate() {
    let all = tokens();
    let secret = |fields: &[(&str, &str)]| {
        let data: serde_json::Map<String, Value> = fields
            .iter()
            .map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value).into()))
            .collect();
        json!({"kind": "Secret", "type": "bootstrap.kubernetes.io/token", "data": data,
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}})
    };
    let token = bearer("abcdef.0123456789abcdef");
    let base = [("token-id", "abcdef"), ("token-secret", "0123456789abcdef")];
    let usage = ("usage-bootstrap-authentication", "true");
    let with = |more: &[(&str, &str)]| {
        all.objects.put(secret(&[&base[..], more].concat()));
        all.authenticator.authenticate(&token, &[])
    };
    let groups = ("auth-extra-groups", "system:bootstrappers:workers");
    let found = with(&[usage, groups, ("expiration", "2999-01-01T00:00:00Z")]).unwrap().unwrap();
    assert_eq!(found.name, "system:bootstrap:abcdef");
    assert_eq!(
        found.groups,
        ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]
    );
    assert!(with(&[]).is_err());
    assert!(with(&[usage, ("expiration", "2020-01-01T00:00:00Z")]).is_err());
    assert!(with(&[usage, ("auth-extra-groups", "system:masters")]).is_err());
    with(&[usage]).unwrap().unwrap();
    let wrong = bearer("abcdef.0123456789abcdeX");
    assert!(all.authenticator.authenticate(&wrong, &[]).is_err());
    let wrong = bearer("abcdef.0123456789abcde0");
    assert!(all.authenticator.authenticate(&wrong, &[]).is_err());
}

#[test]
fn impersonation_needs_permission_for_each_part() {
    let objects = Arc::new(Objects::default());
    bootstrap_policy().into_iter().for_each(|object| objects.put(object));
    objects.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "actor"},
        "rules": [{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"],
                   "resourceNames": ["jane"]}],
    }));
    objects.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "actor"}, "roleRef": {"kind": "ClusterRole", "name": "actor"},
        "subjects": [{"kind": "User", "name": "bob"}],
    }));
    let config = AuthorizerConfig { node: true, rbac: true, always_allow: false };
    let authorizer = Authorizer::new(config, objects);
    let bob = user("bob", &["system:authenticated"]);
    let act = |who: &machinery::UserInfo, pairs: &[(&str, &str)]| {
        impersonation::impersonate(&authorizer, who, &headers(pairs))
    };
    assert_eq!(act(&bob, &[]).unwrap(), None);
    let jane = act(&bob, &[("impersonate-user", "jane")]).unwrap().unwrap();
    assert_eq!(jane.groups, ["system:authenticated"]);
    let refusal = act(&bob, &[("impersonate-user", "jane"), ("impersonate-group", "ops")]);
    assert_eq!(
        refusal.unwrap_err().message,
        "groups \"ops\" is forbidden: User \"bob\" cannot impersonate resource \"groups\" in API \
         group \"\" at the cluster scope"
    );
    assert!(act(&bob, &[("impersonate-user", "root")]).is_err());
    assert_eq!(act(&bob, &[("impersonate-group", "ops")]).unwrap_err().code, 500);
    let admin = user("root", &["system:masters"]);
    let robot = act(
        &admin,
        &[
            ("impersonate-user", "system:serviceaccount:ns:robot"),
            ("impersonate-extra-scopes", "view"),
        ],
    )
    .unwrap()
    .unwrap();
    assert!(robot.in_group("system:serviceaccounts:ns"));
    assert_eq!(robot.extra["scopes"], ["view"]);
}

#[test]
fn keys_of_every_usual_form_sign_and_verify() {
    assert!(SigningKey::from_pem(b"").is_err());
    assert!(KeySet::from_pems([b"nothing".as_slice()]).is_err());
    for (kind, algorithms) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &["ES256"][..]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &["ES384"]),
        (&rcgen::PKCS_ED25519, &["EdDSA"]),
    ] {
        let pair = KeyPair::generate_for(kind).unwrap();
        every_form(&pair.serialize_pem(), &pair.public_key_pem(), algorithms);
    }
    let (private, public) = (include_str!("data/rsa.pem"), include_str!("data/rsa.pub.pem"));
    every_form(private, public, &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]);
    let sec1 = SigningKey::from_pem(include_bytes!("data/p384.sec1.pem")).unwrap();
    assert_eq!(sec1.algorithm(), "ES384");
}

fn every_form(private: &str, public: &str, algorithms: &[&str]) {
    for algorithm in algorithms {
        let signing = SigningKey::from_pem(private.as_bytes()).unwrap();
        assert_eq!(signing.algorithm(), algorithms[0]);
        let signing = signing.with_algorithm(algorithm).unwrap();
        let signature = signing.sign(b"m").unwrap();
        for file in [private, public] {
            let keys = KeySet::from_pems([file.as_bytes()]).unwrap();
            let key = keys.candidates(Some(signing.public().id())).next().unwrap();
            assert_eq!(key.id(), signing.public().id());
            assert!(key.verifies(algorithm, b"m", &signature), "{algorithm}");
            assert!(!key.verifies(algorithm, b"n", &signature));
            assert!(!key.verifies("none", b"m", &signature));
            for other in ["RS256", "PS512", "ES256", "ES384", "EdDSA"] {
                assert_eq!(key.verifies(other, b"m", &signature), other == *algorithm, "{other}");
            }
        }
    }
    let key = SigningKey::from_pem(private.as_bytes()).unwrap();
    let wrong = if algorithms.contains(&"ES256") { "RS256" } else { "ES256" };
    assert!(key.with_algorithm(wrong).is_err());
}

/// A good token and a good key file with a few bytes changed, many times: never a panic, and never
/// a user.
#[test]
fn mangled_tokens_and_keys_are_refused_without_a_panic() {
    let all = tokens();
    let good = all.token(json!({}));
    let pem = KeyPair::generate().unwrap().serialize_pem();
    // A fixed seed: xorshift64.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..3_000 {
        let mut token = good.clone().into_bytes();
        let at = random(token.len());
        token[at] = b"abcXYZ019-_.="[random(13)];
        token.truncate(token.len() - random(2) * random(token.len()));
        let token = String::from_utf8(token).unwrap();
        let refused = all.authenticator.authenticate(&bearer(&token), &[]).is_err();
        assert!(refused || token == good, "{token}");

        let mut file = pem.clone().into_bytes();
        let at = random(file.len());
        file[at] = random(256) as u8;
        let _ = SigningKey::from_pem(&file);
        let _ = KeySet::from_pems([&file]);
    }
}
