//! The default chain on requests, with upstream's texts.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use admission::{Attributes, Chain};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::{GroupVersionResource, RequestInfo, Status, UserInfo};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use support::{Objects, user};

struct Server {
    objects: Arc<Objects>,
    chain: Chain,
}

fn server() -> Server {
    let objects = Arc::new(Objects::default());
    objects.put(json!({"kind": "Namespace", "metadata": {"name": "ns"}}));
    objects.put(json!({"kind": "ServiceAccount", "metadata": {"name": "default",
        "namespace": "ns"}, "imagePullSecrets": [{"name": "registry"}]}));
    objects.put(json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}));
    // Only the user `approver` holds further permissions, on one signer.
    let access = |user: &UserInfo, request: &RequestInfo| {
        user.name == "approver" && request.name == "kubernetes.io/kubelet-serving"
    };
    let enable = ["NodeRestriction".to_owned(), "ValidatingAdmissionWebhook".to_owned()];
    let chain = Chain::new(&enable, &[], objects.clone(), Arc::new(access)).unwrap();
    Server { objects, chain }
}

impl Server {
    /// Sends `verb group/resource/subresource` as a user, and returns the object as admitted.
    fn send(
        &self,
        user: &UserInfo,
        what: &str,
        old: Option<&Value>,
        mut object: Value,
    ) -> Result<(Value, Vec<String>), Status> {
        let (verb, path) = what.split_once(' ').unwrap();
        let mut parts = path.split('/');
        let group = parts.next().unwrap().replace("core", "");
        let resource = parts.next().unwrap().to_owned();
        let subresource = parts.next().unwrap_or_default();
        let gvr = GroupVersionResource { group, version: "v1".into(), resource };
        let name = old.unwrap_or(&object)["metadata"]["name"].as_str().unwrap_or_default();
        let name = name.to_owned();
        let namespaced = !matches!(
            gvr.resource.as_str(),
            "nodes" | "namespaces" | "priorityclasses" | "certificatesigningrequests" | "csinodes"
        );
        let namespace = match namespaced {
            true => object["metadata"]["namespace"].as_str().unwrap_or("ns").to_owned(),
            false => String::new(),
        };
        let attributes = Attributes {
            user,
            verb,
            gvr: &gvr,
            kind: "",
            subresource,
            namespace: &namespace,
            name: &name,
            old,
            dry_run: false,
        };
        if verb == "delete" {
            let mut warnings = self.chain.validate(&attributes, None)?;
            warnings.extend(self.chain.settle(&attributes, None)?);
            return Ok((Value::Null, warnings));
        }
        let mut warnings = self.chain.mutate(&attributes, &mut object)?;
        warnings.extend(self.chain.validate(&attributes, Some(&object))?);
        warnings.extend(self.chain.settle(&attributes, Some(&object))?);
        Ok((object, warnings))
    }

    fn create_pod(&self, spec: Value) -> Result<Value, Status> {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
        self.send(&user("jane", &[]), "create core/pods", None, pod).map(|(pod, _)| pod)
    }
}

fn message<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    result.unwrap_err().message
}

#[test]
fn a_plain_pod_gets_all_that_it_needs_to_run() {
    let server = server();
    let pod = server
        .create_pod(json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i",
            "volumeMounts": [{"name": "own",
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]}))
        .unwrap();
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    let sources = &volume["projected"]["sources"];
    assert_eq!(sources[0]["serviceAccountToken"]["expirationSeconds"], 3607);
    assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], name);
    assert_eq!(spec["initContainers"][0]["volumeMounts"].as_array().unwrap().len(), 1);
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(
        spec["tolerations"],
        json!([
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
             "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
             "tolerationSeconds": 300},
        ])
    );
    let plain = json!({"containers": [{"name": "c"}], "automountServiceAccountToken": false,
        "tolerations": [{"operator": "Exists"}], "priorityClassName": "high"});
    let pod = server.create_pod(plain).unwrap();
    assert_eq!(pod["spec"]["volumes"], Value::Null);
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&pod["spec"]["priority"], &pod["spec"]["preemptionPolicy"]),
        (&json!(1000), &json!("Never"))
    );
}

