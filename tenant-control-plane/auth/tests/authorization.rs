//! RBAC, the Node authorizer, escalation and reviews on the default policy.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use auth::{Authorizer, AuthorizerConfig, Decision, bootstrap_policy, escalation, review};
use machinery::RequestInfo;
use serde_json::json;
use support::{Objects, request, user};

fn cluster() -> (Arc<Objects>, Authorizer) {
    let objects = Arc::new(Objects::default());
    bootstrap_policy().into_iter().for_each(|object| objects.put(object));
    let config = AuthorizerConfig { node: true, rbac: true, always_allow: false };
    let authorizer = Authorizer::new(config, objects.clone());
    (objects, authorizer)
}

fn path(verb: &str, path: &str) -> RequestInfo {
    RequestInfo { verb: verb.into(), path: path.into(), ..RequestInfo::default() }
}

#[test]
fn default_identities_may_do_their_work_and_no_more() {
    let (_, authorizer) = cluster();
    let manager = user("system:kube-controller-manager", &["system:authenticated"]);
    let account = |name: &str| {
        let groups = ["system:serviceaccounts", "system:authenticated"];
        user(&format!("system:serviceaccount:kube-system:{name}"), &groups)
    };
    let deployments = account("deployment-controller");
    let certificates = account("certificate-controller");
    let root_ca = account("root-ca-cert-publisher");
    let cleaner = account("token-cleaner");
    let scheduler = user("system:kube-scheduler", &["system:authenticated"]);
    let proxy = user("system:kube-proxy", &["system:authenticated"]);
    let admin = user("marina:admin", &["system:masters"]);
    let nobody = user("system:anonymous", &["system:unauthenticated"]);
    let bootstrapper = user("system:bootstrap:abcdef", &["system:bootstrappers"]);
    for (user, what, allowed) in [
        (&manager, "list|core|secrets||", true),
        (&manager, "watch|example.com|anything||", true),
        (&manager, "create|core|serviceaccounts|ns|", true),
        (&manager, "create|core|serviceaccounts/token|kube-system|job-controller", true),
        (&manager, "update|coordination.k8s.io|leases|kube-system|kube-controller-manager", true),
        (&manager, "create|apps|replicasets|ns|", false),
        (&manager, "create|core|configmaps|ns|", false),
        (&manager, "delete|core|pods|ns|p", false),
        (&manager, "create|core|pods/exec|ns|p", false),
        (&deployments, "create|apps|replicasets|ns|", true),
        (&deployments, "update|apps|deployments/status|ns|d", true),
        (&deployments, "patch|apps|deployments|ns|d", false),
        (&deployments, "create|core|pods|ns|", false),
        (&certificates, "update|certificates.k8s.io|certificatesigningrequests/approval||x", true),
        (&certificates, "create|authorization.k8s.io|subjectaccessreviews||", true),
        (&root_ca, "update|core|configmaps|ns|kube-root-ca.crt", true),
        (&root_ca, "patch|core|configmaps|ns|kube-root-ca.crt", false),
        (&cleaner, "delete|core|secrets|kube-system|bootstrap-token-abcdef", true),
        (&cleaner, "delete|core|secrets|default|s", false),
        (&scheduler, "create|core|pods/binding|ns|p", true),
        (&scheduler, "list|core|nodes||", true),
        (&scheduler, "get|core|secrets|ns|s", false),
        (&scheduler, "update|coordination.k8s.io|leases|kube-system|kube-scheduler", true),
        (&proxy, "watch|discovery.k8s.io|endpointslices||", true),
        (&proxy, "get|core|nodes||n", true),
        (&proxy, "delete|core|services|ns|s", false),
        (&admin, "delete|core|namespaces||kube-system", true),
        (&nobody, "list|core|pods|default|", false),
        (&bootstrapper, "create|certificates.k8s.io|certificatesigningrequests||", false),
    ] {
        let decision = authorizer.authorize(user, &request(what));
        assert_eq!(decision.is_allowed(), allowed, "{} {what}: {decision:?}", user.name);
    }
    assert!(authorizer.authorize(&nobody, &path("get", "/healthz")).is_allowed());
    assert!(!authorizer.authorize(&nobody, &path("get", "/apis")).is_allowed());
    assert!(authorizer.authorize(&proxy, &path("get", "/apis/apps/v1")).is_allowed());
    assert!(!authorizer.authorize(&proxy, &path("get", "/metrics")).is_allowed());
}

