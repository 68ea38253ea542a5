//! The checks of the Pod Security Standards. Each looks at a pod and answers with what is wrong,
//! in upstream's words. Source: Kubernetes documentation, "Pod Security Standards".

use std::collections::BTreeSet;

use serde_json::Value;

use crate::object::{annotation, items, text};

/// How much a namespace allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Everything.
    Privileged,
    /// Nothing that is known to lead out of the pod.
    Baseline,
    /// Current hardening practice.
    Restricted,
}

impl Level {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// Why a pod is not within a level: a reason, and details that may be empty.
type Fault = (&'static str, String);
type Check = fn(&Value) -> Option<Fault>;

const BASELINE: &[Check] = &[
    apparmor,
    baseline_capabilities,
    host_namespaces,
    host_paths,
    host_ports,
    host_probes,
    privileged,
    proc_mount,
    selinux,
    baseline_seccomp,
    sysctls,
    host_process,
];
/// The minor that began to look at the hosts of probes.
const HOST_PROBES_SINCE: u16 = 34;
const RESTRICTED: &[Check] =
    &[escalation, restricted_capabilities, volumes, non_root, root_user, restricted_seccomp];

/// Everything about the pod that the level forbids, as upstream words it; empty when nothing.
///
/// `minor` pins the standards to those of Kubernetes 1.`minor`; `None` means the latest.
pub(super) fn violations(level: Level, minor: Option<u16>, pod: &Value) -> String {
    let mut checks: Vec<Check> = Vec::new();
    if level >= Level::Baseline {
        checks.extend(BASELINE);
    }
    if minor.is_some_and(|minor| minor < HOST_PROBES_SINCE) {
        checks.retain(|check| !std::ptr::fn_addr_eq(host_probes as Check, *check));
    }
    if level >= Level::Restricted {
        // These two say what their baseline parts say, and more.
        let covered: [Check; 2] = [baseline_capabilities, baseline_seccomp];
        checks.retain(|check| !covered.iter().any(|c| std::ptr::fn_addr_eq(*c, *check)));
        checks.extend(RESTRICTED);
    }
    let faults = checks.iter().filter_map(|check| check(pod));
    faults
        .map(|(reason, details)| match details.as_str() {
            "" => reason.to_owned(),
            details => format!("{reason} ({details})"),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|key| items(&pod["spec"][key]))
}

fn plural(word: &str, n: usize) -> String {
    if n == 1 { word.to_owned() } else { format!("{word}s") }
}

fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ")
}

fn named(bad: &[&str]) -> String {
    format!("{} {}", plural("container", bad.len()), quoted(bad.iter().copied()))
}

/// Names of the containers for which the test is true.
fn bad_containers(pod: &Value, test: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(pod).filter(|c| test(c)).map(|c| text(&c["name"])).collect()
}

/// `pod and containers "a"`: who set something, given whether the pod itself did.
fn setters(pod_did: bool, bad: &[&str]) -> Option<String> {
    let parts: Vec<_> = [pod_did.then(|| "pod".to_owned()), (!bad.is_empty()).then(|| named(bad))]
        .into_iter()
        .flatten()
        .collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

fn apparmor(pod: &Value) -> Option<Fault> {
    let allowed =
        |profile: &Value| matches!(text(&profile["type"]), "" | "RuntimeDefault" | "Localhost");
    let mut values = BTreeSet::new();
    let mut note = |profile: &Value| {
        if !allowed(profile) {
            values.insert(text(&profile["type"]).to_owned());
        }
        !allowed(profile)
    };
    let pod_did = note(&pod["spec"]["securityContext"]["appArmorProfile"]);
    let bad: Vec<_> = containers(pod)
        .filter(|c| note(&c["securityContext"]["appArmorProfile"]))
        .map(|c| text(&c["name"]))
        .collect();
    let who = setters(pod_did, &bad)?;
    let reason = match values.len() {
        1 => "forbidden AppArmor profile",
        _ => "forbidden AppArmor profiles",
    };
    let values = quoted(values.iter().map(String::as_str));
    Some((reason, format!("{who} must not set AppArmor profile type to {values}")))
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn added_beyond<'a>(pod: &'a Value, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut found = BTreeSet::new();
    let mut bad = Vec::new();
    for container in containers(pod) {
        let added = items(&container["securityContext"]["capabilities"]["add"]).map(text);
        let before = found.len();
        let beyond: Vec<_> = added.filter(|c| !allowed.contains(c)).collect();
        found.extend(&beyond);
        if !beyond.is_empty() || found.len() > before {
            bad.push(text(&container["name"]));
        }
    }
    (bad, found)
}

fn baseline_capabilities(pod: &Value) -> Option<Fault> {
    let (bad, found) = added_beyond(pod, &DEFAULT_CAPABILITIES);
    (!bad.is_empty()).then(|| {
        let details = format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&bad),
            quoted(found)
        );
        ("non-default capabilities", details)
    })
}

fn restricted_capabilities(pod: &Value) -> Option<Fault> {
    if is_windows(pod) {
        return None;
    }
    let keeps = bad_containers(pod, |c| {
        !items(&c["securityContext"]["capabilities"]["drop"]).any(|d| text(d) == "ALL")
    });
    let (adds, found) = added_beyond(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeps.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            named(&keeps)
        ));
    }
    if !adds.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&adds),
            quoted(found)
        ));
    }
    (!details.is_empty()).then(|| ("unrestricted capabilities", details.join("; ")))
}

