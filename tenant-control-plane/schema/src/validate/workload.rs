//! What runs pods.

use serde_json::Value;

use super::faults::{int, text};
use super::labels::{check_selector, check_selects_template};
use super::pod::{check_restart_policy, check_template};
use super::{At, Faults};

/// Longest name of a CronJob: eleven characters are left for the time that its jobs' names end in.
const CRON_JOB_NAME_MAX: usize = 52;

/// Selector, template and counts of a workload whose pods always run.
fn workload(object: &Value, counts: &[&str], faults: &mut Faults) {
    let spec = &object["spec"];
    let at = At::new("spec");
    check_selects_template(spec, faults);
    check_template(&spec["template"], &at.field("template"), faults);
    check_restart_policy(&spec["template"], &["Always"], &at.field("template"), faults);
    for name in counts {
        faults.not_negative(spec, name, &at);
    }
}

pub(super) fn deployment(deployment: &Value, faults: &mut Faults) {
    workload(
        deployment,
        &["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"],
        faults,
    );
    let spec = &deployment["spec"];
    let at = At::new("spec");
    if let (Some(deadline), Some(ready)) =
        (int(spec, "progressDeadlineSeconds"), int(spec, "minReadySeconds"))
        && deadline <= ready
    {
        faults.invalid(
            &at.field("progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
    let strategy = &spec["strategy"];
    let here = at.field("strategy");
    match (text(strategy, "type"), strategy.get("rollingUpdate")) {
        ("Recreate", Some(_)) => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            faults.forbidden(&here.field("rollingUpdate"), why);
        }
        (_, Some(rolling)) => {
            let place = here.field("rollingUpdate");
            rolling_update(rolling, &place, faults);
        }
        _ => {}
    }
}

fn rolling_update(rolling: &Value, at: &At<'_>, faults: &mut Faults) {
    for name in ["maxUnavailable", "maxSurge"] {
        if let Some(value) = rolling.get(name) {
            int_or_percent(value, &at.field(name), faults);
        }
    }
    let is_zero = |name: &str| rolling.get(name).is_none_or(|v| v == "0%" || v.as_i64() == Some(0));
    if is_zero("maxUnavailable") && is_zero("maxSurge") {
        let value = rolling.get("maxUnavailable").cloned().unwrap_or_else(|| 0.into());
        faults.invalid(&at.field("maxUnavailable"), value, "may not be 0 when `maxSurge` is 0");
    }
    if percent(rolling.get("maxUnavailable")).is_some_and(|p| p > 100) {
        let value = rolling["maxUnavailable"].clone();
        faults.invalid(&at.field("maxUnavailable"), value, "must not be greater than 100%");
    }
}

fn percent(value: Option<&Value>) -> Option<u64> {
    value?.as_str()?.strip_suffix('%')?.parse().ok()
}

fn int_or_percent(value: &Value, at: &At<'_>, faults: &mut Faults) {
    match value {
        Value::String(_) if percent(Some(value)).is_none() => {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            faults.invalid(at, value.clone(), why);
        }
        other if other.as_i64().is_some_and(|n| n < 0) => {
            faults.invalid(at, other.clone(), "must be greater than or equal to 0");
        }
        _ => {}
    }
}

pub(super) fn replica_set(set: &Value, faults: &mut Faults) {
    workload(set, &["replicas", "minReadySeconds"], faults);
}

pub(super) fn daemon_set(set: &Value, faults: &mut Faults) {
    workload(set, &["minReadySeconds", "revisionHistoryLimit"], faults);
    let strategy = &set["spec"]["updateStrategy"];
    if let Some(rolling) = strategy.get("rollingUpdate") {
        let at = At::new("spec.updateStrategy.rollingUpdate");
        rolling_update(rolling, &at, faults);
    }
}

pub(super) fn stateful_set(set: &Value, faults: &mut Faults) {
    workload(set, &["replicas", "minReadySeconds", "revisionHistoryLimit"], faults);
}

pub(super) fn replication_controller(controller: &Value, faults: &mut Faults) {
    let spec = &controller["spec"];
    let at = At::new("spec");
    faults.not_negative(spec, "replicas", &at);
    faults.not_negative(spec, "minReadySeconds", &at);
    let Some(selector) = spec.get("selector").and_then(Value::as_object).filter(|s| !s.is_empty())
    else {
        faults.required(&at.field("selector"), "");
        return;
    };
    let Some(template) = spec.get("template") else {
        faults.required(&at.field("template"), "");
        return;
    };
    let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
    if selector.iter().any(|(key, value)| labels.get(key) != Some(value)) {
        let why = "`selector` does not match template `labels`";
        faults.invalid(&At::new("spec.template.metadata.labels"), labels, why);
    }
    check_template(template, &at.field("template"), faults);
    check_restart_policy(template, &["Always"], &at.field("template"), faults);
}

pub(super) fn job(job: &Value, faults: &mut Faults) {
    super::job::check(&job["spec"], &At::new("spec"), faults);
}

pub(super) fn cron_job(cron: &Value, faults: &mut Faults) {
    let spec = &cron["spec"];
    let at = At::new("spec");
    if text(&cron["metadata"], "name").len() > CRON_JOB_NAME_MAX {
        let why = format!("must be no more than {CRON_JOB_NAME_MAX} characters");
        faults.invalid(&At::new("metadata.name"), text(&cron["metadata"], "name"), &why);
    }
    let schedule = text(spec, "schedule");
    if !schedule.is_empty() && !is_schedule(schedule) {
        faults.invalid(&at.field("schedule"), schedule, &schedule_fault(schedule));
    }
    if schedule.contains("TZ=") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        faults.invalid(&at.field("schedule"), schedule, why);
    }
    if let Some(zone) = spec.get("timeZone").and_then(Value::as_str)
        && (zone.is_empty()
            || zone.eq_ignore_ascii_case("local")
            || jiff::tz::TimeZone::get(zone).is_err())
    {
        faults.invalid(&at.field("timeZone"), zone, &format!("unknown time zone {zone}"));
    }
    for name in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"]
    {
        faults.not_negative(spec, name, &at);
    }
    super::job::check(&spec["jobTemplate"]["spec"], &At::new("spec.jobTemplate.spec"), faults);
}

fn schedule_fault(schedule: &str) -> String {
    match schedule.split_whitespace().count() {
        5 => "cannot be parsed as a cron schedule".to_owned(),
        fields => format!("expected exactly 5 fields, found {fields}: [{schedule}]"),
    }
}

/// Five fields of minute, hour, day of month, month, day of week, or a `@` shorthand.
fn is_schedule(text: &str) -> bool {
    if let Some(name) = text.strip_prefix('@') {
        return matches!(
            name,
            "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly"
        ) || name
            .strip_prefix("every ")
            .is_some_and(|d| d.starts_with(|c: char| c.is_ascii_digit()));
    }
    const MONTHS: &[&str] =
        &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let bounds: [(u32, u32, &[&str]); 5] =
        [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 7, DAYS)];
    let text = text
        .strip_prefix("CRON_TZ=")
        .or(text.strip_prefix("TZ="))
        .map_or(text, |rest| rest.split_once(' ').map_or("", |(_, schedule)| schedule));
    let fields: Vec<&str> = text.split_whitespace().collect();
    fields.len() == 5
        && fields.iter().zip(bounds).all(|(field, bounds)| is_schedule_field(field, bounds))
}