#[test]
fn the_account_of_a_new_namespace_is_worth_waiting_for() {
    let server = server();
    let pod = |name: &str| json!({"spec": {"serviceAccountName": name}});
    let jane = user("jane", &[]);
    let gvr =
        GroupVersionResource { group: "".into(), version: "v1".into(), resource: "pods".into() };
    let awaits = |namespace: &str, pod: Value| {
        let attributes = Attributes {
            user: &jane,
            verb: "create",
            gvr: &gvr,
            kind: "Pod",
            subresource: "",
            namespace,
            name: "p",
            old: None,
            dry_run: false,
        };
        server.chain.awaits(&attributes, &pod)
    };
    assert_eq!(awaits("ns", pod("")), None);
    assert_eq!(awaits("fresh", pod("")), None);
    server.objects.put(json!({"kind": "Namespace", "metadata": {"name": "fresh"}}));
    assert_eq!(awaits("fresh", pod("default")).unwrap().2, "default");
    assert_eq!(awaits("fresh", pod("other")), None);
}

#[test]
fn pods_that_name_what_is_not_there_are_refused() {
    let server = server();
    assert_eq!(
        message(server.create_pod(json!({"serviceAccountName": "x"}))),
        "pods \"p\" is forbidden: error looking up service account ns/x: serviceaccount \"x\" not \
         found"
    );
    assert_eq!(
        message(server.create_pod(json!({"priorityClassName": "x"}))),
        "pods \"p\" is forbidden: no PriorityClass with name x was found"
    );
    assert!(message(server.create_pod(json!({"priority": 7}))).contains("must not be provided"));
    assert_eq!(
        message(server.create_pod(json!({"runtimeClassName": "x"}))),
        "pods \"p\" is forbidden: pod rejected: RuntimeClass \"x\" not found"
    );
    let elsewhere = json!({"metadata": {"name": "c", "namespace": "gone"}});
    let jane = user("jane", &[]);
    let refusal = server.send(&jane, "create core/configmaps", None, elsewhere).unwrap_err();
    assert_eq!((refusal.code, refusal.message.as_str()), (404, "namespaces \"gone\" not found"));
}

