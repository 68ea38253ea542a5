//! What a Job's spec must keep to, on its own and in a CronJob.

use serde_json::Value;

use super::faults::{int, items, text};
use super::pod::{check_restart_policy, check_template};
use super::{At, Faults};

/// Most pods of an indexed Job at once, and most failed indexes that it may allow: each makes the
/// lists of indexes in its status longer.
const INDEXED_MAX: i64 = 100_000;
/// A Job of more completions than this, with limits per index, has smaller ones.
const MANY_COMPLETIONS: i64 = 100_000;
/// The limits of such a Job.
const INDEXED_MAX_OF_MANY: i64 = 10_000;
/// Most rules of a success policy.
const SUCCESS_RULES_MAX: usize = 20;
/// Longest list of indexes in a rule, in bytes.
const SUCCEEDED_INDEXES_MAX: usize = 64 * 1024;

pub(super) fn check(spec: &Value, at: &At<'_>, faults: &mut Faults) {
    for name in [
        "parallelism",
        "completions",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "activeDeadlineSeconds",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        faults.not_negative(spec, name, at);
    }
    if spec.get("maxFailedIndexes").is_some() && spec.get("backoffLimitPerIndex").is_none() {
        let why = "when maxFailedIndexes is specified";
        faults.required(&at.field("backoffLimitPerIndex"), why);
    }
    if text(spec, "completionMode") == "Indexed" {
        indexed(spec, at, faults);
    } else {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            if let Some(value) = spec.get(name) {
                faults.invalid(&at.field(name), value.clone(), "requires indexed completion mode");
            }
        }
    }
    let template = at.field("template");
    check_template(&spec["template"], &template, faults);
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    let allowed: &[&str] =
        if spec.get("podFailurePolicy").is_some() { &["Never"] } else { &["OnFailure", "Never"] };
    if policy == "Always" || !allowed.contains(&policy) {
        check_restart_policy(&spec["template"], allowed, &template, faults);
    }
}

/// What holds for a Job whose pods stand for indexes.
fn indexed(spec: &Value, at: &At<'_>, faults: &mut Faults) {
    let completions = int(spec, "completions");
    if completions.is_none() {
        faults.required(&at.field("completions"), "when completion mode is Indexed");
    }
    at_most(spec, "parallelism", INDEXED_MAX, " when completion mode is Indexed", at, faults);
    let most_failed = int(spec, "maxFailedIndexes");
    if let (Some(failed), Some(completions)) = (most_failed, completions)
        && failed > completions
    {
        let why = "must be less than or equal to completions";
        faults.invalid(&at.field("maxFailedIndexes"), failed, why);
    }
    at_most(spec, "maxFailedIndexes", INDEXED_MAX, "", at, faults);
    let has_many = completions.is_some_and(|completions| completions > MANY_COMPLETIONS);
    if has_many && spec.get("backoffLimitPerIndex").is_some() {
        if most_failed.is_none() {
            let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            faults.required(&at.field("maxFailedIndexes"), &why);
        }
        let when = format!(
            " when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
        );
        for name in ["parallelism", "maxFailedIndexes"] {
            at_most(spec, name, INDEXED_MAX_OF_MANY, &when, at, faults);
        }
    }
    if let Some(policy) = spec.get("successPolicy") {
        let completions = completions.unwrap_or_default();
        success_policy(policy, completions, &at.field("successPolicy"), faults);
    }
}

fn at_most(spec: &Value, name: &str, most: i64, when: &str, at: &At<'_>, faults: &mut Faults) {
    if let Some(number) = int(spec, name).filter(|number| *number > most) {
        let why = format!("must be less than or equal to {most}{when}");
        faults.invalid(&at.field(name), number, &why);
    }
}

fn success_policy(policy: &Value, completions: i64, at: &At<'_>, faults: &mut Faults) {
    let at = at.field("rules");
    let rules = items(policy, "rules");
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        faults.required(&at, why);
    }
    if rules.len() > SUCCESS_RULES_MAX {
        faults.too_many(&at, rules.len(), SUCCESS_RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        success_rule(rule, completions, &at.index(index), faults);
    }
}