fn is_schedule_field(field: &str, (min, max, names): (u32, u32, &[&str])) -> bool {
    let value = |text: &str| -> Option<u32> {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        // Names of months count from one, names of days from zero, as their numbers do.
        let number = named.map(|at| at as u32 + min).or_else(|| text.parse().ok())?;
        (min..=max).contains(&number).then_some(number)
    };
    field.split(',').all(|part| {
        let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
        let step_fits = step.is_none_or(|s| s.parse::<u32>().is_ok_and(|n| n > 0));
        let range_fits = match (range, range.split_once('-')) {
            ("*" | "?", _) => true,
            (_, Some((from, to))) => {
                matches!((value(from), value(to)), (Some(a), Some(b)) if a <= b)
            }
            (one, None) => value(one).is_some(),
        };
        step_fits && range_fits
    })
}

pub(super) fn autoscaler(scaler: &Value, faults: &mut Faults) {
    let spec = &scaler["spec"];
    let at = At::new("spec");
    let (min, max) = (int(spec, "minReplicas").unwrap_or(1), int(spec, "maxReplicas").unwrap_or(0));
    if min < 1 {
        faults.invalid(&at.field("minReplicas"), min, "must be greater than or equal to 1");
    }
    if max < 1 {
        faults.invalid(&at.field("maxReplicas"), max, "must be greater than 0");
    } else if max < min {
        faults.invalid(
            &at.field("maxReplicas"),
            max,
            "must be greater than or equal to `minReplicas`",
        );
    }
}