#[test]
fn a_terminating_namespace_takes_nothing_new_and_system_namespaces_stay() {
    let server = server();
    server.objects.put(json!({"kind": "Namespace", "metadata": {"name": "ns"},
        "status": {"phase": "Terminating"}}));
    let jane = user("jane", &[]);
    let map = json!({"metadata": {"name": "c", "namespace": "ns"}});
    let refusal = server.send(&jane, "create core/configmaps", None, map.clone()).unwrap_err();
    assert_eq!(
        refusal.message,
        "configmaps \"c\" is forbidden: unable to create new content in namespace ns because it is \
         being terminated"
    );
    assert_eq!(refusal.to_json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    assert!(server.send(&jane, "update core/configmaps", Some(&map), map.clone()).is_ok());
    assert!(server.send(&jane, "delete core/configmaps", Some(&map), Value::Null).is_ok());
    let system = json!({"metadata": {"name": "kube-system"}});
    assert_eq!(
        message(server.send(&jane, "delete core/namespaces", Some(&system), Value::Null)),
        "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
}

#[test]
fn limit_ranges_fill_in_and_bound() {
    let server = server();
    server.objects.put(json!({"kind": "LimitRange", "metadata": {"name": "l", "namespace": "ns"},
    "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
         "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "10"}},
        {"type": "Pod", "max": {"cpu": "1500m"}},
    ]}}));
    let container = |limit: &str, request: &str| json!({"name": "c", "resources": {"limits": {"cpu": limit}, "requests": {"cpu": request}}});
    let pod = server.create_pod(json!({"containers": [{"name": "c"}]})).unwrap();
    assert_eq!(
        pod["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(
        pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let refused = |containers: Value| message(server.create_pod(json!({"containers": containers})));
    assert_eq!(
        refused(json!([container("2", "1")])),
        "pods \"p\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum \
         cpu usage per Pod is 1500m, but limit is 2]"
    );
    assert!(refused(json!([container("1", "10m")])).contains("provided ratio is 100.000000"));
    let two = json!([container("1", "1"), container("1", "1")]);
    assert!(refused(two).contains("maximum cpu usage per Pod is 1500m, but limit is 2"));
}

#[test]
fn quotas_count_what_is_there() {
    let server = server();
    server.objects.put(
        json!({"kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "ns"},
        "spec": {"hard": {"pods": "2", "requests.cpu": "1", "count/configmaps": "1",
            "services.nodeports": "1"}}}),
    );
    let spec = |cpu: &str| {
        json!({"containers": [{"name": "c",
        "resources": {"requests": {"cpu": cpu}}}]})
    };
    assert_eq!(
        message(server.create_pod(json!({"containers": [{"name": "c"}]}))),
        "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
    server.objects.put(json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "ns"},
        "spec": spec("600m")}));
    assert!(server.create_pod(spec("400m")).is_ok());
    assert_eq!(
        message(server.create_pod(spec("500m"))),
        "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: \
         requests.cpu=600m, limited: requests.cpu=1"
    );
    server.objects.put(json!({"kind": "Pod", "metadata": {"name": "done", "namespace": "ns"},
        "spec": spec("900m"), "status": {"phase": "Succeeded"}}));
    assert!(server.create_pod(spec("400m")).is_ok());
    let jane = user("jane", &[]);
    let map = |name: &str| {
        json!({"kind": "ConfigMap", "metadata": {"name": name,
        "namespace": "ns"}})
    };
    assert!(server.send(&jane, "create core/configmaps", None, map("a")).is_ok());
    // What was admitted counts before it is in the cache, and only once.
    assert!(server.send(&jane, "create core/configmaps", None, map("b")).is_err());
    server.objects.put(map("a"));
    assert!(message(server.send(&jane, "create core/configmaps", None, map("b"))).ends_with(
        "requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1"
    ));
    assert!(server.send(&jane, "update core/configmaps", Some(&map("a")), map("a")).is_ok());
    let service = |kind: &str| {
        json!({"metadata": {"name": "s", "namespace": "ns"},
        "spec": {"type": kind, "ports": [{"port": 1}, {"port": 2}]}})
    };
    assert!(server.send(&jane, "create core/services", None, service("ClusterIP")).is_ok());
    let to_node_port = server.send(
        &jane,
        "update core/services",
        Some(&service("ClusterIP")),
        service("NodePort"),
    );
    assert!(message(to_node_port).contains("exceeded quota: q, requested: services.nodeports=2"));
}

#[test]
fn a_kubelet_touches_only_its_own() {
    let server = server();
    let node = user("system:node:n1", &["system:nodes"]);
    let send = |what: &str, old: Option<Value>, object: Value| {
        server.send(&node, what, old.as_ref(), object).map(|_| ())
    };
    let named = |name: &str| json!({"metadata": {"name": name}});
    let labelled = |labels: Value| json!({"metadata": {"name": "n1", "labels": labels}});
    assert!(send("create core/nodes", None, named("n1")).is_ok());
    assert!(send("create core/nodes", None, named("n2")).is_err());
    let good = json!({"kubernetes.io/hostname": "n1", "node.kubernetes.io/x": "1",
        "marina.dev/node-group": "g"});
    assert!(send("create core/nodes", None, labelled(good)).is_ok());
    assert_eq!(
        message(send(
            "create core/nodes",
            None,
            labelled(json!({"node-role.kubernetes.io/control-plane": ""}))
        )),
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: \
         node-role.kubernetes.io/control-plane"
    );
    let tainted = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "x"}]}});
    assert_eq!(
        message(send("update core/nodes", Some(tainted), named("n1"))),
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints"
    );
    let pod = |on: &str| {
        json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "ns",
        "uid": "u1"}, "spec": {"nodeName": on, "volumes": [{"name": "k", "projected": {"sources":
        [{"serviceAccountToken": {"path": "t"}}, {"serviceAccountToken": {"audience": "vault"}}]}}]}})
    };
    assert!(send("patch core/pods/status", Some(pod("n1")), pod("n1")).is_ok());
    assert!(send("patch core/pods/status", Some(pod("n2")), pod("n2")).is_err());
    assert!(send("delete core/pods", Some(pod("n1")), Value::Null).is_ok());
    assert!(
        message(send("delete core/pods", Some(pod("n2")), Value::Null))
            .contains("can only delete pods with spec.nodeName set to itself")
    );
    assert!(
        message(send("create core/pods", None, pod("n1"))).contains("can only create mirror pods")
    );
    server.objects.put(pod("n1"));
    let token = |audiences: Value, uid: &str| {
        json!({"metadata": {"name": "default",
        "namespace": "ns"}, "spec": {"audiences": audiences, "boundObjectRef":
        {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}})
    };
    let create = "create core/serviceaccounts/token";
    assert!(send(create, None, token(json!([]), "u1")).is_ok());
    assert!(send(create, None, token(json!(["vault"]), "u1")).is_ok());
    assert!(
        message(send(create, None, token(json!(["other"]), "u1")))
            .contains("not found in pod spec")
    );
    assert!(send(create, None, token(json!([]), "u2")).is_err());
    assert!(message(send(create, None, json!({"spec": {}}))).contains("not bound to a pod"));
    let lease = |name: &str, namespace: &str| {
        json!({"metadata": {"name": name,
        "namespace": namespace}})
    };
    server.objects.put(json!({"kind": "Namespace", "metadata": {"name": "kube-node-lease"}}));
    let create = "create coordination.k8s.io/leases";
    assert!(send(create, None, lease("n1", "kube-node-lease")).is_ok());
    assert!(send(create, None, lease("n2", "kube-node-lease")).is_err());
    assert!(send(create, None, lease("n1", "ns")).is_err());
    // New nodes take no pods until they are ready.
    let (made, _) = server.send(&node, "create core/nodes", None, named("n1")).unwrap();
    assert_eq!(made["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
}

fn csr(name: &str, group: &str, signer: &str) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, group);
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    json!({"metadata": {"name": "c"}, "spec": {"signerName": signer,
        "request": STANDARD.encode(pem)}})
}

