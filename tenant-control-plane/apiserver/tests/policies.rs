//! ValidatingAdmissionPolicies over HTTP.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Cluster, config_map};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A policy for ConfigMaps and ReplicaSets; `more` is merged into its spec.
fn policy(name: &str, more: Value) -> Value {
    let mut spec = json!({"matchConstraints": {"resourceRules": [{
        "operations": ["CREATE", "UPDATE"], "apiGroups": ["", "apps"], "apiVersions": ["v1"],
        "resources": ["configmaps", "replicasets"],
    }]}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

async fn bind(c: &Client, name: &str, more: Value) {
    let mut spec = json!({"policyName": name, "validationActions": ["Deny"]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let binding = json!({"metadata": {"name": format!("{name}-binding")}, "spec": spec});
    c.post(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding).await.expect(201);
}

async fn install(c: &Client, policy: &Value) {
    c.post(&format!("{GROUP}/validatingadmissionpolicies"), policy).await.expect(201);
}

#[tokio::test]
async fn a_bound_policy_denies_with_its_message_and_reason() {
    let (_cluster, c) = Cluster::with_default_namespace().await;
    let validations = json!([
        {"expression": "!has(object.data) || object.data.v != 'bad'",
            "messageExpression": "'not ' + object.data.v + ' in ' + namespaceObject.metadata.name"},
        {"expression": "!has(object.data) || object.data.v != 'secret'",
            "message": "keep it", "reason": "Forbidden"},
        {"expression": "!has(object.spec) || variables.odd", "message": "an odd number"},
    ]);
    let variables = json!([
        {"name": "replicas", "expression": "object.spec.replicas"},
        {"name": "odd", "expression": "variables.replicas % 2 == 1"},
    ]);
    install(&c, &policy("p", json!({"validations": validations, "variables": variables}))).await;
    c.post(MAPS, &config_map("unbound", "bad")).await.expect(201);
    bind(&c, "p", json!({})).await;

    let refused = c.post(MAPS, &config_map("a", "bad")).await.expect(422);
    let text = "ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: not bad in \
                default";
    assert_eq!(refused["message"], format!("configmaps \"a\" is forbidden: {text}"));
    assert_eq!(refused["reason"], "Invalid");
    assert_eq!(refused["details"]["causes"][0]["message"], text);
    let refused = c.post(MAPS, &config_map("a", "secret")).await.expect(403);
    assert!(refused["message"].as_str().unwrap().ends_with("denied request: keep it"));
    c.post(MAPS, &config_map("a", "good")).await.expect(201);
    c.patch(&format!("{MAPS}/a"), &json!({"data": {"v": "bad"}})).await.expect(422);

    let labels = json!({"app": "a"});
    let set = |name: &str, replicas: i64| {
        json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    c.post(sets, &set("even", 2)).await.expect(422);
    c.post(sets, &set("odd", 3)).await.expect(201);
}

#[tokio::test]
async fn parameters_warnings_selectors_and_failures() {
    let (_cluster, c) = Cluster::with_default_namespace().await;
    let validations =
        json!([{"expression": "size(object.data.v) <= int(params.data.max)", "message": "long"}]);
    let with_params = json!({"validations": validations,
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "n", "expression": "object.metadata.name != 'limits'"}]});
    install(&c, &policy("limited", with_params)).await;
    let reference = json!({"name": "limits", "parameterNotFoundAction": "Deny"});
    bind(&c, "limited", json!({"paramRef": reference})).await;
    let refused = c.post(MAPS, &config_map("early", "x")).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("failed to configure binding: no params found")
    );
    c.delete(&format!("{GROUP}/validatingadmissionpolicybindings/limited-binding"))
        .await
        .expect(200);
    c.post(MAPS, &json!({"metadata": {"name": "limits"}, "data": {"max": "3", "v": ""}}))
        .await
        .expect(201);
    bind(&c, "limited", json!({"paramRef": reference})).await;
    c.post(MAPS, &config_map("long", "xxxx")).await.expect(422);
    c.post(MAPS, &config_map("short", "xxx")).await.expect(201);

    let never = json!({"validations": [{"expression": "false"}]});
    install(&c, &policy("warns", never)).await;
    let selected = json!({"validationActions": ["Warn", "Audit"],
        "matchResources": {"objectSelector": {"matchLabels": {"v": "w"}}}});
    bind(&c, "warns", selected).await;
    let made = c.post(MAPS, &config_map("warned", "w")).await;
    let text = "299 - \"Validation failed for ValidatingAdmissionPolicy 'warns' with binding \
                'warns-binding': failed expression: false\"";
    assert_eq!(made.headers["warning"], text);
    made.expect(201);
    let made = c.post(MAPS, &config_map("unselected", "x")).await;
    assert!(!made.headers.contains_key("warning"));
    made.expect(201);

    for (policy_name, failure, code) in [("open", "Ignore", 201), ("closed", "Fail", 422)] {
        let absent = json!({"failurePolicy": failure,
            "validations": [{"expression": "object.data.absent == 'x'"}]});
        install(&c, &policy(policy_name, absent)).await;
        bind(&c, policy_name, json!({})).await;
        let made = c.post(MAPS, &config_map(policy_name, "x")).await.expect(code);
        if code == 422 {
            let message = made["message"].as_str().unwrap();
            assert!(message.ends_with("resulted in error: no such key: absent"), "{message}");
        }
    }
}

#[tokio::test]
async fn policies_that_cannot_work_are_refused() {
    let (_cluster, c) = Cluster::with_default_namespace().await;
    let path = format!("{GROUP}/validatingadmissionpolicies");
    let cases = [
        (json!({}), "spec.validations: Required value: validations or auditAnnotations"),
        (
            json!({"validations": [{"expression": "params.x == 1"}]}),
            "spec.validations[0].expression: Invalid value: \"params.x == 1\": compilation failed: \
             ERROR: <input>:1:1: undeclared reference to 'params' (in container '')",
        ),
        (json!({"validations": [{"expression": "1"}]}), "must evaluate to bool"),
        (json!({"validations": [{"expression": "variables.none"}]}), "undefined field 'none'"),
        (
            json!({"validations": [{"expression": "true", "reason": "Odd"}]}),
            "spec.validations[0].reason: Unsupported value: \"Odd\"",
        ),
    ];
    for (spec, text) in cases {
        let refused = c.post(&path, &policy("bad", spec)).await.expect(422);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(text), "{message}");
    }
    let binding = json!({"metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Deny", "Warn"]}});
    let path = format!("{GROUP}/validatingadmissionpolicybindings");
    let refused = c.post(&path, &binding).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("must not contain both Deny and Warn"));
}

