//! How a car gets from here to there: bends, speed limits, red lights, and never a jump.

use crate::dice::Dice;
use crate::world::Place;

/// Longest step of the integration, seconds.
const STEP_S: f64 = 3.0;
/// Ordinary acceleration and braking, metres per second squared.
const SPEED_UP_MPS2: f64 = 1.8;
const BRAKE_MPS2: f64 = 2.2;
/// Speed through a bend, metres per second.
const BEND_MPS: f64 = 6.0;
/// From this distance on the road leads straight to the door, metres.
const LAST_LEG_M: f64 = 350.0;

/// Where a rep is and how fast, on a plane around the hub.
#[derive(Clone, Debug, Default)]
pub(crate) struct Motion {
    pub(crate) x_m: f64,
    pub(crate) y_m: f64,
    pub(crate) speed_mps: f64,
    /// Degrees clockwise from north.
    pub(crate) course_deg: f64,
    /// Distance driven since the start, metres.
    pub(crate) driven_m: f64,
    /// Up to when this is worked out.
    pub(crate) at_us: i64,
    destination: Place,
    waypoint: Place,
    trip_m: f64,
    limit_mps: f64,
    red_light_s: f64,
    is_under_way: bool,
}

impl Motion {
    pub(crate) fn parked(place: Place, at_us: i64) -> Motion {
        Motion { x_m: f64::from(place.x_m), y_m: f64::from(place.y_m), at_us, ..Motion::default() }
    }

    pub(crate) fn place(&self) -> Place {
        Place { x_m: self.x_m as f32, y_m: self.y_m as f32 }
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// Sets out for a place.
    pub(crate) fn set_out(&mut self, destination: Place, dice: &mut Dice) {
        self.destination = destination;
        self.trip_m = self.place().distance_m(destination);
        self.is_under_way = true;
        self.next_waypoint(dice);
    }

    /// Moves on to `now_us`. Earlier moments change nothing.
    pub(crate) fn advance(&mut self, now_us: i64, dice: &mut Dice) {
        let mut left_s = (now_us - self.at_us) as f64 / 1e6;
        if left_s <= 0.0 {
            return;
        }
        self.at_us = now_us;
        while self.is_under_way && left_s > 0.0 {
            let step_s = left_s.min(STEP_S);
            left_s -= step_s;
            self.step(step_s, dice);
        }
    }

    fn step(&mut self, step_s: f64, dice: &mut Dice) {
        if self.red_light_s > 0.0 {
            self.red_light_s -= step_s;
            self.speed_mps = 0.0;
            return;
        }
        let (dx, dy) = (f64::from(self.waypoint.x_m) - self.x_m, f64::from(self.waypoint.y_m) - self.y_m);
        let left_m = dx.hypot(dy);
        let is_last = self.waypoint == self.destination;
        let corner_mps = if is_last { 1.0 } else { BEND_MPS };
        let wanted_mps = self.limit_mps.min((corner_mps * corner_mps + 2.0 * BRAKE_MPS2 * left_m).sqrt());
        let change_mps = (wanted_mps - self.speed_mps).clamp(-2.0 * BRAKE_MPS2 * step_s, SPEED_UP_MPS2 * step_s);
        self.speed_mps = (self.speed_mps + change_mps).max(1.0);
        let step_m = (self.speed_mps * step_s).min(left_m);
        if left_m > 0.0 {
            self.x_m += dx / left_m * step_m;
            self.y_m += dy / left_m * step_m;
            self.course_deg = dx.atan2(dy).to_degrees().rem_euclid(360.0);
            self.driven_m += step_m;
        }
        if step_m >= left_m {
            self.reach_waypoint(is_last, dice);
        }
    }

    fn reach_waypoint(&mut self, is_last: bool, dice: &mut Dice) {
        (self.x_m, self.y_m) = (f64::from(self.waypoint.x_m), f64::from(self.waypoint.y_m));
        if is_last {
            self.is_under_way = false;
            self.speed_mps = 0.0;
            return;
        }
        if dice.chance(0.15) {
            self.red_light_s = dice.between(8.0, 55.0);
        }
        self.next_waypoint(dice);
    }

    /// Picks the next bend: roughly towards the destination, as roads go; faster in the middle of a long trip.
    fn next_waypoint(&mut self, dice: &mut Dice) {
        let here = self.place();
        let left_m = here.distance_m(self.destination);
        let is_country_road = left_m > 3_000.0 && self.trip_m - left_m > 2_500.0;
        self.limit_mps = if is_country_road { dice.between(17.0, 31.0) } else { dice.between(8.0, 15.0) };
        if left_m < LAST_LEG_M {
            self.waypoint = self.destination;
            return;
        }
        let leg_m = 100.0 + dice.between(0.2, 0.6) * left_m.min(2_500.0);
        let straight = f64::from(self.destination.x_m - here.x_m).atan2(f64::from(self.destination.y_m - here.y_m));
        let bearing = straight + 0.3 * dice.normal();
        self.waypoint =
            Place { x_m: here.x_m + (leg_m * bearing.sin()) as f32, y_m: here.y_m + (leg_m * bearing.cos()) as f32 };
    }
}

#[cfg(test)]
mod tests {
    use legwork_types::time::{MINUTE_US, SECOND_US};

    use super::*;

    #[test]
    fn a_drive_arrives_without_a_jump_and_is_longer_than_the_crow_flies() {
        let mut dice = Dice::new(3, 0);
        for _ in 0..200 {
            let mut motion = Motion::parked(Place::default(), 0);
            let there = Place { x_m: dice.between(-2e4, 2e4) as f32, y_m: dice.between(-2e4, 2e4) as f32 };
            let crow_m = motion.place().distance_m(there);
            motion.set_out(there, &mut dice);
            let mut now_us = 0;
            while motion.is_under_way() {
                let (before, driven_m) = (motion.place(), motion.driven_m);
                now_us += 15 * SECOND_US;
                motion.advance(now_us, &mut dice);
                assert!(before.distance_m(motion.place()) <= 15.0 * 35.0);
                assert!(motion.driven_m >= driven_m);
                assert!(now_us < 240 * MINUTE_US, "never arrives");
            }
            assert_eq!(motion.place(), there);
            assert!(motion.driven_m >= crow_m * 0.999 && motion.driven_m < crow_m * 1.6 + 200.0);
        }
    }

    #[test]
    fn the_past_changes_nothing() {
        let mut dice = Dice::new(3, 0);
        let mut motion = Motion::parked(Place::default(), 100);
        motion.set_out(Place { x_m: 900.0, y_m: 0.0 }, &mut dice);
        motion.advance(50, &mut dice);
        assert_eq!((motion.at_us, motion.x_m), (100, 0.0));
    }
}