#[test]
fn certificates_are_asked_for_approved_and_signed_by_those_who_may() {
    let server = server();
    let resource = "certificates.k8s.io/certificatesigningrequests";
    let create = |who: &UserInfo, csr: Value| {
        server.send(who, &format!("create {resource}"), None, csr).map(|_| ())
    };
    let (jane, node) = (user("jane", &[]), user("system:node:n1", &["system:nodes"]));
    let client = "kubernetes.io/kube-apiserver-client";
    assert_eq!(
        message(create(&jane, csr("x", "system:masters", client))),
        format!(
            "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: use of {client} \
                 signer with system:masters group is not allowed"
        )
    );
    assert!(create(&jane, csr("x", "dev", client)).is_ok());
    let kubelet = "kubernetes.io/kubelet-serving";
    assert!(create(&node, csr("system:node:n1", "system:nodes", kubelet)).is_ok());
    assert!(
        message(create(&node, csr("system:node:n2", "system:nodes", kubelet)))
            .contains("can only create a node CSR with CN=system:node:n1")
    );
    for (who, signer, allowed) in
        [("approver", kubelet, true), ("approver", client, false), ("jane", kubelet, false)]
    {
        let who = user(who, &[]);
        let old = csr("system:node:n1", "system:nodes", signer);
        let mut new = old.clone();
        let approve = format!("update {resource}/approval");
        assert_eq!(server.send(&who, &approve, Some(&old), new.clone()).is_ok(), allowed);
        new["status"]["certificate"] = "eA==".into();
        let sign = format!("update {resource}/status");
        assert_eq!(server.send(&who, &sign, Some(&old), new).is_ok(), allowed);
        assert!(server.send(&who, &sign, Some(&old), old.clone()).is_ok());
    }
}

