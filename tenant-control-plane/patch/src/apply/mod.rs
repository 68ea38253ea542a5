//! Server-side apply: who set which field, and what happens when two want different things.
//!
//! Source: KEP-555 and the Kubernetes documentation "Server-Side Apply". An object's
//! `metadata.managedFields` holds one entry per manager and operation. [`apply`] lays a
//! configuration over the live object, removes what the same manager applied before and no longer
//! wants, and refuses to change what another manager owns unless it is forced. [`track_update`]
//! records what any other write changed, so that a later apply sees it.
//!
//! Neither defaults nor validates: the caller does, on the result.

mod client_side;
mod declared;
mod set;
mod typed;

use machinery::{Reason, Status};
use schema::{Schema, Type};
use serde_json::{Value, json};

pub use declared::{undeclared, undeclared_text};
use set::FieldSet;
use typed::{NoKey, Typed, nothing};

/// Most entries for updates; older ones are folded into one.
const MAX_UPDATE_MANAGERS: usize = 10;
/// Manager of the folded entry.
const ANCIENT: &str = "ancient-changes";
/// Manager of everything that was there when an object without a record is applied to.
const BEFORE: &str = "before-first-apply";
/// Longest name of a manager and of a subresource, characters.
const LONGEST_NAMES: [(&str, usize); 2] = [("manager", 128), ("subresource", 256)];

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub struct Manager<'a> {
    /// `fieldManager` of the request, or what stands for it.
    pub name: &'a str,
    /// `apps/v1`: the version in which the request came.
    pub api_version: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    /// Now, RFC 3339 in whole seconds.
    pub now: &'a str,
}

/// Why a configuration could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields that the configuration would change.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration cannot be applied to anything.
    #[error("{0}")]
    Malformed(String),
}

/// A field that belongs to another manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"name" using apps/v1`, as upstream writes it.
    pub manager: String,
    /// `.spec.replicas`.
    pub path: String,
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Malformed(text) => Status::bad_request(text),
            ApplyError::Conflicts(ref conflicts) => {
                let mut status = Status::new(Reason::Conflict, error.to_string());
                let causes: Vec<Value> = conflicts
                    .iter()
                    .map(|c| {
                        json!({"reason": "FieldManagerConflict", "field": c.path,
                        "message": format!("conflict with {}", c.manager)})
                    })
                    .collect();
                status.details = json!({ "causes": causes });
                status
            }
        }
    }
}

impl From<NoKey> for ApplyError {
    fn from(NoKey(text): NoKey) -> Self {
        ApplyError::Malformed(text)
    }
}

fn conflict_text(conflicts: &[Conflict]) -> String {
    match conflicts {
        [one] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path)
        }
        many => {
            let mut text = format!("Apply failed with {} conflicts:", many.len());
            let mut last = "";
            for conflict in many {
                if conflict.manager != last {
                    text.push_str(&format!(" conflicts with {}:", conflict.manager));
                    last = &conflict.manager;
                }
                text.push_str(&format!("\n- {}", conflict.path));
            }
            text
        }
    }
}

/// One entry of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    manager: String,
    is_apply: bool,
    api_version: String,
    subresource: String,
    time: String,
    set: FieldSet,
}

impl Entry {
    fn read(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Self {
            manager: text("manager"),
            is_apply: value["operation"] == "Apply",
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            set: FieldSet::from_json(&value["fieldsV1"]),
        }
    }