fn success_rule(rule: &Value, completions: i64, at: &At<'_>, faults: &mut Faults) {
    let indexes = rule.get("succeededIndexes").and_then(Value::as_str);
    let count = int(rule, "succeededCount");
    if indexes.is_none() && count.is_none() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        faults.required(at, why);
    }
    let mut total = 0;
    if let Some(indexes) = indexes {
        let at = at.field("succeededIndexes");
        if indexes.len() > SUCCEEDED_INDEXES_MAX {
            faults.too_long(&at, SUCCEEDED_INDEXES_MAX);
        }
        match count_indexes(indexes, completions) {
            Ok(number) => total = number,
            Err(why) => {
                faults.invalid(&at, indexes, &format!("error parsing succeededIndexes: {why}"));
            }
        }
    }
    let Some(count) = count else { return };
    faults.not_negative(rule, "succeededCount", at);
    let at = at.field("succeededCount");
    let mut must = |most: i64, of: &str| {
        if count > most {
            faults.invalid(&at, count, &format!("must be less than or equal to {most} ({of})"));
        }
    };
    must(completions, "the number of specified completions");
    if indexes.is_some() {
        must(total, "the number of indexes in the specified succeededIndexes field");
    }
}

/// How many indexes `0,3-5,7` names. They must rise and stay below `completions`.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (from, to) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| match text.parse::<i64>() {
        Ok(number) if number >= completions => Err(format!("too large index: {text:?}")),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
    };
    let limits: Vec<_> = text.split('-').collect();
    match limits[..] {
        [only] => index(only).map(|only| (only, only)),
        [from, to] => match (index(from)?, index(to)?) {
            (from, to) if from < to => Ok((from, to)),
            (from, to) => Err(format!("non-increasing order, previous: {from}, current: {to}")),
        },
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at \
             most two parts separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The faults of a spec, but not those of its template.
    fn faults_of(spec: Value) -> Vec<String> {
        let mut spec = spec;
        spec["template"] = json!({"spec": {"restartPolicy": "Never"}});
        let mut faults = Faults::default();
        check(&spec, &At::new("spec"), &mut faults);
        let causes = faults.into_causes().into_iter();
        let causes = causes.filter(|cause| !cause.field.starts_with("spec.template"));
        causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn indexed(more: Value) -> Vec<String> {
        let mut spec = json!({"completionMode": "Indexed", "completions": 10});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        faults_of(spec)
    }

    #[test]
    fn indexed_jobs_have_limits() {
        let none: [&str; 0] = [];
        assert_eq!(indexed(json!({"parallelism": 100_000, "completions": i32::MAX})), none);
        assert_eq!(
            indexed(json!({"parallelism": 100_001})),
            ["spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when \
              completion mode is Indexed"]
        );
        let per_index = |spec: Value| {
            let mut spec = spec;
            spec["backoffLimitPerIndex"] = 1.into();
            indexed(spec)
        };
        assert_eq!(per_index(json!({"maxFailedIndexes": 10})), none);
        assert_eq!(
            per_index(json!({"maxFailedIndexes": 11})),
            ["spec.maxFailedIndexes: Invalid value: 11: must be less than or equal to completions"]
        );
        assert_eq!(
            per_index(json!({"completions": 100_001, "parallelism": 10_001})),
            [
                "spec.maxFailedIndexes: Required value: must be specified when completions is \
                 above 100000",
                "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when \
                 completions are above 100000 and used with backoff limit per index"
            ]
        );
        assert_eq!(
            faults_of(json!({"maxFailedIndexes": 1})),
            [
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode"
            ]
        );
    }

    #[test]
    fn a_success_policy_names_indexes_of_its_job() {
        let none: [&str; 0] = [];
        let rule = |rule: Value| {
            let found = indexed(json!({"successPolicy": {"rules": [rule]}}));
            let prefix = "spec.successPolicy.rules[0]";
            found.iter().map(|f| f.replace(prefix, "")).collect::<Vec<_>>()
        };
        assert_eq!(rule(json!({"succeededIndexes": "0,3-5,9", "succeededCount": 5})), none);
        assert_eq!(rule(json!({"succeededCount": 10})), none);
        assert_eq!(
            rule(json!({})),
            [": Required value: at least one of succeededCount or succeededIndexes must be \
              specified"]
        );
        for (text, why) in [
            ("3-10", "too large index: \"10\""),
            ("3,3", "non-increasing order, previous: 3, current: 3"),
            ("5-4", "non-increasing order, previous: 5, current: 4"),
            ("1,", "cannot convert string to integer for index: \"\""),
        ] {
            let found = rule(json!({"succeededIndexes": text}));
            assert_eq!(
                found,
                [format!(
                    ".succeededIndexes: Invalid value: {text:?}: error parsing succeededIndexes: \
                     {why}"
                )]
            );
        }
        assert_eq!(
            rule(json!({"succeededIndexes": "1-2", "succeededCount": 3})),
            [".succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of \
              indexes in the specified succeededIndexes field)"]
        );
        let many =
            indexed(json!({"successPolicy": {"rules": vec![json!({"succeededCount": 1}); 21]}}));
        assert_eq!(many, ["spec.successPolicy.rules: Too many: 21: must have at most 20 items"]);
    }
}
