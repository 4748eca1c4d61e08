//! Which fixes stand, and which of them are stays and trips.

use legwork_types::time::window_start;

use crate::track::fold::state::{Break, Fix, Leap, Pending, Track, TripState};
use crate::track::fold::{Decision, Journal, Params, Share};
use crate::track::ping::Ping;
use crate::track::rows::{Cluster, DeviceRows, Row};

/// A receiver that lost its signal shows where it is again by a leap of at most this, metres: a kilometre and a half is what one drives in
/// a minute's tunnel.
const LEAP_M_MAX: f64 = 5_000.0;

/// A leg of travel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    pub(super) metres: f64,
    pub(super) us: i64,
    /// Metres of an earlier leap that count now.
    pub(super) leap_m: Option<f64>,
    /// Whether it leads out of reach of its cluster.
    pub(super) leaves: bool,
}

/// A kept fix being read.
pub(super) struct Keep<'a, J> {
    pub(super) params: &'a Params,
    pub(super) track: &'a mut Track,
    pub(super) rows: &'a mut DeviceRows,
    /// The ping's own row; the others are in `rows`.
    pub(super) row: &'a mut Row,
    pub(super) revision: u32,
    pub(super) journal: &'a mut J,
}

impl<J: Journal> Keep<'_, J> {
    #[inline]
    pub(super) fn fix(&mut self, ping: &Ping, fix: Fix, raw_leg: Option<f64>) {
        if let Some(pending) = self.track.pending.take() {
            let out_m = pending.fix.place.distance_m(&fix.place);
            if self.params.is_impossible(out_m, fix.time_us - pending.fix.time_us) {
                self.reject(&pending);
            } else {
                self.break_off(pending.fix, &pending.leg);
            }
        }
        let leg_us = fix.time_us - self.track.last.time_us;
        let leg_m = raw_leg.unwrap_or_else(|| self.track.last.place.distance_m(&fix.place));
        let is_impossible = self.params.is_impossible(leg_m, leg_us);
        if is_impossible || leg_us > self.params.track.gap_max_us {
            let from_centre_m = self.track.cluster.centre.distance_m(&fix.place);
            let radius_m = self.params.track.stay_radius_m;
            let is_near = leg_m <= radius_m || (self.track.is_stay && from_centre_m <= radius_m);
            let reach_m = self.params.reach_m(ping);
            let leg = Break { leg_us, is_near, from_centre_m, reach_m, is_gap: !is_impossible };
            let gap_m_before = self.keep_apart(leg_m, &leg);
            if is_impossible {
                self.track.pending = Some(Box::new(Pending { fix, leg, gap_m_before }));
            } else {
                self.break_off(fix, &leg);
            }
        } else {
            self.go_on(ping, fix, leg_m, leg_us);
        }
    }

    /// Looks at a row that was opened when one of its pings was read.
    #[inline]
    pub(super) fn row<T>(&mut self, window_us: i64, rep: u32, look: impl FnOnce(&mut Row) -> T) -> T {
        if (self.row.window_us, self.row.rep) == (window_us, rep) {
            return look(self.row);
        }
        let row_idx = self.rows.position(window_us, rep).expect("a ping's row was opened when the ping was read");
        let mut row = self.rows.load(row_idx);
        let seen = look(&mut row);
        self.rows.store(row_idx, &row);
        seen
    }

    #[inline]
    pub(super) fn window_us(&self, fix: &Fix) -> i64 {
        window_start(fix.time_us, self.params.window_us)
    }

    /// Writes a leg that is no travel; gives the row's gap before it.
    fn keep_apart(&mut self, leg_m: f64, leg: &Break) -> f64 {
        let row = &mut *self.row;
        let gap_m_before = row.rare.gap_m;
        let mut share = Share::default();
        if leg.is_near {
            row.still_us += leg.leg_us;
            share.still_us = leg.leg_us;
        } else {
            // An impossible leg within a short time was travelled by nobody: its chord is no gap either.
            share.gap_m = if leg.leg_us > self.params.track.gap_max_us { leg_m } else { 0.0 };
            share.gap_us = leg.leg_us;
            row.rare.gap_m += share.gap_m;
            row.rare.gap_us += leg.leg_us;
        }
        self.journal.decided(Decision::Gap, share, leg.leg_us);
        gap_m_before
    }

    /// Takes an outlier back.
    fn reject(&mut self, pending: &Pending) {
        let (revision, window_us) = (self.revision, self.window_us(&pending.fix));
        self.row(window_us, pending.fix.rep, |row| {
            if pending.leg.is_near {
                row.still_us -= pending.leg.leg_us;
            } else {
                row.rare.gap_m = pending.gap_m_before;
                row.rare.gap_us -= pending.leg.leg_us;
            }
            row.rare.n_filtered_speed += 1;
            row.revision = revision;
        });
        self.journal.rejected(pending.fix.time_us);
    }

    /// Moves on over a leg that is no travel and is written already.
    fn break_off(&mut self, fix: Fix, leg: &Break) {
        if !leg.is_near {
            let leap = self.leap(&fix, leg);
            self.end_travel();
            *self.track = Track::new(fix);
            self.track.leap = leap.map(Box::new);
            self.journal.still(fix.time_us);
            return;
        }
        if self.track.is_stay {
            self.track.cluster.add(&fix.place, leg.from_centre_m);
            self.track.cluster.centre_on_mean();
        } else {
            let mut from_centre_m = leg.from_centre_m;
            if from_centre_m > leg.reach_m {
                let last = self.track.last;
                self.begin_cluster(last);
                from_centre_m = last.place.distance_m(&fix.place);
            }
            self.track.cluster.add(&fix.place, from_centre_m);
            self.track.trip.n_pings += 1;
        }
        self.stand_over(fix, leg.is_gap);
        self.track.last = fix;
        if leg.is_gap && !self.track.is_stay {
            self.recognise(&fix);
        }
    }

    /// What a leap leaves behind: a new place that may be true, or, when it leads back to where an earlier one came from, nothing.
    fn leap(&self, fix: &Fix, leg: &Break) -> Option<Leap> {
        if leg.is_gap || leg.leg_us > self.params.track.gap_max_us {
            return None;
        }
        let from = match &self.track.leap {
            Some(leap) if self.is_reachable(leap, fix) => return None,
            Some(leap) => leap.from,
            None => self.track.last.point(),
        };
        let chord_m = from.place.distance_m(&fix.place);
        (chord_m <= LEAP_M_MAX).then_some(Leap { from, chord_m })
    }

    /// Whether there was time enough to come to the fix from where the leap began.
    fn is_reachable(&self, leap: &Leap, fix: &Fix) -> bool {
        !self.params.is_impossible(leap.from.place.distance_m(&fix.place), fix.time_us - leap.from.time_us)
    }

    /// Ends the stay or the trip at the last fix.
    fn end_travel(&mut self) {
        let track = &self.track;
        if track.is_stay {
            self.rows.push_stay(track.cluster.stay(track.last.time_us, true));
        } else if track.trip.distance_m > 0.0 {
            self.rows.push_trip(track.trip.row(track.last.time_us, false));
        }
    }

    /// A fix reached by travel, or while the device stays.
    #[inline]
    fn go_on(&mut self, ping: &Ping, fix: Fix, leg_m: f64, leg_us: i64) {
        let from_centre_m = self.track.cluster.centre.distance_m(&fix.place);
        let leaves = from_centre_m > self.params.reach_m(ping);
        let was_stay = self.track.is_stay;
        if was_stay && leaves {
            self.end_travel();
            self.track.trip = TripState::new(self.track.last);
            self.track.is_stay = false;
        }
        if !self.track.is_stay {
            self.track.trip.n_pings += 1;
        }
        let leap_m = self.confirmed_leap_m(&fix);
        let leg = Leg { metres: leg_m, us: leg_us, leap_m, leaves };
        self.measure(ping, &fix, &leg);
        if leaves {
            self.begin_cluster(fix);
        } else {
            self.track.cluster.add(&fix.place, from_centre_m);
            if was_stay {
                self.track.cluster.centre_on_mean();
            }
        }
        self.track.last = fix;
        if !was_stay && !leaves {
            self.recognise(&fix);
        }
    }

    /// A leap that turns out to be true: the device has been on its far side for long enough to have got there.
    #[inline]
    fn confirmed_leap_m(&mut self, fix: &Fix) -> Option<f64> {
        let leap = self.track.leap.as_deref()?;
        if !self.is_reachable(leap, fix) {
            return None;
        }
        self.track.leap.take().map(|leap| leap.chord_m)
    }

    /// What begins at a fix is a cluster until it has lasted.
    fn begin_cluster(&mut self, fix: Fix) {
        let track = &mut *self.track;
        track.cluster = Cluster::new(fix.time_us, fix.rep, fix.place);
        track.trip.distance_m_then = track.trip.distance_m;
        track.trip.n_pings_then = track.trip.n_pings;
    }

    /// Makes the cluster a stay once it has lasted.
    #[inline]
    fn recognise(&mut self, fix: &Fix) {
        let track = &mut *self.track;
        if fix.time_us - track.cluster.start_us < self.params.track.stay_min_us {
            return;
        }
        track.is_stay = true;
        track.cluster.centre_on_mean();
        let trip = track.trip;
        track.trip =
            TripState { start_us: track.cluster.start_us, n_pings: 0, n_pings_then: 0, ..TripState::new(*fix) };
        if trip.distance_m_then > 0.0 {
            let ended = TripState { distance_m: trip.distance_m_then, n_pings: trip.n_pings_then, ..trip };
            self.rows.push_trip(ended.row(track.cluster.start_us, false));
        }
    }
}
