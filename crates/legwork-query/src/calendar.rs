//! Working time: which instants lie within the working hours of a calendar.

use std::collections::{HashMap, HashSet};

use chrono::{Datelike, NaiveDate, Offset, TimeZone, Weekday};
use chrono_tz::Tz;

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
/// Further than any zone is from UTC, seconds.
const ZONE_S_MAX: i64 = 15 * 3_600;

/// A span of working time on a day of the week, seconds of the local day, end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    weekday: Weekday,
    start_s: i64,
    end_s: i64,
}

/// Working hours in a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Calendar {
    zone: Tz,
    spans: Vec<Span>,
    holidays: HashSet<NaiveDate>,
}

/// Calendars by name.
pub(crate) type Calendars = HashMap<String, Calendar>;

impl Calendar {
    /// Monday to Friday, 09:00 to 17:00, no holidays.
    pub(crate) fn weekdays(zone: Tz) -> Calendar {
        let days = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri];
        let spans = days.map(|weekday| Span { weekday, start_s: 9 * 3_600, end_s: 17 * 3_600 });
        Calendar { zone, spans: spans.to_vec(), holidays: HashSet::new() }
    }

    /// Of entries such as `mon 09:00-17:00` and days off. *Errors:* names the entry that cannot be read.
    pub(crate) fn parse<'a>(
        zone: Tz,
        working_hours: impl Iterator<Item = &'a str>,
        holidays: HashSet<NaiveDate>,
    ) -> Result<Calendar, String> {
        let wrong = |entry: &str| format!("expected working hours such as 'mon 09:00-17:00', found {entry:?}");
        let mut spans: Vec<Span> = Vec::new();
        for entry in working_hours {
            let span = span(entry).ok_or_else(|| wrong(entry))?;
            let overlaps = |s: &Span| s.weekday == span.weekday && s.start_s < span.end_s && span.start_s < s.end_s;
            if spans.iter().any(overlaps) {
                return Err(format!("working hours {entry:?} overlap with an entry before"));
            }
            spans.push(span);
        }
        Ok(Calendar { zone, spans, holidays })
    }

    /// Working microseconds from `from_us` until `to_us`; negative when `to_us` comes first. An instant counts when the local clock
    /// shows a time within a span of the day, so an hour that a change of the clocks repeats counts twice and one that it skips not.
    pub(crate) fn working_us(&self, from_us: i64, to_us: i64) -> i64 {
        if to_us < from_us {
            return -self.working_us(to_us, from_us);
        }
        let local_date = |us: i64| self.zone.timestamp_micros(us).single().map(|time| time.date_naive());
        let (Some(first), Some(last)) = (local_date(from_us), local_date(to_us)) else { return 0 };
        let days = first.iter_days().take_while(|day| *day <= last);
        days.filter(|day| !self.holidays.contains(day)).map(|day| self.working_us_of_day(day, from_us, to_us)).sum()
    }

    fn working_us_of_day(&self, day: NaiveDate, from_us: i64, to_us: i64) -> i64 {
        let mut spans = self.spans.iter().filter(|span| span.weekday == day.weekday()).peekable();
        if spans.peek().is_none() {
            return 0;
        }
        let midnight_s = day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp();
        let (before_s, after_s) = (midnight_s - ZONE_S_MAX, midnight_s + DAY_S + ZONE_S_MAX);
        let (offset_before_s, offset_after_s) = (self.offset_s(before_s), self.offset_s(after_s));
        let change_us = match offset_before_s == offset_after_s {
            true => i64::MAX,
            false => self.change_s(before_s, after_s) * SECOND_US,
        };
        let overlap_us = |span: &Span, offset_s: i64, from_us: i64, to_us: i64| {
            let start_us = ((midnight_s + span.start_s - offset_s) * SECOND_US).max(from_us);
            let end_us = ((midnight_s + span.end_s - offset_s) * SECOND_US).min(to_us);
            (end_us - start_us).max(0)
        };
        spans
            .map(|span| {
                overlap_us(span, offset_before_s, from_us, to_us.min(change_us))
                    + match change_us {
                        i64::MAX => 0,
                        _ => overlap_us(span, offset_after_s, from_us.max(change_us), to_us),
                    }
            })
            .sum()
    }

    fn offset_s(&self, at_s: i64) -> i64 {
        match self.zone.timestamp_opt(at_s, 0).single() {
            Some(time) => i64::from(time.offset().fix().local_minus_utc()),
            None => 0,
        }
    }

    /// The first second of the new offset, which changes once between the two.
    fn change_s(&self, mut before_s: i64, mut after_s: i64) -> i64 {
        let offset_s = self.offset_s(before_s);
        while after_s - before_s > 1 {
            let middle_s = before_s + (after_s - before_s) / 2;
            match self.offset_s(middle_s) == offset_s {
                true => before_s = middle_s,
                false => after_s = middle_s,
            }
        }
        after_s
    }
}