    fn write(&self) -> Value {
        let mut value = json!({
            "manager": self.manager,
            "operation": if self.is_apply { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.set.to_json(),
        });
        if !self.time.is_empty() {
            value["time"] = self.time.as_str().into();
        }
        if !self.subresource.is_empty() {
            value["subresource"] = self.subresource.as_str().into();
        }
        value
    }

    fn new(by: &Manager<'_>, is_apply: bool, set: FieldSet) -> Self {
        Self {
            manager: by.name.to_owned(),
            is_apply,
            api_version: by.api_version.to_owned(),
            subresource: by.subresource.to_owned(),
            time: by.now.to_owned(),
            set,
        }
    }

    fn is_by(&self, by: &Manager<'_>, is_apply: bool) -> bool {
        self.is_apply == is_apply && self.manager == by.name && self.subresource == by.subresource
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    list.into_iter().flatten().map(Entry::read).collect()
}

/// Writes the entries, applied ones first, then by time and name.
fn put_entries(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.set.is_empty());
    let order = |e: &Entry| (!e.is_apply, e.time.clone(), e.manager.clone(), e.subresource.clone());
    entries.sort_by_key(order);
    let written: Vec<Value> = entries.iter().map(Entry::write).collect();
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match written.is_empty() {
        true => drop(object["metadata"].as_object_mut().map(|m| m.remove("managedFields"))),
        false => object["metadata"]["managedFields"] = written.into(),
    }
}

/// What identifies the object or is set by the server belongs to nobody.
fn strip(set: &mut FieldSet) {
    let nobodys = json!({
        "f:apiVersion": {}, "f:kind": {},
        "f:metadata": {".": {}, "f:name": {}, "f:namespace": {}, "f:generateName": {}, "f:uid": {},
            "f:creationTimestamp": {}, "f:selfLink": {}, "f:generation": {}, "f:resourceVersion": {},
            "f:managedFields": {}},
    });
    // Nothing below managedFields is of interest, and subtraction is by place.
    if let Some(metadata) = set.below.get_mut("f:metadata") {
        metadata.below.remove("f:managedFields");
    }
    set.subtract(&FieldSet::from_json(&nobodys));
}

/// Applies a configuration. `live` is the stored object, or `None` to make one. The result holds
/// the new `managedFields`.
///
/// # Errors
/// The configuration is malformed, or, unless `force` is given, changes what others own.
pub fn apply(
    schema: &Schema,
    ty: &Type,
    live: Option<&Value>,
    config: &Value,
    by: &Manager<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let typed = Typed { schema };
    let empty = nothing();
    let mut seeded = None;
    if let Some(live) = live.filter(|live| entries(live).is_empty()) {
        let live = seeded.insert(live.clone());
        track_update(schema, ty, None, live, &Manager { name: BEFORE, subresource: "", ..*by })?;
    }
    let live = seeded.as_ref().or(live).unwrap_or(&empty);
    let applied = lay_over(&typed, ty, live, config, by, force);
    if by.name != client_side::MANAGER {
        return applied;
    }
    let mut result = match applied {
        Err(ApplyError::Conflicts(mut conflicts)) => {
            let own = client_side::own_paths(&typed, ty, live, by);
            conflicts.retain(|conflict| !own.contains(&conflict.path));
            if !conflicts.is_empty() {
                return Err(ApplyError::Conflicts(conflicts));
            }
            lay_over(&typed, ty, live, config, by, true)?
        }
        applied => applied?,
    };
    client_side::renew(&mut result, config);
    Ok(result)
}

fn lay_over(
    typed: &Typed<'_>,
    ty: &Type,
    live: &Value,
    config: &Value,
    by: &Manager<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    if !config.is_object() {
        return Err(ApplyError::Malformed("an applied configuration must be an object".to_owned()));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::Malformed("metadata.managedFields must be nil".to_owned()));
    }
    let mut all = entries(live);
    let mut wanted = typed.fields(ty, config)?;
    strip(&mut wanted);
    let mine = all.iter().position(|entry| entry.is_by(by, true));
    let last = mine.map(|at| all.remove(at));
    let mut result = typed.merge(ty, live, config)?;
    if let Some(last) = &last {
        let mut keep = wanted.clone();
        all.iter().for_each(|entry| keep.union(&entry.set));
        typed.prune(ty, &mut result, &last.set, &keep);
    }
    let difference = typed.compare(ty, live, &result)?;
    let mut changed = difference.modified;
    changed.union(&difference.added);
    let conflicts = conflicts(&all, &changed);
    if !conflicts.is_empty() && !force {
        return Err(ApplyError::Conflicts(conflicts));
    }
    for entry in &mut all {
        entry.set.subtract(&changed);
        entry.set.subtract(&difference.removed);
    }
    let mut entry = Entry::new(by, true, wanted);
    if let Some(last) = last.filter(|last| last.set == entry.set) {
        // Applying the same again changes nothing, not even a time.
        entry.time = last.time;
    }
    all.push(entry);
    put_entries(&mut result, all);
    Ok(result)
}