#[test]
fn a_new_binding_counts_at_once_and_the_refusal_says_what_is_missing() {
    let (objects, authorizer) = cluster();
    let jane = user("jane", &["system:authenticated"]);
    let asked = request("list|core|pods|team|");
    assert_eq!(
        authorizer.check(&jane, &asked).unwrap_err().message,
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"team\""
    );
    objects.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "view", "namespace": "team"},
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "jane"}],
    }));
    assert_eq!(
        authorizer.authorize(&jane, &asked),
        Decision::Allow {
            reason: "RBAC: allowed by RoleBinding \"view/team\" of ClusterRole \"view\" to User \
                     \"jane\""
                .into()
        }
    );
    assert!(!authorizer.authorize(&jane, &request("list|core|pods|other|")).is_allowed());
    assert!(!authorizer.authorize(&jane, &request("list|core|pods||")).is_allowed());
    assert!(!authorizer.authorize(&jane, &request("get|core|secrets|team|s")).is_allowed());
    assert!(authorizer.authorize(&jane, &request("get|core|pods/log|team|p")).is_allowed());
    assert!(!authorizer.authorize(&jane, &request("get|core|pods/exec|team|p")).is_allowed());
}

#[test]
fn names_subresource_wildcards_and_service_accounts_are_matched() {
    let (objects, authorizer) = cluster();
    objects.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "scaler"},
        "rules": [
            {"verbs": ["update"], "apiGroups": ["*"], "resources": ["*/scale"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"],
             "resourceNames": ["one"]},
            {"verbs": ["get"], "nonResourceURLs": ["/logs/*"]},
        ],
    }));
    objects.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "scaler"}, "roleRef": {"kind": "ClusterRole", "name": "scaler"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "ns", "name": "robot"},
                     {"kind": "Group", "name": "system:serviceaccounts:crew"}],
    }));
    let robot = user("system:serviceaccount:ns:robot", &[]);
    let crew = user("system:serviceaccount:crew:any", &["system:serviceaccounts:crew"]);
    for who in [&robot, &crew] {
        for (what, allowed) in [
            ("update|apps|deployments/scale|x|d", true),
            ("update|apps|deployments|x|d", false),
            ("get|core|configmaps|x|one", true),
            ("get|core|configmaps|x|two", false),
            ("list|core|configmaps|x|", false),
        ] {
            assert_eq!(authorizer.authorize(who, &request(what)).is_allowed(), allowed, "{what}");
        }
        assert!(authorizer.authorize(who, &path("get", "/logs/kubelet.log")).is_allowed());
        assert!(!authorizer.authorize(who, &path("get", "/logs")).is_allowed());
    }
    assert!(
        !authorizer
            .authorize(&user("robot", &[]), &request("get|core|configmaps|x|one"))
            .is_allowed()
    );
}

#[test]
fn a_kubelet_reads_only_what_its_pods_refer_to() {
    let (objects, authorizer) = cluster();
    let pod = |name: &str, node: &str| {
        json!({"kind": "Pod", "metadata": {"name": name, "namespace": "ns"}, "spec": {
            "nodeName": node, "serviceAccountName": "robot",
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "env"}}]}],
            "volumes": [
                {"name": "s", "secret": {"secretName": "mine"}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "k", "projected": {"sources": [{"configMap": {"name": "ca"}}]}},
            ],
        }})
    };
    objects.put(pod("p", "n1"));
    objects.put(json!({"kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {
        "claimRef": {"namespace": "ns", "name": "data"},
        "csi": {"nodeStageSecretRef": {"namespace": "store", "name": "key"}},
    }}));
    let node = |name: &str| user(&format!("system:node:{name}"), &["system:nodes"]);
    let mut own_pods = request("watch|core|pods||");
    own_pods.field_selector = "spec.nodeName=n1".into();
    assert!(authorizer.authorize(&node("n1"), &own_pods).is_allowed());
    assert!(!authorizer.authorize(&node("n2"), &own_pods).is_allowed());
    for (what, first, second) in [
        ("get|core|secrets|ns|mine", true, false),
        ("watch|core|secrets|ns|mine", true, false),
        ("list|core|secrets|ns|", false, false),
        ("get|core|secrets|ns|other", false, false),
        ("get|core|secrets|store|key", true, false),
        ("get|core|configmaps|ns|env", true, false),
        ("get|core|configmaps|ns|ca", true, false),
        ("update|core|configmaps|ns|ca", false, false),
        ("get|core|persistentvolumeclaims|ns|data", true, false),
        ("get|core|persistentvolumes||pv", true, false),
        ("create|core|serviceaccounts/token|ns|robot", true, false),
        ("create|core|serviceaccounts/token|ns|default", false, false),
        ("get|core|pods|ns|p", true, false),
        ("list|core|pods||", false, false),
        ("get|core|nodes||n1", true, false),
        ("list|core|nodes||", false, false),
        ("patch|core|nodes/status||n1", true, true),
        ("update|coordination.k8s.io|leases|kube-node-lease|n1", true, false),
        ("update|coordination.k8s.io|leases|default|n1", false, false),
        ("create|core|events|ns|", true, true),
        ("create|certificates.k8s.io|certificatesigningrequests||", true, true),
        ("list|core|services||", true, true),
        ("delete|core|secrets|ns|mine", false, false),
        ("get|apps|deployments|ns|d", false, false),
    ] {
        let asked = request(what);
        assert_eq!(authorizer.authorize(&node("n1"), &asked).is_allowed(), first, "n1 {what}");
        assert_eq!(authorizer.authorize(&node("n2"), &asked).is_allowed(), second, "n2 {what}");
    }
    objects.remove(&pod("p", "n1"));
    let gone = authorizer.authorize(&node("n1"), &request("get|core|secrets|ns|mine"));
    assert_eq!(gone.reason(), "no relationship found between node 'n1' and this object");
    // The name alone makes no kubelet.
    let pretender = user("system:node:n1", &["system:authenticated"]);
    assert!(!authorizer.authorize(&pretender, &request("get|core|nodes||n1")).is_allowed());
}

