//! Makes objects be there, through the same registry that requests go through.

use std::sync::Arc;

use http::HeaderMap;
use machinery::{GroupResource, ObjectSource, Reason, RequestInfo, Status, UserInfo};
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::query::Query;
use crate::registry::write::{Part, change, create_object};
use crate::registry::{Call, no_resource};

/// A change of a default object with this annotation set to `false` is left alone.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// A call of the server on itself.
pub fn call(api: &Arc<Api>, object: &Value, verb: &str) -> Result<Call, Status> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let table = api.table.snapshot();
    let kind = text(&object["kind"]);
    let row = table.find_kind(group, version, &kind).ok_or_else(no_resource)?.clone();
    let info = RequestInfo {
        is_resource_request: true,
        verb: verb.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        resource: row.plural.to_string(),
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]),
        ..RequestInfo::default()
    };
    Ok(Call {
        api: api.clone(),
        info,
        user: UserInfo {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..UserInfo::default()
        },
        row,
        query: Query::default(),
        headers: HeaderMap::new(),
        now: crate::clock::now(),
        warnings: Arc::default(),
        manager: "kube-apiserver".to_owned(),
        applying: false,
    })
}

fn stored(call: &Call) -> Option<Arc<Value>> {
    let resource: GroupResource = call.resource();
    let namespace = if call.row.namespaced { call.info.namespace.as_str() } else { "" };
    ObjectSource::get(&*call.api.caches, &resource, namespace, &call.info.name)
}

/// Creates an object unless there is one of that name.
pub async fn present(api: &Arc<Api>, object: Value) -> Result<(), Status> {
    let call = call(api, &object, "create")?;
    if stored(&call).is_some() {
        return Ok(());
    }
    match create_object(&call, object, false).await {
        Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}

/// Creates an object, or makes an existing one what `complete` makes of it.
async fn as_completed(
    api: &Arc<Api>,
    object: &Value,
    complete: impl Fn(&Value) -> Value,
) -> Result<(), Status> {
    let mut call = call(api, object, "create")?;
    match stored(&call) {
        None => present(api, object.clone()).await,
        Some(old) if complete(&old) == *old => Ok(()),
        Some(_) => {
            call.info.verb = "update".to_owned();
            change(&call, Part::Main, false, |old| Ok(complete(old))).await.map(|_| ())
        }
    }
}

/// Creates a ConfigMap, or gives an existing one the data that it lacks: replicas of different
/// releases know different facts.
pub async fn data(api: &Arc<Api>, object: Value) -> Result<(), Status> {
    as_completed(api, &object, |old| {
        let mut new = old.clone();
        let data = crate::strategy::child(&mut new, "data");
        for (key, value) in object["data"].as_object().into_iter().flatten() {
            crate::strategy::default_to(data, key, value.clone());
        }
        new
    })
    .await
}

/// Creates an object or makes the given top-level fields (and labels) what they should be.
pub async fn exactly(api: &Arc<Api>, object: Value, fields: &[&str]) -> Result<(), Status> {
    as_completed(api, &object, |old| {
        let mut new = old.clone();
        for field in fields {
            crate::strategy::keep(&mut new, &object, field);
        }
        add_labels(&mut new, &object);
        new
    })
    .await
}

fn add_labels(new: &mut Value, wanted: &Value) {
    for (key, value) in wanted["metadata"]["labels"].as_object().into_iter().flatten() {
        crate::strategy::child(&mut new["metadata"], "labels")[key] = value.clone();
    }
}

/// Creates a default role or binding, or gives an existing one the rules and subjects that it
/// lacks. Nothing is taken away.
pub async fn policy(api: &Arc<Api>, object: Value) -> Result<(), Status> {
    as_completed(api, &object, |old| {
        let is_rbac = object["apiVersion"]
            .as_str()
            .is_some_and(|v| v.starts_with("rbac.authorization.k8s.io/"));
        let mut new = old.clone();
        if !is_rbac || old["metadata"]["annotations"][AUTO_UPDATE] == "false" {
            return new;
        }
        // An aggregated role's rules come from the roles that it selects.
        let lists: &[&str] = match old["aggregationRule"].is_null() {
            true => &["rules", "subjects"],
            false => &[],
        };
        for list in lists {
            let mut items = old[*list].as_array().cloned().unwrap_or_default();
            for wanted in object[*list].as_array().into_iter().flatten() {
                if !items.contains(wanted) {
                    items.push(wanted.clone());
                }
            }
            if !items.is_empty() {
                new[*list] = items.into();
            }
        }
        add_labels(&mut new, &object);
        new
    })
    .await
}

/// Brings aggregated ClusterRoles up to date.
pub async fn aggregated_roles(api: &Arc<Api>) -> Result<(), Status> {
    let resource = GroupResource::new("rbac.authorization.k8s.io", "clusterroles");
    let roles: Vec<Value> = ObjectSource::list(&*api.caches, &resource, None)
        .iter()
        .map(|role| Value::clone(role))
        .collect();
    for mut role in auth::aggregate(&roles) {
        role["kind"] = "ClusterRole".into();
        role["apiVersion"] = "rbac.authorization.k8s.io/v1".into();
        let call = call(api, &role, "update")?;
        change(&call, Part::Main, false, |old| {
            let mut new = old.clone();
            new["rules"] = role["rules"].clone();
            Ok(new)
        })
        .await?;
    }
    Ok(())
}

/// A ConfigMap of kube-system with exactly this data.
pub fn config_map(name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "kube-system"}, "data": data,
    })
}