fn conflicts(others: &[Entry], changed: &FieldSet) -> Vec<Conflict> {
    let mut found = Vec::new();
    for entry in others {
        let sub = match entry.subresource.as_str() {
            "" => String::new(),
            sub => format!(" with subresource {sub:?}"),
        };
        let manager = format!("{:?}{sub} using {}", entry.manager, entry.api_version);
        for path in entry.set.intersection(changed).paths() {
            found.push(Conflict { manager: manager.clone(), path });
        }
    }
    found
}

/// Leaves in `new` the entries that its write starts from: those that came with it, so that a
/// client can hand fields from one manager to another or, with an empty list or entry, forget all
/// of them; or else those of `old`, for clients that know nothing of them.
pub fn settle_entries(new: &mut Value, old: &Value) {
    if let Some(given) = new["metadata"]["managedFields"].as_array() {
        let forgets = matches!(&given[..], [Value::Object(only)] if only.is_empty());
        if forgets || given.iter().all(is_entry) {
            return;
        }
    }
    let Some(metadata) = new["metadata"].as_object_mut() else { return };
    match &old["metadata"]["managedFields"] {
        Value::Null => drop(metadata.remove("managedFields")),
        entries => drop(metadata.insert("managedFields".to_owned(), entries.clone())),
    }
}

fn is_entry(value: &Value) -> bool {
    (value["operation"] == "Apply" || value["operation"] == "Update")
        && value["apiVersion"].as_str().is_some_and(|version| !version.is_empty())
        && value["fieldsType"] == "FieldsV1"
        && value["fieldsV1"].is_object()
        && match &value["time"] {
            Value::Null => true,
            Value::String(time) => time.parse::<jiff::Timestamp>().is_ok(),
            _ => false,
        }
        && LONGEST_NAMES.iter().all(|(key, most)| match &value[*key] {
            Value::Null => true,
            Value::String(text) => text.chars().count() <= *most,
            _ => false,
        })
}

/// Records in `new` who changed what since `old` (`None` for a new object), for every write that
/// is no apply. The entries in `new` are the starting point ([`settle_entries`]); an object that
/// has none, because somebody has forgotten them, gets none before it is applied to again.
pub fn track_update(
    schema: &Schema,
    ty: &Type,
    old: Option<&Value>,
    new: &mut Value,
    by: &Manager<'_>,
) -> Result<(), ApplyError> {
    let typed = Typed { schema };
    let empty = nothing();
    let mut all = entries(new);
    all.retain(|entry| !entry.set.is_empty());
    if old.is_some() && all.is_empty() {
        put_entries(new, all);
        return Ok(());
    }
    let old = old.unwrap_or(&empty);
    let difference = typed.compare(ty, old, new)?;
    let mut changed = difference.modified;
    changed.union(&difference.added);
    strip(&mut changed);
    let mut removed = difference.removed;
    strip(&mut removed);
    for entry in &mut all {
        if !entry.is_by(by, false) {
            entry.set.subtract(&changed);
        }
        entry.set.subtract(&removed);
    }
    if !changed.is_empty() {
        match all.iter_mut().find(|entry| entry.is_by(by, false)) {
            Some(entry) => {
                entry.set.union(&changed);
                entry.time = by.now.to_owned();
                entry.api_version = by.api_version.to_owned();
            }
            None => all.push(Entry::new(by, false, changed)),
        }
    }
    fold_ancient(&mut all);
    put_entries(new, all);
    Ok(())
}