fn host_namespaces(pod: &Value) -> Option<Fault> {
    let on: Vec<_> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|key| pod["spec"][*key] == true)
        .map(|key| format!("{key}=true"))
        .collect();
    (!on.is_empty()).then(|| ("host namespaces", on.join(", ")))
}

fn host_paths(pod: &Value) -> Option<Fault> {
    let bad: Vec<_> = items(&pod["spec"]["volumes"])
        .filter(|volume| !volume["hostPath"].is_null())
        .map(|volume| text(&volume["name"]))
        .collect();
    let details = || format!("{} {}", plural("volume", bad.len()), quoted(bad.iter().copied()));
    (!bad.is_empty()).then(|| ("hostPath volumes", details()))
}

fn host_ports(pod: &Value) -> Option<Fault> {
    let mut ports = BTreeSet::new();
    let mut bad = Vec::new();
    for container in containers(pod) {
        let used: Vec<_> = items(&container["ports"])
            .filter_map(|port| port["hostPort"].as_i64())
            .filter(|port| *port != 0)
            .collect();
        if !used.is_empty() {
            bad.push(text(&container["name"]));
            ports.extend(used.iter().map(i64::to_string));
        }
    }
    let list = ports.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    (!bad.is_empty()).then(|| {
        let uses = if bad.len() == 1 { "uses" } else { "use" };
        ("hostPort", format!("{} {uses} {} {list}", named(&bad), plural("hostPort", ports.len())))
    })
}

fn host_probes(pod: &Value) -> Option<Fault> {
    let mut hosts = BTreeSet::new();
    let mut bad = Vec::new();
    for container in containers(pod) {
        let handlers = ["livenessProbe", "readinessProbe", "startupProbe"]
            .map(|key| &container[key])
            .into_iter()
            .chain(["postStart", "preStop"].map(|key| &container["lifecycle"][key]));
        let used: Vec<_> = handlers
            .flat_map(|h| [&h["httpGet"]["host"], &h["tcpSocket"]["host"]])
            .map(text)
            .filter(|host| !host.is_empty())
            .collect();
        if !used.is_empty() {
            bad.push(text(&container["name"]));
            hosts.extend(used);
        }
    }
    (!bad.is_empty()).then(|| {
        let uses = if bad.len() == 1 { "uses" } else { "use" };
        let what = plural("probe or lifecycle host", hosts.len());
        ("probe or lifecycle host", format!("{} {uses} {what} {}", named(&bad), quoted(hosts)))
    })
}

fn privileged(pod: &Value) -> Option<Fault> {
    let bad = bad_containers(pod, |c| c["securityContext"]["privileged"] == true);
    let details = || format!("{} must not set securityContext.privileged=true", named(&bad));
    (!bad.is_empty()).then(|| ("privileged", details()))
}

fn proc_mount(pod: &Value) -> Option<Fault> {
    if pod["spec"]["hostUsers"] == false {
        return None;
    }
    let of = |c: &Value| text(&c["securityContext"]["procMount"]).to_owned();
    let is_bad = |c: &Value| !matches!(of(c).as_str(), "" | "Default");
    let bad = bad_containers(pod, is_bad);
    let types: BTreeSet<_> = containers(pod).filter(|c| is_bad(c)).map(of).collect();
    let types = quoted(types.iter().map(String::as_str));
    let details = || format!("{} must not set securityContext.procMount to {types}", named(&bad));
    (!bad.is_empty()).then(|| ("procMount", details()))
}

fn selinux(pod: &Value) -> Option<Fault> {
    const TYPES: [&str; 5] =
        ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let options = |of: &Value| of["securityContext"]["seLinuxOptions"].clone();
    let is_bad = |o: &Value| {
        !TYPES.contains(&text(&o["type"]))
            || !text(&o["user"]).is_empty()
            || !text(&o["role"]).is_empty()
    };
    let pod_did = is_bad(&options(&pod["spec"]));
    let bad = bad_containers(pod, |c| is_bad(&options(c)));
    let who = setters(pod_did, &bad)?;
    let all: Vec<Value> =
        std::iter::once(options(&pod["spec"])).chain(containers(pod).map(options)).collect();
    let types: BTreeSet<_> =
        all.iter().map(|o| text(&o["type"])).filter(|t| !TYPES.contains(t)).collect();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", types.len()), quoted(types)));
    }
    for (key, shown) in [("user", "user may not be set"), ("role", "role may not be set")] {
        if all.iter().any(|o| !text(&o[key]).is_empty()) {
            what.push(shown.to_owned());
        }
    }
    let details =
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Some(("seLinuxOptions", details))
}