#[test]
fn nobody_grants_what_he_does_not_hold() {
    let (objects, authorizer) = cluster();
    objects.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "admins", "namespace": "team"},
        "roleRef": {"kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "name": "ann"}],
    }));
    let ann = user("ann", &["system:authenticated"]);
    let check = |what: &str, object: serde_json::Value| {
        escalation::check(&authorizer, &ann, &request(what), None, &object)
    };
    let role = |rules: serde_json::Value| json!({"metadata": {"name": "r"}, "rules": rules});
    let own = json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]);
    let create = "create|rbac.authorization.k8s.io|roles|team|";
    assert!(check(create, role(own.clone())).is_ok());
    assert!(check(&create.replace("team", "other"), role(own)).is_err());
    let more = json!([{"verbs": ["get", "*"], "apiGroups": [""], "resources": ["nodes"]}]);
    let refusal = check(create, role(more)).unwrap_err();
    assert_eq!(refusal.code, 403);
    assert_eq!(
        refusal.message,
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"ann\" \
         (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently \
         held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"*\"]}\n{APIGroups:[\"\"], \
         Resources:[\"nodes\"], Verbs:[\"get\"]}"
    );
    let bind = |role: &str| {
        json!({"metadata": {"name": "b"}, "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
    };
    let create = "create|rbac.authorization.k8s.io|rolebindings|team|";
    assert!(check(create, bind("view")).is_ok());
    assert_eq!(check(create, bind("cluster-admin")).unwrap_err().code, 403);
    assert_eq!(check(create, bind("absent")).unwrap_err().code, 404);
    // The verb `bind` on that role lifts the check.
    objects.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "binder"},
        "rules": [{"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"],
                   "resources": ["clusterroles"], "resourceNames": ["cluster-admin"]}],
    }));
    objects.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "binder"}, "roleRef": {"kind": "ClusterRole", "name": "binder"},
        "subjects": [{"kind": "User", "name": "ann"}],
    }));
    assert!(check(create, bind("cluster-admin")).is_ok());
    assert!(check(create, bind("system:node")).is_err());
}

#[test]
fn reviews_answer_with_status() {
    let (_, authorizer) = cluster();
    let proxy = user("system:kube-proxy", &["system:authenticated"]);
    let body = json!({"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {
        "verb": "list", "resource": "services"}}});
    let answer = review::self_subject_access_review(&authorizer, &proxy, &body).unwrap();
    assert_eq!(answer["status"]["allowed"], true);
    let body = json!({"spec": {"user": "x", "nonResourceAttributes": {
        "verb": "get", "path": "/metrics"}}});
    let answer = review::subject_access_review(&authorizer, &body).unwrap();
    assert_eq!(answer["status"], json!({"allowed": false}));
    let rules = json!({"spec": {"namespace": "default"}});
    let answer = review::self_subject_rules_review(&authorizer, &proxy, &rules).unwrap();
    assert!(!answer["status"]["resourceRules"].as_array().unwrap().is_empty());
    for bad in [
        json!({"spec": {"user": "x"}}),
        json!({"spec": {"resourceAttributes": {}}}),
        json!({"spec": {"user": "x", "resourceAttributes": {}, "nonResourceAttributes": {}}}),
    ] {
        assert_eq!(review::subject_access_review(&authorizer, &bad).unwrap_err().code, 422);
    }
}
