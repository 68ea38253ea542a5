//! Objects as people write them pass every check, unchanged by a second round of defaults.
#![allow(clippy::unwrap_used)]

use machinery::GroupVersionKind;
use schema::Schema;
use serde_json::{Value, json};

fn pod_template(labels: &Value) -> Value {
    json!({
        "metadata": {"labels": labels, "annotations": {"prometheus.io/Scrape": "true"}},
        "spec": {
            "serviceAccountName": "web",
            "securityContext": {"runAsNonRoot": true, "fsGroup": 2000},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule", "operator": "Exists"}, {"operator": "Exists"}],
            "affinity": {
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": {
                    "topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}}}]},
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "marina.dev/node-group", "operator": "Exists"}]}]}}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": labels}}],
            "initContainers": [
                {"name": "setup", "image": "busybox:1.36", "command": ["sh", "-c", "true"]},
                {"name": "mesh", "image": "mesh:v1", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["true"]}}}],
            "containers": [{
                "name": "web", "image": "registry.example.com:5000/team/web@sha256:0123456789012345678901234567890123456789012345678901234567890123",
                "args": ["--verbose"],
                "ports": [{"name": "http", "containerPort": 8080}, {"name": "dns-udp", "containerPort": 53, "protocol": "UDP"}],
                "env": [
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
                    {"name": "lower.case-name", "value": ""}],
                "envFrom": [{"prefix": "X_", "configMapRef": {"name": "c"}}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi", "ephemeral-storage": "1Gi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
                "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http", "httpHeaders": [{"name": "X-Empty", "value": ""}]}, "initialDelaySeconds": 3},
                "readinessProbe": {"tcpSocket": {"port": 8080}, "successThreshold": 2},
                "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/web", "readOnly": true}, {"name": "tmp", "mountPath": "/tmp", "subPath": "web"}]}],
            "volumes": [
                {"name": "config", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}},
                {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
                {"name": "host", "hostPath": {"path": "/var/log", "type": "DirectoryOrCreate"}},
                {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "secret", "secret": {"secretName": "tls", "defaultMode": 256}}],
        },
    })
}

fn once(mut template: Value) -> Value {
    template["spec"]["restartPolicy"] = json!("OnFailure");
    template
}

fn workloads() -> Vec<Value> {
    let labels = json!({"app": "web", "tier": ""});
    let selector = json!({"matchLabels": {"app": "web"}});
    let template = pod_template(&labels);
    let workload = |kind: &str, extra: Value| {
        let mut spec = json!({"selector": selector, "template": template});
        spec.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec": spec})
    };
    vec![
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": template["spec"]}),
        workload(
            "Deployment",
            json!({"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}),
        ),
        workload("Deployment", json!({"strategy": {"type": "Recreate"}})),
        workload("ReplicaSet", json!({})),
        workload("DaemonSet", json!({"updateStrategy": {"type": "OnDelete"}})),
        workload(
            "StatefulSet",
            json!({"serviceName": "web", "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}),
        ),
        json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"}, "spec": {"replicas": 1, "template": template}}),
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"backoffLimit": 2, "ttlSecondsAfterFinished": 0, "template": once(template.clone())}}),
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "often"}, "spec": {"schedule": "*/5 * * * *", "timeZone": "Etc/UTC", "concurrencyPolicy": "Forbid",
            "jobTemplate": {"spec": {"template": once(template)}}}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": {"maxUnavailable": "50%", "selector": selector}}),
    ]
}

fn network() -> Vec<Value> {
    let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    vec![
        service(json!({"selector": {"app": "web"}, "ports": ports})),
        service(
            json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": 30080}]}),
        ),
        service(
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 443}]}),
        ),
        service(json!({"type": "ExternalName", "externalName": "db.example.com"})),
        service(json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]})),
        service(
            json!({"clusterIP": "10.96.0.10", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}),
        ),
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "web-x"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}], "ports": [{"port": 80}]}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "web-x"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.2"]}]}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"}, "spec": {"ingressClassName": "x", "tls": [{"hosts": ["a.example.com"], "secretName": "tls"}],
            "rules": [{"host": "*.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "allow"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80}, {"port": "http"}]}]}}),
    ]
}

fn configuration() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"app.conf": "x", ".hidden": ""}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": {"token-id": "YWJjZGVm"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}),
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "10", "requests.cpu": "4", "count/deployments.apps": "5"}}}),
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "defaultRequest": {"cpu": "100m"}, "default": {"cpu": "1"}}]}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}, "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}], "providerID": "marina://c/n"},
            "status": {"conditions": [{"type": "Ready", "status": "False"}], "nodeInfo": {}}}),
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e.1", "namespace": "default"}, "involvedObject": {"kind": "Pod"}, "reason": "x", "type": "Normal"}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "worker-1"}, "spec": {"holderIdentity": "worker-1", "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:x"}, "rules": [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}, {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "admin"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "true"}}]}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "x"}, {"kind": "Group", "name": "g"}]}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "system-node-critical"}, "value": 2000001000}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}}),
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "csr-x"}, "spec": {"request": "eA==", "signerName": "kubernetes.io/kubelet-serving", "usages": ["digital signature", "server auth"]}}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}, "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]}]}}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "w"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "x", "name": "y"}}, "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["pods"]}]}]}),
        json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "p"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}}),
    ]
}

#[test]
fn they_pass() {
    let schema = Schema::get("1.35").expect("table");
    for mut object in workloads().into_iter().chain(network()).chain(configuration()) {
        let api_version = object["apiVersion"].as_str().expect("apiVersion").to_owned();
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = object["kind"].as_str().expect("kind").to_owned();
        let gvk = GroupVersionKind { group: group.into(), version: version.into(), kind };
        let ty = schema.type_of(&gvk.group, &gvk.version, &gvk.kind).expect("known kind");
        assert_eq!(schema.check_types(ty, &object), Ok(()), "{object}");
        assert_eq!(schema.unknown_fields(ty, &object), [""; 0], "{object}");
        schema.apply_defaults(&gvk, &mut object);
        let once = object.clone();
        schema.apply_defaults(&gvk, &mut object);
        assert_eq!(object, once, "defaults are idempotent");
        assert_eq!(schema.validate_create(&gvk, &object), [], "{object:#}");
        assert_eq!(schema.validate_update(&gvk, &object, &once), [], "{object:#}");
        let bytes = schema.to_protobuf(&gvk, &object).expect("known kind");
        let mut back = schema.from_protobuf(&bytes).expect("decodes");
        schema.apply_defaults(&gvk, &mut back);
        assert_eq!(back, object, "protobuf keeps all of it");
    }
}