#[test]
fn a_namespaces_level_decides_what_its_pods_may_do() {
    let server = server();
    let jane = user("jane", &[]);
    let namespace = |labels: Value| {
        json!({"kind": "Namespace", "metadata": {"name": "ns",
        "labels": labels}})
    };
    let bad = json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}],
        "hostNetwork": true});
    assert!(server.create_pod(bad.clone()).is_ok());
    server.objects.put(namespace(json!({"pod-security.kubernetes.io/enforce": "baseline"})));
    assert_eq!(
        message(server.create_pod(bad.clone())),
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces \
         (hostNetwork=true), privileged (container \"c\" must not set \
         securityContext.privileged=true)"
    );
    assert!(server.create_pod(json!({"containers": [{"name": "c"}]})).is_ok());
    server.objects.put(namespace(json!({"pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "v1.35"})));
    assert_eq!(
        message(server.create_pod(json!({"containers": [{"name": "c"}]}))),
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:v1.35\": \
         allowPrivilegeEscalation != false (container \"c\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \
         \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or \
         container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
    let hardened = json!({"securityContext": {"runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}}}]});
    assert!(server.create_pod(hardened).is_ok());
    // Workloads are warned about, not refused; raising a level warns of pods that are there.
    server.objects.put(namespace(json!({"pod-security.kubernetes.io/warn": "baseline"})));
    let deployment = json!({"metadata": {"name": "d", "namespace": "ns"},
        "spec": {"template": {"spec": bad}}});
    let (_, warnings) = server.send(&jane, "create apps/deployments", None, deployment).unwrap();
    assert!(warnings[0].starts_with("would violate PodSecurity \"baseline:latest\": host"));
    server.objects.put(json!({"kind": "Pod", "metadata": {"name": "old", "namespace": "ns"},
        "spec": bad}));
    let raised = namespace(json!({"pod-security.kubernetes.io/enforce": "baseline"}));
    let old = namespace(json!({}));
    let (_, warnings) = server.send(&jane, "update core/namespaces", Some(&old), raised).unwrap();
    assert!(warnings[1].starts_with("old: host namespaces"), "{warnings:?}");
    let wrong = namespace(json!({"pod-security.kubernetes.io/enforce": "strict"}));
    assert_eq!(server.send(&jane, "create core/namespaces", None, wrong).unwrap_err().code, 422);
}

#[test]
fn plugins_that_are_off_by_default_work_when_named() {
    let names = ["AlwaysPullImages", "ExtendedResourceToleration", "DenyServiceExternalIPs"]
        .map(str::to_owned);
    let access = |_: &UserInfo, _: &RequestInfo| false;
    let plain = server();
    let chain = Chain::new(&names, &[], plain.objects.clone(), Arc::new(access)).unwrap();
    let server = Server { objects: plain.objects.clone(), chain };
    let spec = json!({"containers": [{"name": "c", "resources": {"requests":
        {"acme.com/gpu": "1", "cpu": "1"}}}]});
    let pod = server.create_pod(spec).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let gpu = json!({"key": "acme.com/gpu", "operator": "Exists"});
    assert!(pod["spec"]["tolerations"].as_array().unwrap().contains(&gpu));
    let jane = user("jane", &[]);
    let service = |ips: Value| {
        json!({"metadata": {"name": "s", "namespace": "ns"},
        "spec": {"externalIPs": ips}})
    };
    let (one, two) = (service(json!(["1.2.3.4"])), service(json!(["1.2.3.4", "1.2.3.5"])));
    assert!(server.send(&jane, "create core/services", None, one.clone()).is_err());
    assert!(server.send(&jane, "update core/services", Some(&one), one.clone()).is_ok());
    assert!(server.send(&jane, "update core/services", Some(&one), two.clone()).is_err());
    assert!(plain.send(&jane, "create core/services", None, two).is_ok());
}

#[test]
fn a_claim_grows_only_in_a_class_that_lets_it() {
    let server = server();
    let jane = user("jane", &[]);
    let claim = |size: &str| {
        json!({"metadata": {"name": "c", "namespace": "ns"},
        "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": size}}},
        "status": {"phase": "Bound"}})
    };
    let grow = || {
        server.send(&jane, "update core/persistentvolumeclaims", Some(&claim("1Gi")), claim("2Gi"))
    };
    assert!(message(grow()).contains("must support resize"));
    server.objects.put(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "fast"}, "allowVolumeExpansion": true}));
    assert!(grow().is_ok());
}

#[test]
fn unknown_plugins_are_refused_by_name() {
    let access = |_: &UserInfo, _: &RequestInfo| false;
    let objects = Arc::new(Objects::default());
    let refused = Chain::new(&["Nonsense".into()], &[], objects, Arc::new(access));
    assert_eq!(refused.err().unwrap().to_string(), "admission plugin \"Nonsense\" is unknown");
}
