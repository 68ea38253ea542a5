//! How values read on a page.

use std::fmt::Display;

use askama::Values;
use jiff::Timestamp;
use marina_db::now_ms;

use crate::view::StepView;

/// Colour of a state's pill.
#[askama::filter_fn]
pub(super) fn tone(state: impl Display, _: &dyn Values) -> askama::Result<&'static str> {
    Ok(match state.to_string().as_str() {
        "ready" | "done" => "ok",
        "degraded" | "not-ready" | "deleting" => "warn",
        "failed" | "exited" => "bad",
        "provisioning" | "booting" | "joining" | "starting" | "pending" => "busy",
        _ => "",
    })
}

/// Time since a moment (Unix ms), for readers without JavaScript.
#[askama::filter_fn]
pub(super) fn ago(ms: &i64, _: &dyn Values) -> askama::Result<String> {
    let seconds = (now_ms() - ms).max(0) / 1000;
    Ok(match seconds {
        0..5 => "just now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    })
}

/// A day in UTC, or "never".
#[askama::filter_fn]
pub(super) fn date(ms: &Option<i64>, _: &dyn Values) -> askama::Result<String> {
    let timestamp = ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Ok(timestamp.map_or_else(|| "never".to_owned(), |time| time.strftime("%Y-%m-%d").to_string()))
}

/// How long a step took, or that it goes on.
#[askama::filter_fn]
pub(super) fn took(step: &StepView, _: &dyn Values) -> askama::Result<String> {
    Ok(match (step.started_ms, step.finished_ms) {
        (Some(from), Some(to)) => {
            let ms = u32::try_from((to - from).max(0)).unwrap_or(u32::MAX);
            format!("{:.1} s", f64::from(ms) / 1000.0)
        }
        (Some(_), None) if step.state == "running" => "working…".to_owned(),
        _ => String::new(),
    })
}
