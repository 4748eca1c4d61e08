//! Sets of UTC days: which days a query needs, which of them read without resolving.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, col, lit};

/// Microseconds of a UTC day.
pub(crate) const DAY_US: i64 = 86_400_000_000;

/// Days since 1970-01-01 UTC as ranges, both ends inclusive; sorted, apart from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DaySet(Vec<(i32, i32)>);

impl DaySet {
    pub(crate) fn all() -> DaySet {
        DaySet(vec![(i32::MIN, i32::MAX)])
    }

    pub(crate) fn none() -> DaySet {
        DaySet(Vec::new())
    }

    /// Both ends inclusive.
    pub(crate) fn range(first: i32, last: i32) -> DaySet {
        DaySet(if first <= last { vec![(first, last)] } else { Vec::new() })
    }

    /// These days, in order.
    pub(crate) fn of(days: impl IntoIterator<Item = i32>) -> DaySet {
        let mut ranges: Vec<(i32, i32)> = Vec::new();
        for day in days {
            match ranges.last_mut() {
                Some((_, last)) if day <= last.saturating_add(1) => *last = day.max(*last),
                _ => ranges.push((day, day)),
            }
        }
        DaySet(ranges)
    }

    /// Days in which an event time from `first_us` to `last_us` lies, both inclusive.
    pub(crate) fn of_times(first_us: i64, last_us: i64) -> DaySet {
        if first_us > last_us {
            return DaySet::none();
        }
        DaySet::range(day_of_us(first_us), day_of_us(last_us))
    }

    pub(crate) fn is_all(&self) -> bool {
        *self == DaySet::all()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, day: i32) -> bool {
        let idx = self.0.partition_point(|(_, last)| *last < day);
        self.0.get(idx).is_some_and(|(first, _)| *first <= day)
    }

    /// Whether every day from `first` to `last` is in the set.
    pub(crate) fn contains_range(&self, first: i32, last: i32) -> bool {
        let idx = self.0.partition_point(|range| range.1 < first);
        self.0.get(idx).is_some_and(|range| range.0 <= first && last <= range.1)
    }

    pub(crate) fn intersect(&self, other: &DaySet) -> DaySet {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
        DaySet(pairs.filter(|(first, last)| first <= last).collect())
    }

    pub(crate) fn union(&self, other: &DaySet) -> DaySet {
        self.complement().intersect(&other.complement()).complement()
    }

    /// All other days.
    pub(crate) fn complement(&self) -> DaySet {
        let (mut gaps, mut next) = (Vec::new(), Some(i32::MIN));
        for (first, last) in &self.0 {
            if let Some(gap_first) = next.filter(|next| next < first) {
                gaps.push((gap_first, first - 1));
            }
            next = last.checked_add(1);
        }
        gaps.extend(next.map(|first| (first, i32::MAX)));
        DaySet(gaps)
    }

    /// `column` lies in the set; none when every day does.
    pub(crate) fn filter(&self, column: &str) -> Option<Expr> {
        let day = |day: i32| lit(ScalarValue::Date32(Some(day)));
        let within = |&(first, last): &(i32, i32)| match (first, last) {
            (first, last) if first == last => col(column).eq(day(first)),
            (i32::MIN, last) => col(column).lt_eq(day(last)),
            (first, i32::MAX) => col(column).gt_eq(day(first)),
            (first, last) => col(column).gt_eq(day(first)).and(col(column).lt_eq(day(last))),
        };
        match self.is_all() {
            true => None,
            false => Some(self.0.iter().map(within).reduce(Expr::or).unwrap_or_else(|| lit(false))),
        }
    }
}

impl std::fmt::Display for DaySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = |day: i32| match ScalarValue::Date32(Some(day)) {
            _ if day == i32::MIN || day == i32::MAX => String::new(),
            day => day.to_string(),
        };
        f.write_str("[")?;
        for (idx, (first, last)) in self.0.iter().enumerate() {
            let separator = if idx == 0 { "" } else { ", " };
            match first == last {
                true => write!(f, "{separator}{}", end(*first))?,
                false => write!(f, "{separator}{}..{}", end(*first), end(*last))?,
            }
        }
        f.write_str("]")
    }
}

/// The UTC day of a time. Every `i64` of microseconds has a day that fits.
pub(crate) fn day_of_us(time_us: i64) -> i32 {
    time_us.div_euclid(DAY_US) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn sets() -> impl Strategy<Value = DaySet> {
        prop::collection::vec((-8..8_i32, 0..4_i32), 0..5).prop_map(|ranges| {
            let ranges = ranges.into_iter().map(|(first, n)| DaySet::range(first, first + n));
            ranges.fold(DaySet::none(), |all, range| all.union(&range))
        })
    }

    fn ends() -> impl Strategy<Value = DaySet> {
        (sets(), 0..4).prop_map(|(set, ends)| match ends {
            0 => set.union(&DaySet::range(i32::MIN, -7)),
            1 => set.union(&DaySet::range(6, i32::MAX)),
            2 => set.complement(),
            _ => set,
        })
    }

    proptest! {
        #[test]
        fn sets_are_what_their_days_say(a in ends(), b in ends()) {
            let (both, either, others) = (a.intersect(&b), a.union(&b), a.complement());
            for day in (-20..20).chain([i32::MIN, i32::MAX]) {
                prop_assert_eq!(both.contains(day), a.contains(day) && b.contains(day));
                prop_assert_eq!(either.contains(day), a.contains(day) || b.contains(day));
                prop_assert_eq!(others.contains(day), !a.contains(day));
            }
            for (first, last) in (-20..20).flat_map(|first| (first..20).map(move |last| (first, last))) {
                prop_assert_eq!(a.contains_range(first, last), (first..=last).all(|day| a.contains(day)));
            }
            for set in [both, either, others] {
                prop_assert!(set.0.iter().all(|(first, last)| first <= last));
                prop_assert!(set.0.windows(2).all(|pair| pair[0].1 < pair[1].0 - 1), "{:?}", set);
            }
        }
    }

    #[test]
    fn times_before_1970_have_days_too() {
        assert_eq!((day_of_us(-1), day_of_us(0), day_of_us(DAY_US - 1), day_of_us(DAY_US)), (-1, 0, 0, 1));
        assert!(DaySet::of_times(i64::MIN, i64::MAX).contains(day_of_us(i64::MIN)));
        assert_eq!(DaySet::of_times(1, 0), DaySet::none());
    }

    #[test]
    fn a_set_reads_as_dates_and_filters() {
        let set = DaySet::range(0, 0).union(&DaySet::range(10, 20)).union(&DaySet::range(30, i32::MAX));
        assert_eq!(set.to_string(), "[1970-01-01, 1970-01-11..1970-01-21, 1970-01-31..]");
        assert_eq!(DaySet::all().filter("day"), None);
        assert_eq!(DaySet::none().filter("day"), Some(lit(false)));
    }
}
