//! Event time and tumbling windows. All times are microseconds since 1970-01-01 UTC.

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE_US: i64 = 60 * SECOND_US;
/// Microseconds in an hour.
pub const HOUR_US: i64 = 60 * MINUTE_US;
/// Microseconds in a day.
pub const DAY_US: i64 = 24 * HOUR_US;

/// Start of the tumbling window that `event_time_us` falls in. Windows are aligned to the epoch; start inclusive, end exclusive;
/// times before the epoch round down too. `width_us` is positive.
#[inline]
pub const fn window_start(event_time_us: i64, width_us: i64) -> i64 {
    event_time_us - event_time_us.rem_euclid(width_us)
}

/// How the operators treat time; the section `[time]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeConfig {
    /// Width of the fact window.
    pub window_us: i64,
    /// By how much a key's clock must have passed a window's end before it closes.
    pub reorder_bound_us: i64,
    /// By how much the lane's clock must have advanced since a key's last event before its windows close.
    pub idle_close_us: i64,
    /// How far behind its key's clock an event is still corrected rather than kept apart as late.
    pub late_horizon_us: i64,
}

impl Default for TimeConfig {
    fn default() -> TimeConfig {
        TimeConfig {
            window_us: 5 * MINUTE_US,
            reorder_bound_us: 2 * MINUTE_US,
            idle_close_us: 30 * MINUTE_US,
            late_horizon_us: 7 * DAY_US,
        }
    }
}

/// A lane's clock as it stands after some batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneClock {
    /// Newest guarded event time of the lane; `i64::MIN` before the first event.
    pub newest_us: i64,
    /// Number of the lane's checkpoint that will hold what changes now; goes into `revision`.
    pub revision: u32,
    /// The input is bounded and has ended: every window is closed.
    pub ended: bool,
}

impl LaneClock {
    /// The clock of a lane that has read nothing.
    pub const START: LaneClock = LaneClock { newest_us: i64::MIN, revision: 0, ended: false };

    /// Whether a window that ends at `window_end_us` is open for a key whose clock is `key_clock_us` and whose last event was read
    /// when the lane's clock was `lane_then_us`.
    #[inline]
    pub const fn is_open(&self, time: &TimeConfig, window_end_us: i64, key_clock_us: i64, lane_then_us: i64) -> bool {
        !self.ended
            && key_clock_us < window_end_us.saturating_add(time.reorder_bound_us)
            && self.newest_us.saturating_sub(lane_then_us) < time.idle_close_us
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_holds_its_event_and_is_aligned(t in -4_000_000_000_000_000i64..4_000_000_000_000_000, width in 1i64..DAY_US) {
            let start = window_start(t, width);
            prop_assert!(start <= t && t < start + width);
            prop_assert_eq!(start.rem_euclid(width), 0);
        }
    }

    #[test]
    fn a_window_closes_by_its_key_by_the_lane_or_by_the_end() {
        let time = TimeConfig::default();
        let clock = |newest_us| LaneClock { newest_us, ..LaneClock::START };
        let end = 5 * MINUTE_US;
        assert!(clock(end).is_open(&time, end, end, end));
        assert!(!clock(end + 2 * MINUTE_US).is_open(&time, end, end + 2 * MINUTE_US, end + 2 * MINUTE_US));
        assert!(!clock(end + 30 * MINUTE_US).is_open(&time, end, end, end));
        assert!(!LaneClock { ended: true, ..clock(end) }.is_open(&time, end, end, end));
    }
}
