//! What each kept fix adds: metres and seconds, moving or not.

use crate::track::fold::keep::{Keep, Leg};
use crate::track::fold::state::{Fix, Pace, Tail};
use crate::track::fold::still::{Run, Still, Way};
use crate::track::fold::{Decision, Journal, Share};
use crate::track::ping::Ping;
use crate::track::place::Offset;

/// A leg that counts took at least so long, microseconds: of fixes a second apart, noise is as long as the way.
const LEG_US_MIN: i64 = 3_000_000;

impl<J: Journal> Keep<'_, J> {
    /// Counts what the fix adds.
    #[inline]
    pub(super) fn measure(&mut self, ping: &Ping, fix: &Fix, leg: &Leg) {
        match self.track.pace {
            Pace::Stands { run, path_m } => self.stands(ping, fix, leg, (run, path_m)),
            Pace::Moves(way) => self.moves(ping, fix, leg, way),
        }
    }

    /// Adds to what is counted in the fix's row, and in its trip.
    #[inline]
    fn add_metres(&mut self, distance_m: f64) {
        self.row.distance_m += distance_m;
        if !self.track.is_stay {
            self.track.trip.distance_m += distance_m;
        }
    }

    /// A fix while the device stands still: within the noise, or out of it without leaving, or on the way out.
    #[inline]
    fn stands(&mut self, ping: &Ping, fix: &Fix, leg: &Leg, (mut run, mut path_m): (Run, f64)) {
        let leap_m = leg.leap_m.unwrap_or_default();
        let still = &mut self.track.still;
        let offset = still.first.place.offset(&fix.place);
        let from_centre_m = still.centre_distance_m(&offset);
        let reach_m = self.params.reach_m(ping);
        if from_centre_m <= still.core_m(self.params.gate_m(ping)).min(reach_m) {
            run = Run::default();
        } else {
            run.push(self.track.last.place.offset(&fix.place));
            path_m = if run.n_legs() == 1 { from_centre_m } else { path_m + leg.metres };
            let is_departure = run.is_departure();
            if is_departure || from_centre_m > reach_m {
                let chord_m = still.centre().distance_m(&fix.place);
                let distance_m = if is_departure { chord_m.max(path_m) } else { chord_m } + leap_m;
                self.row.moving_us += leg.us;
                self.add_metres(distance_m);
                let share = Share { distance_m, moving_us: leg.us, ..Share::default() };
                self.journal.decided(Decision::Counted, share, leg.us);
                self.move_on(*fix);
                return;
            }
        }
        still.add(offset, leg.metres);
        self.track.pace = Pace::Stands { run, path_m };
        self.row.still_us += leg.us;
        self.add_metres(leap_m);
        let share = Share { distance_m: leap_m, still_us: leg.us, ..Share::default() };
        self.journal.decided(Decision::Stay, share, leg.us);
    }

    /// A fix while the device moves, or has not stood still for long.
    #[inline]
    fn moves(&mut self, ping: &Ping, fix: &Fix, leg: &Leg, mut way: Way) {
        let point = fix.point();
        way.push(&self.track.last.point(), &point, self.track.last.place.offset(&fix.place));
        let offset = self.track.still.first.place.offset(&fix.place);
        // What is taken back should the device turn out to stand still must not reach into the trip that ends where a stay begins.
        self.track.still.is_over |= leg.leaves || offset.length_m() > self.params.reach_m(ping);
        let chord_m = way.anchor.place.distance_m(&fix.place);
        let since_us = fix.time_us - way.anchor.time_us;
        let is_movement = chord_m > self.params.gate_m(ping) && since_us >= LEG_US_MIN;
        self.tail(fix).own_us += leg.us;
        if is_movement || leg.leap_m.is_some() {
            let distance_m = way.length_m(&point, chord_m) + leg.leap_m.unwrap_or_default();
            self.count(fix, distance_m, leg.us, way.anchor.time_us);
            if self.track.still.is_over || leg.leap_m.is_some() {
                self.move_on(*fix);
                return;
            }
            way = Way::new(point);
        } else {
            self.row.still_us += leg.us;
            self.tail(fix).inner_us += leg.us;
            self.journal.decided(Decision::Jitter, Share { still_us: leg.us, ..Share::default() }, leg.us);
        }
        self.track.pace = Pace::Moves(way);
        self.track.still.add(offset, leg.metres);
        self.judge(ping, fix, &offset, since_us);
    }

    /// Whether the device stands still by now, or its fixes are those of another place.
    #[inline]
    fn judge(&mut self, ping: &Ping, fix: &Fix, offset: &Offset, since_us: i64) {
        let (still, stay_min_us) = (&self.track.still, self.params.track.stay_min_us);
        if still.is_over {
            // It came out of reach and counts no more.
            if since_us >= stay_min_us {
                self.move_on(*fix);
            }
            return;
        }
        let lasted_us = fix.time_us - still.first.time_us;
        if lasted_us < stay_min_us {
            return;
        }
        let gate_m = self.params.gate_m(ping);
        if still.is_still(still.centre_distance_m(offset), gate_m) {
            self.stand(gate_m);
        } else if lasted_us >= 2 * stay_min_us {
            self.move_on(*fix);
        }
    }

    /// Counts metres, with all the time since the anchor, which is the fix now.
    #[inline]
    fn count(&mut self, fix: &Fix, distance_m: f64, leg_us: i64, anchor_us: i64) {
        let revision = self.revision;
        if let Some(tail) = self.track.tail.now.filter(|tail| tail.inner_us != 0) {
            self.row(tail.window_us, tail.rep, |row| {
                row.still_us -= tail.inner_us;
                row.revision = revision;
            });
        }
        for tail_idx in 0..self.track.tail.n_earlier_with_inner() {
            let Tail { window_us, rep, inner_us, .. } = self.track.tail.earlier[tail_idx];
            if inner_us != 0 {
                self.row(window_us, rep, |row| {
                    row.still_us -= inner_us;
                    row.revision = revision;
                });
            }
        }
        self.track.tail.settle();
        let moving_us = fix.time_us - anchor_us;
        self.row.moving_us += moving_us;
        self.add_metres(distance_m);
        let share = Share { distance_m, moving_us, ..Share::default() };
        self.journal.decided(Decision::Counted, share, leg_us);
        self.journal.counted();
    }

    /// What to restore in the fix's row should the device turn out to stand still.
    #[inline]
    fn tail(&mut self, fix: &Fix) -> &mut Tail {
        let window_us = self.window_us(fix);
        let is_now = |tail: &Tail| tail.window_us == window_us && tail.rep == fix.rep;
        if !self.track.tail.now.as_ref().is_some_and(is_now) {
            let held = self.track.tail.earlier.iter().position(is_now);
            let tail = match held {
                Some(tail_idx) => self.track.tail.earlier.remove(tail_idx),
                None => self.row(window_us, fix.rep, |row| Tail {
                    window_us,
                    rep: row.rep,
                    distance_m: row.distance_m,
                    moving_us: row.moving_us,
                    still_us: row.still_us,
                    own_us: 0,
                    inner_us: 0,
                }),
            };
            self.track.tail.turn_to(tail);
        }
        self.track.tail.now.as_mut().expect("the tail has turned to the row")
    }

    /// The device has moved on to this fix.
    fn move_on(&mut self, fix: Fix) {
        let track = &mut *self.track;
        track.still = Still::new(fix.point());
        track.pace = Pace::Moves(Way::new(fix.point()));
        track.tail.clear();
        track.trip.distance_m_moving = track.trip.distance_m;
        self.journal.still(fix.time_us);
    }

    /// The device stands still: what was counted since the first fix was jitter, but for the way from there to where it stands.
    fn stand(&mut self, gate_m: f64) {
        let revision = self.revision;
        for tail in std::mem::take(&mut self.track.tail).all() {
            let (distance_m, moving_us, still_us) = (tail.distance_m, tail.moving_us, tail.still_us + tail.own_us);
            self.row(tail.window_us, tail.rep, |row| {
                if (row.distance_m, row.moving_us, row.still_us) != (distance_m, moving_us, still_us) {
                    (row.distance_m, row.moving_us, row.still_us) = (distance_m, moving_us, still_us);
                    row.revision = revision;
                }
            });
        }
        let approach_m = Some(self.track.still.approach_m()).filter(|approach_m| *approach_m > gate_m);
        self.track.trip.distance_m = self.track.trip.distance_m_moving;
        self.add_metres(approach_m.unwrap_or_default());
        self.track.pace = Pace::Stands { run: Run::default(), path_m: 0.0 };
        self.journal.stands(approach_m.unwrap_or_default());
    }

    /// A leg that is no travel ends where the device was.
    pub(super) fn stand_over(&mut self, fix: Fix, is_gap: bool) {
        let track = &mut *self.track;
        let offset = track.still.first.place.offset(&fix.place);
        let stands = matches!(track.pace, Pace::Stands { .. });
        if stands && track.still.centre_distance_m(&offset) <= self.params.track.stay_radius_m {
            track.still.add(offset, 0.0);
        } else if is_gap {
            // Longer than it takes to be a stay.
            track.still = Still::new(track.last.point());
            track.still.add(track.still.first.place.offset(&fix.place), 0.0);
        } else {
            self.move_on(fix);
            return;
        }
        track.tail.clear();
        track.pace = Pace::Stands { run: Run::default(), path_m: 0.0 };
    }
}
