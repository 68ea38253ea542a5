//! Cron schedules: five fields, names, lists, ranges, steps and the `@` forms.
//!
//! Source: Kubernetes documentation, "CronJob", section "Schedule syntax"; crontab(5). As there, a day
//! matches when either the day of the month or the day of the week does, if both are restricted.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A parsed schedule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    days_free: bool,
    weekdays_free: bool,
    /// `@every`: seconds between runs.
    every: Option<i64>,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Years to look ahead for a match: 29 February on a given weekday recurs within 28.
const HORIZON_YEARS: i32 = 30;

fn number(text: &str, names: &[&str], offset: u32) -> Result<u32, String> {
    if let Some(index) = names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
        return Ok(u32::try_from(index).unwrap_or_default() + offset);
    }
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

/// One field as a set of bits, and whether it restricts nothing.
fn field(
    text: &str,
    low: u32,
    high: u32,
    names: &[&str],
    offset: u32,
) -> Result<(u64, bool), String> {
    let (mut bits, mut free) = (0, false);
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, number(step, &[], 0)?),
            None => (part, 1),
        };
        if step == 0 {
            return Err(format!("the step in {part:?} must be positive"));
        }
        let (from, to) = match range {
            "*" | "?" => {
                free |= step == 1;
                (low, high)
            }
            _ => match range.split_once('-') {
                Some((from, to)) => (number(from, names, offset)?, number(to, names, offset)?),
                None => {
                    let from = number(range, names, offset)?;
                    (from, if part.contains('/') { high } else { from })
                }
            },
        };
        if from < low || to > high || from > to {
            return Err(format!("{part:?} must lie between {low} and {high}"));
        }
        for value in (from..=to).step_by(step as usize) {
            bits |= 1_u64 << value;
        }
    }
    Ok((bits, free))
}

fn duration(text: &str) -> Result<i64, String> {
    let duration = component::leader::parse_duration(text)?;
    Ok(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).max(1))
}

impl Schedule {
    /// Parses a schedule.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expanded = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(period) = expanded.strip_prefix("@every ") {
            let mut schedule = Self::parse("* * * * *")?;
            schedule.every = Some(duration(period)?);
            return Ok(schedule);
        }
        let fields: Vec<_> = expanded.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!("expected 5 fields, found {}: {text:?}", fields.len()));
        };
        let (days, days_free) = field(day, 1, 31, &[], 0)?;
        // 7 is Sunday, too.
        let (weekdays, weekdays_free) = field(weekday, 0, 7, &WEEKDAYS, 0)?;
        Ok(Self {
            minutes: field(minute, 0, 59, &[], 0)?.0,
            hours: field(hour, 0, 23, &[], 0)?.0,
            days,
            months: field(month, 1, 12, &MONTHS, 1)?.0,
            weekdays: weekdays | (weekdays >> 7 & 1),
            days_free,
            weekdays_free,
            every: None,
        })
    }

    fn matches_day(&self, at: DateTime) -> bool {
        let has = |bits: u64, value: i8| bits >> value & 1 == 1;
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.date().weekday().to_sunday_zero_offset());
        has(self.months, at.month())
            && if self.days_free || self.weekdays_free { day && weekday } else { day || weekday }
    }

    /// The first time after `after`, in the time zone. `None` when there is none within decades.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Some(seconds) = self.every {
            return after.checked_add(seconds.seconds()).ok();
        }
        let start = after.to_zoned(zone.clone()).datetime();
        let mut at =
            start.date().to_datetime(jiff::civil::time(start.hour(), start.minute(), 0, 0));
        at = at.checked_add(1.minute()).ok()?;
        let last_year = i32::from(at.year()) + HORIZON_YEARS;
        let has = |bits: u64, value: i8| bits >> value & 1 == 1;
        while i32::from(at.year()) <= last_year {
            if !self.matches_day(at) {
                at = at.date().tomorrow().ok()?.to_datetime(jiff::civil::Time::midnight());
            } else if !has(self.hours, at.hour()) {
                let hour = at.date().to_datetime(jiff::civil::time(at.hour(), 0, 0, 0));
                at = hour.checked_add(1.hour()).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                let found = at.to_zoned(zone.clone()).ok()?;
                // A time that a clock change skips does not exist.
                if found.datetime() == at && found.timestamp() > after {
                    return Some(found.timestamp());
                }
                at = at.checked_add(1.minute()).ok()?;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let parsed = Schedule::parse(schedule).unwrap();
        parsed.next(after.parse().unwrap(), &TimeZone::UTC).unwrap().to_string()
    }

    #[test]
    fn schedules_fire_as_documented() {
        let noon = "2026-11-24T12:00:00Z";
        assert_eq!(next("*/5 * * * *", noon), "2026-11-24T12:05:00Z");
        assert_eq!(next("@hourly", noon), "2026-11-24T13:00:00Z");
        assert_eq!(next("30 3 * * mon-fri", noon), "2026-11-25T03:30:00Z");
        assert_eq!(next("0 0 1 jan *", noon), "2027-01-01T00:00:00Z");
        assert_eq!(next("0 0 * * 7", noon), "2026-11-29T00:00:00Z");
        assert_eq!(next("0 0 13 * 5", noon), "2026-11-27T00:00:00Z", "the 13th or a Friday");
        assert_eq!(next("0 0 29 2 *", noon), "2028-02-29T00:00:00Z");
        assert_eq!(next("@every 90s", noon), "2026-11-24T12:01:30Z");
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in
            ["", "* * * *", "60 * * * *", "* * * * 8", "*/0 * * * *", "5-1 * * * *", "a * * * *"]
        {
            assert!(Schedule::parse(wrong).is_err(), "{wrong:?}");
        }
        let never = Schedule::parse("0 0 31 2 *").unwrap();
        assert!(never.next(Timestamp::now(), &TimeZone::UTC).is_none());
    }
}