pub(super) fn disruption_budget(budget: &Value, faults: &mut Faults) {
    let spec = &budget["spec"];
    let at = At::new("spec");
    if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
        faults.invalid(&at, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for name in ["minAvailable", "maxUnavailable"] {
        if let Some(value) = spec.get(name) {
            int_or_percent(value, &at.field(name), faults);
        }
    }
    if let Some(selector) = spec.get("selector") {
        check_selector(selector, &at.field("selector"), faults);
    }
}

#[cfg(test)]
mod tests {
    use machinery::GroupVersionKind;
    use serde_json::json;

    use super::*;
    use crate::table::Schema;

    fn faults_of(group: &str, kind: &str, spec: Value) -> Vec<String> {
        let schema = Schema::get("1.35").expect("table");
        let gvk = GroupVersionKind { group: group.into(), version: "v1".into(), kind: kind.into() };
        let mut object = json!({"metadata": {"name": "a"}, "spec": spec});
        schema.apply_defaults(&gvk, &mut object);
        let causes = schema.validate_create(&gvk, &object);
        causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    fn template(labels: Value) -> Value {
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "x"}]}})
    }

    #[test]
    fn a_deployment_selects_its_own_pods() {
        let none: [&str; 0] = [];
        let selector = json!({"matchLabels": {"app": "web"}});
        assert_eq!(
            faults_of(
                "apps",
                "Deployment",
                json!({"selector": selector, "template": template(json!({"app": "web"}))})
            ),
            none
        );
        assert_eq!(
            faults_of(
                "apps",
                "Deployment",
                json!({"selector": selector, "template": template(json!({"app": "x"}))})
            ),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(
            faults_of("apps", "Deployment", json!({"template": template(json!({"app": "x"}))})),
            ["spec.selector: Required value"]
        );
        assert_eq!(
            faults_of(
                "apps",
                "Deployment",
                json!({"replicas": -1, "selector": selector, "template": template(json!({"app": "web"}))})
            ),
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
        );
    }

    #[test]
    fn jobs_must_be_able_to_end() {
        assert_eq!(
            faults_of("batch", "Job", json!({"template": template(json!({}))})),
            [
                "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"Never\", \"OnFailure\""
            ]
        );
    }

    #[test]
    fn schedules_are_read_like_cron_reads_them() {
        for good in [
            "*/5 * * * *",
            "0 0 1,15 * mon-fri",
            "@daily",
            "0 22 * * 1-5",
            "30 4 1 jan ?",
            "@every 1h",
            "0 0 * * 7",
        ] {
            assert!(is_schedule(good), "{good}");
        }
        for bad in
            ["* * * *", "61 * * * *", "@sometimes", "*/0 * * * *", "5-1 * * * *", "a * * * *"]
        {
            assert!(!is_schedule(bad), "{bad}");
        }
    }

    #[test]
    fn budgets_take_one_bound() {
        let found = faults_of(
            "policy",
            "PodDisruptionBudget",
            json!({"minAvailable": 1, "maxUnavailable": "x"}),
        );
        assert!(
            found[0].contains("cannot be both set") && found[1].contains("a valid percent string"),
            "{found:?}"
        );
    }
}
