//! Time lapse: where simulated time stands at a moment of wall time. Clocks are passed in.

/// Simulated time, microseconds, at `wall_now_us`: it starts at `start_sim_us` when the wall clock shows `start_wall_us`, runs `speed`
/// times as fast and, once it has caught up with the wall clock, goes with it. Never later than `wall_now_us`, and never falling
/// while `wall_now_us` does not.
pub fn simulated_now(start_sim_us: i64, start_wall_us: i64, speed: f64, wall_now_us: i64) -> i64 {
    let elapsed_us = wall_now_us.saturating_sub(start_wall_us).max(0);
    // A float cast saturates; NaN becomes 0 and time stands still.
    let lapsed_us = (elapsed_us as f64 * speed.max(0.0)) as i64;
    start_sim_us.saturating_add(lapsed_us).min(wall_now_us)
}

/// Wall time at which simulated time catches up, microseconds. None when it never does: `speed` is at most 1 and it starts behind.
pub fn caught_up_at(start_sim_us: i64, start_wall_us: i64, speed: f64) -> Option<i64> {
    let behind_us = start_wall_us.saturating_sub(start_sim_us);
    if behind_us <= 0 {
        return Some(start_wall_us);
    }
    (speed > 1.0).then(|| start_wall_us.saturating_add((behind_us as f64 / (speed - 1.0)).ceil() as i64))
}

#[cfg(test)]
mod tests {
    use legwork_types::time::{HOUR_US, MINUTE_US, SECOND_US};
    use proptest::prelude::*;

    use super::*;

    const WALL: i64 = 1_800_000_000 * SECOND_US;

    #[test]
    fn starts_in_the_past_and_falls_to_the_pace_of_the_wall_clock() {
        let now = |wall_us| simulated_now(WALL - HOUR_US, WALL, 61.0, wall_us);
        assert_eq!(now(WALL), WALL - HOUR_US);
        assert_eq!(now(WALL + 30 * SECOND_US), WALL - HOUR_US + 1830 * SECOND_US);
        assert_eq!(caught_up_at(WALL - HOUR_US, WALL, 61.0), Some(WALL + MINUTE_US));
        assert_eq!(now(WALL + MINUTE_US), WALL + MINUTE_US);
        assert_eq!(now(WALL + HOUR_US), WALL + HOUR_US);
    }

    #[test]
    fn a_slow_or_senseless_speed_never_catches_up() {
        assert_eq!(caught_up_at(WALL - HOUR_US, WALL, 1.0), None);
        assert_eq!(caught_up_at(WALL, WALL, 1.0), Some(WALL));
        assert_eq!(simulated_now(WALL - HOUR_US, WALL, 1.0, WALL + HOUR_US), WALL);
        assert_eq!(simulated_now(WALL - HOUR_US, WALL, f64::NAN, WALL + HOUR_US), WALL - HOUR_US);
        assert_eq!(simulated_now(WALL - HOUR_US, WALL, -3.0, WALL + HOUR_US), WALL - HOUR_US);
        assert_eq!(simulated_now(WALL - HOUR_US, WALL, f64::INFINITY, WALL + 1), WALL + 1);
    }

    proptest! {
        #[test]
        fn never_falls_and_never_passes_the_wall_clock(
            behind_us in -HOUR_US..48 * HOUR_US, speed in 0.0..1e6f64, a in 0..10 * HOUR_US, b in 0..10 * HOUR_US,
        ) {
            let (early, late) = (WALL + a.min(b), WALL + a.max(b));
            let sim = |wall| simulated_now(WALL - behind_us, WALL, speed, wall);
            prop_assert!(sim(early) <= sim(late));
            prop_assert!(sim(late) <= late);
        }
    }
}
