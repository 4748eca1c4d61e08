//! The guard before the operators: events from the future, and events too old, are rejected and move no clock.

use legwork_types::RejectReason;

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
        let is_good = |row: usize| -self.future_skew_us_max <= age(row) && age(row) <= past_us_max;
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
        let times = [100, 105, 106, 90, 89, i64::MIN, i64::MAX];
        let found = guard.check(&times, &[100; 7]);
        let reasons: Vec<_> = found.iter().map(|(row, reason)| (*row, reason.as_str())).collect();
        assert_eq!(reasons, [(2, "from_future"), (4, "too_old"), (5, "too_old"), (6, "from_future")]);
    }

    #[test]
    fn files_have_no_past_limit() {
        let guard = Guard { future_skew_us_max: 5, past_us_max: None };
        assert!(guard.check(&[-4_000_000_000_000_000], &[1_700_000_000_000_000]).is_empty());
    }
}