fn span(entry: &str) -> Option<Span> {
    let (weekday, hours) = entry.trim().split_once(char::is_whitespace)?;
    let (start, end) = hours.trim().split_once('-')?;
    let span = Span { weekday: weekday.parse().ok()?, start_s: seconds(start)?, end_s: seconds(end)? };
    (span.start_s < span.end_s).then_some(span)
}

/// `HH:MM`, up to 24:00.
fn seconds(text: &str) -> Option<i64> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = hours * 3_600 + minutes * 60;
    ((0..60).contains(&minutes) && (0..=DAY_S).contains(&seconds)).then_some(seconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::{DateTime, Timelike};
    use proptest::prelude::*;

    use super::*;

    /// Minute by minute: the local clock of each is looked at.
    fn naive_us(calendar: &Calendar, from_us: i64, to_us: i64) -> i64 {
        let minute_us = 60 * SECOND_US;
        let works = |us: &i64| {
            let local = DateTime::from_timestamp_micros(*us).unwrap().with_timezone(&calendar.zone);
            let second = i64::from(local.num_seconds_from_midnight());
            let in_span = |span: &Span| span.weekday == local.weekday() && (span.start_s..span.end_s).contains(&second);
            !calendar.holidays.contains(&local.date_naive()) && calendar.spans.iter().any(in_span)
        };
        (from_us..to_us).step_by(minute_us as usize).filter(works).count() as i64 * minute_us
    }

    fn calendar(zone: &str, hours: &[&str], holidays: &[&str]) -> Calendar {
        let holidays = holidays.iter().map(|day| day.parse().unwrap()).collect();
        Calendar::parse(zone.parse().unwrap(), hours.iter().copied(), holidays).unwrap()
    }

    fn us(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    proptest! {
        #[test]
        fn agrees_with_counting_minutes(
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia"]),
            // Around the changes of the clocks in March and October 2026, and the Samoan day that never was, in 2011.
            around in prop::sample::select(vec!["2026-03-28T00:00:00Z", "2026-10-24T00:00:00Z", "2026-04-04T00:00:00Z", "2011-12-29T00:00:00Z"]),
            from_min in -3_000i64..3_000,
            n_min in 0i64..12_000,
        ) {
            let hours = ["mon 09:00-17:00", "tue 09:00-12:30", "tue 13:00-17:00", "wed 00:00-24:00", "sat 01:15-02:45", "sun 00:30-03:30"];
            let calendar = calendar(zone, &hours, &["2026-03-30", "2026-10-27"]);
            let from_us = us(around) + from_min * 60 * SECOND_US;
            let to_us = from_us + n_min * 60 * SECOND_US;
            prop_assert_eq!(calendar.working_us(from_us, to_us), naive_us(&calendar, from_us, to_us));
            prop_assert_eq!(calendar.working_us(to_us, from_us), -naive_us(&calendar, from_us, to_us));
        }
    }

    #[test]
    fn a_week_has_forty_hours_and_a_repeated_hour_counts_twice() {
        let weekdays = Calendar::weekdays(Tz::Europe__Berlin);
        assert_eq!(weekdays.working_us(us("2026-03-02T00:00:00Z"), us("2026-03-09T00:00:00Z")), 40 * 3_600 * SECOND_US);
        let nights = calendar("Europe/Berlin", &["sun 02:00-03:00"], &[]);
        assert_eq!(nights.working_us(us("2026-10-24T12:00:00Z"), us("2026-10-26T12:00:00Z")), 2 * 3_600 * SECOND_US);
        assert_eq!(nights.working_us(us("2026-03-28T12:00:00Z"), us("2026-03-30T12:00:00Z")), 0);
    }

    #[test]
    fn wrong_hours_are_named() {
        for entry in ["mon", "mon 9-17", "xyz 09:00-17:00", "mon 17:00-09:00", "mon 09:00-25:00", "mon 09:60-17:00"] {
            let error = Calendar::parse(Tz::UTC, std::iter::once(entry), HashSet::new()).unwrap_err();
            assert!(error.contains(entry), "{error}");
        }
        let twice = ["mon 09:00-12:00", "mon 11:00-13:00"].into_iter();
        assert!(Calendar::parse(Tz::UTC, twice, HashSet::new()).unwrap_err().contains("overlap"));
    }
}