fn seccomp_type(of: &Value) -> &str {
    text(&of["securityContext"]["seccompProfile"]["type"])
}

fn baseline_seccomp(pod: &Value) -> Option<Fault> {
    let is_bad = |of: &Value| !matches!(seccomp_type(of), "" | "RuntimeDefault" | "Localhost");
    let bad = bad_containers(pod, is_bad);
    let who = setters(is_bad(&pod["spec"]), &bad)?;
    let all = std::iter::once(&pod["spec"]).chain(containers(pod));
    let values: BTreeSet<_> = all.filter(|of| is_bad(of)).map(seccomp_type).collect();
    let details =
        format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
    Some(("seccompProfile", details))
}

fn restricted_seccomp(pod: &Value) -> Option<Fault> {
    if let Some(fault) = baseline_seccomp(pod) {
        return Some(fault);
    }
    if is_windows(pod) || !seccomp_type(&pod["spec"]).is_empty() {
        return None;
    }
    let bad = bad_containers(pod, |c| seccomp_type(c).is_empty());
    (!bad.is_empty()).then(|| {
        let details = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\"",
            named(&bad)
        );
        ("seccompProfile", details)
    })
}

fn sysctls(pod: &Value) -> Option<Fault> {
    const SAFE: [&str; 11] = [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
    ];
    let bad: Vec<_> = items(&pod["spec"]["securityContext"]["sysctls"])
        .map(|sysctl| text(&sysctl["name"]))
        .filter(|name| !SAFE.contains(name) && *name != "net.ipv4.tcp_wmem")
        .collect();
    (!bad.is_empty()).then(|| ("forbidden sysctls", bad.join(", ")))
}

fn host_process(pod: &Value) -> Option<Fault> {
    let on = |of: &Value| of["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let bad = bad_containers(pod, on);
    let who = setters(on(&pod["spec"]), &bad)?;
    let details = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(("hostProcess", details))
}

fn escalation(pod: &Value) -> Option<Fault> {
    if is_windows(pod) {
        return None;
    }
    let bad = bad_containers(pod, |c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    let details =
        || format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    (!bad.is_empty()).then(|| ("allowPrivilegeEscalation != false", details()))
}

fn volumes(pod: &Value) -> Option<Fault> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut bad, mut types) = (Vec::new(), BTreeSet::new());
    for volume in items(&pod["spec"]["volumes"]) {
        let plugins: Vec<_> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| *key != "name" && !value.is_null())
            .map(|(key, _)| key.as_str())
            .collect();
        if plugins.iter().any(|plugin| !ALLOWED.contains(plugin)) {
            bad.push(text(&volume["name"]));
            types.extend(plugins);
        }
    }
    (!bad.is_empty()).then(|| {
        let uses = if bad.len() == 1 { "uses" } else { "use" };
        let details = format!(
            "{} {} {uses} {} {}",
            plural("volume", bad.len()),
            quoted(bad.iter().copied()),
            plural("restricted volume type", types.len()),
            quoted(types)
        );
        ("restricted volume types", details)
    })
}

fn non_root(pod: &Value) -> Option<Fault> {
    let of = |v: &Value| v["securityContext"]["runAsNonRoot"].as_bool();
    let pod_says = of(&pod["spec"]);
    let explicit = bad_containers(pod, |c| of(c) == Some(false));
    let unset = bad_containers(pod, |c| of(c).is_none());
    let pod_did = pod_says == Some(false) && !unset.is_empty();
    if let Some(who) = setters(pod_did, &explicit) {
        let details = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Some(("runAsNonRoot != true", details));
    }
    (pod_says.is_none() && !unset.is_empty()).then(|| {
        let details =
            format!("pod or {} must set securityContext.runAsNonRoot=true", named(&unset));
        ("runAsNonRoot != true", details)
    })
}

fn root_user(pod: &Value) -> Option<Fault> {
    let root = |of: &Value| of["securityContext"]["runAsUser"] == 0;
    let bad = bad_containers(pod, root);
    let who = setters(root(&pod["spec"]), &bad)?;
    Some(("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

fn is_windows(pod: &Value) -> bool {
    text(&pod["spec"]["os"]["name"]) == "windows"
}

/// True when an update changes something that the checks look at.
pub(super) fn is_significant(old: &Value, new: &Value) -> bool {
    let images = |pod: &Value| -> Vec<String> {
        containers(pod).map(|c| text(&c["image"]).to_owned()).collect()
    };
    let profile = "seccomp.security.alpha.kubernetes.io/pod";
    images(old) != images(new) || annotation(old, profile) != annotation(new, profile)
}