/// Bounds the number of entries: objects that many controllers touch must not grow for ever.
fn fold_ancient(all: &mut Vec<Entry>) {
    let updates = |all: &[Entry]| all.iter().filter(|e| !e.is_apply).count();
    while updates(all) > MAX_UPDATE_MANAGERS {
        all.sort_by(|a, b| (a.is_apply, &a.time).cmp(&(b.is_apply, &b.time)));
        let oldest = all.remove(0);
        let ancient = all.iter_mut().find(|e| !e.is_apply && e.manager == ANCIENT);
        match ancient.filter(|_| oldest.manager != ANCIENT) {
            Some(entry) => entry.set.union(&oldest.set),
            // The next oldest takes the name, so that the number goes down in every round.
            None => {
                let next = &mut all[0];
                next.manager = ANCIENT.to_owned();
                next.subresource = String::new();
                next.set.union(&oldest.set);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (&'static Schema, &'static Type) {
        let schema = Schema::get("1.35").expect("table");
        (schema, schema.type_of("apps", "v1", "Deployment").expect("kind"))
    }

    fn by<'a>(name: &'a str, now: &'a str) -> Manager<'a> {
        Manager { name, api_version: "apps/v1", subresource: "", now }
    }

    fn config(replicas: Value, containers: Value, labels: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": labels},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn what_is_no_longer_applied_goes_away() {
        let (schema, ty) = setup();
        let first = config(
            json!(1),
            json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]),
            json!({"l": "1", "m": "2"}),
        );
        let live = apply(schema, ty, None, &first, &by("me", "t1"), false).expect("applies");
        assert_eq!(
            live["metadata"]["managedFields"][0]["fieldsV1"],
            json!({"f:metadata": {"f:labels": {"f:l": {}, "f:m": {}}},
                "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                    "k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}},
                    "k:{\"name\":\"b\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}})
        );
        let second = config(json!(1), json!([{"name": "a", "image": "x"}]), json!({"l": "1"}));
        let live =
            apply(schema, ty, Some(&live), &second, &by("me", "t2"), false).expect("applies");
        assert_eq!(
            live["spec"]["template"]["spec"]["containers"],
            json!([{"name": "a", "image": "x"}])
        );
        assert_eq!(live["metadata"]["labels"], json!({"l": "1"}));
        let again =
            apply(schema, ty, Some(&live), &second, &by("me", "t3"), false).expect("applies");
        assert_eq!(again, live, "the same again changes nothing");
    }

    #[test]
    fn another_managers_field_is_a_conflict_unless_forced() {
        let (schema, ty) = setup();
        let mine = config(json!(1), json!([{"name": "a", "image": "x"}]), json!({}));
        let live = apply(schema, ty, None, &mine, &by("me", "t1"), false).expect("applies");
        let mut scaled = live.clone();
        scaled["spec"]["replicas"] = json!(5);
        track_update(schema, ty, Some(&live), &mut scaled, &by("scaler", "t2")).expect("tracks");
        let owners: Vec<&Value> = scaled["metadata"]["managedFields"]
            .as_array()
            .expect("list")
            .iter()
            .map(|e| &e["manager"])
            .collect();
        assert_eq!(owners, ["me", "scaler"]);
        let error =
            apply(schema, ty, Some(&scaled), &mine, &by("me", "t3"), false).expect_err("conflict");
        assert_eq!(
            error.to_string(),
            "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
        );
        let status = Status::from(error);
        assert_eq!(
            (status.code, &status.details["causes"][0]["field"]),
            (409, &json!(".spec.replicas"))
        );
        let forced =
            apply(schema, ty, Some(&scaled), &mine, &by("me", "t3"), true).expect("forced");
        assert_eq!(forced["spec"]["replicas"], 1);
        assert_eq!(forced["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn two_managers_share_a_list() {
        let (schema, ty) = setup();
        let mine = config(json!(1), json!([{"name": "a", "image": "x"}]), json!({}));
        let live = apply(schema, ty, None, &mine, &by("me", "t1"), false).expect("applies");
        let sidecar = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"template": {"spec": {"containers": [{"name": "s", "image": "y"}]}}}});
        let live =
            apply(schema, ty, Some(&live), &sidecar, &by("mesh", "t2"), false).expect("applies");
        assert_eq!(
            live["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len),
            Some(2)
        );
        let live = apply(schema, ty, Some(&live), &mine, &by("me", "t3"), false).expect("applies");
        assert_eq!(
            live["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len),
            Some(2)
        );
        let none =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
        let live =
            apply(schema, ty, Some(&live), &none, &by("mesh", "t4"), false).expect("applies");
        assert_eq!(
            live["spec"]["template"]["spec"]["containers"],
            json!([{"name": "a", "image": "x"}])
        );
    }

    #[test]
    fn an_update_can_hand_fields_over_or_forget_their_owners() {
        let (schema, ty) = setup();
        let mine = config(json!(1), json!([{"name": "a", "image": "x"}]), json!({}));
        let live = apply(schema, ty, None, &mine, &by("me", "2026-01-02T03:04:05Z"), false)
            .expect("applies");
        let update = |entries: Value| {
            let mut new = live.clone();
            new["metadata"]["managedFields"] = entries;
            settle_entries(&mut new, &live);
            track_update(schema, ty, Some(&live), &mut new, &by("any", "t2")).expect("tracks");
            new["metadata"]["managedFields"].clone()
        };
        let entries = &live["metadata"]["managedFields"];
        let mut handed = entries.clone();
        handed[0]["manager"] = json!("you");
        assert_eq!(update(handed.clone()), handed);
        assert_eq!(update(json!([{}])), Value::Null);
        assert_eq!(update(json!([])), Value::Null);
        assert_eq!(update(Value::Null), *entries);
        handed[0].as_object_mut().expect("an entry").remove("time");
        assert_eq!(update(handed.clone()), handed, "the time may be missing");
        for (key, value) in
            [("operation", json!("Guess")), ("time", json!("")), ("time", json!("t"))]
        {
            let mut odd = handed.clone();
            odd[0][key] = value;
            assert_eq!(update(odd), *entries, "what cannot be read counts for nothing");
        }
    }

    #[test]
    fn what_was_there_before_the_first_apply_has_an_owner_too() {
        let (schema, ty) = setup();
        let live = config(json!(1), json!([{"name": "a", "image": "x"}]), json!({"l": "1"}));
        let mut changed = live.clone();
        changed["spec"]["replicas"] = json!(2);
        track_update(schema, ty, Some(&live), &mut changed, &by("any", "t1")).expect("tracks");
        assert_eq!(changed["metadata"]["managedFields"], Value::Null);
        let mine = config(json!(3), json!([{"name": "a", "image": "x"}]), json!({}));
        let error = apply(schema, ty, Some(&changed), &mine, &by("me", "t2"), false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: \
             .spec.replicas"
        );
        let forced = apply(schema, ty, Some(&changed), &mine, &by("me", "t2"), true);
        let managers = forced.expect("forced")["metadata"]["managedFields"].clone();
        assert_eq!(managers[1]["manager"], BEFORE);
    }

    #[test]
    fn many_updaters_are_folded_into_one_entry() {
        let (schema, ty) = setup();
        let mut live = config(json!(0), json!([]), json!({}));
        track_update(schema, ty, None, &mut live, &by("m", "t")).expect("tracks");
        for at in 0..30 {
            let mut next = live.clone();
            next["metadata"]["labels"][format!("l{at}")] = json!("x");
            let (name, now) = (format!("m{at:02}"), format!("t{at:02}"));
            track_update(schema, ty, Some(&live), &mut next, &by(&name, &now)).expect("tracks");
            live = next;
        }
        let list = live["metadata"]["managedFields"].as_array().expect("list");
        assert_eq!(list.len(), MAX_UPDATE_MANAGERS);
        assert!(list.iter().any(|e| e["manager"] == ANCIENT));
    }
}
