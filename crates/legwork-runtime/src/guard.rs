//! The guard before the operators: events from the future, and events too old, are rejected and move no clock.

use legwork_types::RejectReason;

/// 1980-01-06, when the time of GPS begins. What claims to be older is from a clock that was never set, or in seconds or milliseconds where
/// microseconds are expected.
pub(crate) const EARLIEST_US: i64 = 315_964_800_000_000;

/// Bounds of event time around arrival, microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    pub(crate) future_skew_us_max: i64,
    pub(crate) past_us_max: Option<i64>,
}

impl Guard {
    /// Rows outside the bounds, ascending, with their reason. *Shape:* both slices have N values.
    pub(crate) fn check(&self, event_time_us: &[i64], arrival_us: &[i64]) -> Vec<(u32, RejectReason)> {
        let past_us_max = self.past_us_max.unwrap_or(i64::MAX);
        let age = |row: usize| arrival_us[row].saturating_sub(event_time_us[row]);
        let is_near = |row: usize| -self.future_skew_us_max <= age(row) && age(row) <= past_us_max;
        let is_good = |row: usize| is_near(row) && event_time_us[row] >= EARLIEST_US;
        (0..event_time_us.len())
            .filter(|&row| !is_good(row))
            .map(|row| {
                let reason = if age(row) < 0 { RejectReason::FromFuture } else { RejectReason::TooOld };
                (u32::try_from(row).expect("a batch has fewer than 2^32 rows"), reason)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_extremes_do_not_overflow() {
        let guard = Guard { future_skew_us_max: 5, past_us_max: Some(10) };
        let now_us = EARLIEST_US + 100;
        let times = [now_us, now_us + 5, now_us + 6, now_us - 10, now_us - 11, i64::MIN, i64::MAX];
        let found = guard.check(&times, &[now_us; 7]);
        let reasons: Vec<_> = found.iter().map(|(row, reason)| (*row, reason.as_str())).collect();
        assert_eq!(reasons, [(2, "from_future"), (4, "too_old"), (5, "too_old"), (6, "from_future")]);
    }

    #[test]
    fn files_have_no_past_limit_but_that_of_clocks() {
        let guard = Guard { future_skew_us_max: 5, past_us_max: None };
        let times = [EARLIEST_US, EARLIEST_US - 1, 0, 1_224_741_185, -62_135_596_800_000_000];
        let found = guard.check(&times, &[1_700_000_000_000_000; 5]);
        assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(found.iter().all(|(_, reason)| *reason == RejectReason::TooOld));
    }
}