#[tokio::test]
async fn nobody_reads_through_a_policy_what_he_may_not_read() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let grant = async |name: &str, rules: Value| {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        c.post(&format!("{rbac}/clusterroles"), &role).await.expect(201);
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": name},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io",
                "name": "policymaker"}]});
        c.post(&format!("{rbac}/clusterrolebindings"), &binding).await.expect(201);
    };
    let all = json!([{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"],
        "verbs": ["*"]}]);
    grant("policies", all).await;
    let user = cluster.client("policymaker", "");
    let validations = json!([{"expression": "params.data.a == 'b'"}]);
    let secrets = json!({"validations": validations,
        "paramKind": {"apiVersion": "v1", "kind": "Secret"}});
    let path = format!("{GROUP}/validatingadmissionpolicies");
    let refused = user.post(&path, &policy("p", secrets.clone())).await.expect(422);
    let text = "spec.paramKind: Forbidden: user \"policymaker\" must have \"get\" permission on all \
                objects of the referenced paramKind (kind=Secret, apiVersion=v1)";
    assert!(refused["message"].as_str().unwrap().contains(text), "{refused}");

    install(&c, &policy("p", secrets)).await;
    let one = format!("{path}/p");
    user.patch(&one, &json!({"spec": {"failurePolicy": "Ignore"}})).await.expect(200);
    let other = json!({"spec": {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}});
    user.patch(&one, &other).await.expect(422);

    let bindings = format!("{GROUP}/validatingadmissionpolicybindings");
    let binding = |reference: Value| {
        json!({"metadata": {"generateName": "b-"}, "spec": {"policyName": "p",
            "validationActions": ["Deny"], "paramRef": reference}})
    };
    let named = json!({"name": "s", "namespace": "default", "parameterNotFoundAction": "Allow"});
    let selected = json!({"selector": {}, "parameterNotFoundAction": "Allow"});
    let refused = user.post(&bindings, &binding(named.clone())).await.expect(422);
    let text = "spec.paramRef: Forbidden: user \"policymaker\" does not have \"get\" permission on the \
                object referenced by paramRef";
    assert!(refused["message"].as_str().unwrap().contains(text), "{refused}");
    let reads = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    grant("secrets", reads).await;
    user.post(&bindings, &binding(named)).await.expect(201);
    user.post(&bindings, &binding(selected)).await.expect(422);
}
