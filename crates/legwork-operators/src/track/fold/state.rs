//! All that the future of a track depends on.

use legwork_types::time::window_start;
use serde::{Deserialize, Serialize};

use crate::track::fold::Params;
use crate::track::fold::still::{Point, Run, Still, Way};
use crate::track::place::Place;
use crate::track::rows::{Cluster, Stay, Trip};

/// A kept fix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Fix {
    pub(super) time_us: i64,
    pub(super) place: Place,
    pub(super) rep: u32,
}

impl Fix {
    #[inline(always)]
    pub(super) fn point(&self) -> Point {
        Point { time_us: self.time_us, place: self.place }
    }
}

/// What a row held when the device may have begun to stand still, and for how long it has been there since.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    pub(super) window_us: i64,
    pub(super) rep: u32,
    pub(super) distance_m: f64,
    pub(super) moving_us: i64,
    pub(super) still_us: i64,
    /// Time of the legs since, each in its own fix's row.
    pub(super) own_us: i64,
    /// The part of `own_us` since the anchor: standing still unless the gate is left.
    pub(super) inner_us: i64,
}

/// The rows of the fixes since the device may have begun to stand still. Mostly one at a time, kept at hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tails {
    /// That of the last fix.
    pub(super) now: Option<Tail>,
    pub(super) earlier: Vec<Tail>,
    /// Whether any of the earlier ones has time since the anchor.
    has_inner: bool,
}

impl Tails {
    pub(super) fn all(&self) -> impl Iterator<Item = &Tail> {
        self.earlier.iter().chain(&self.now)
    }

    pub(super) fn turn_to(&mut self, tail: Tail) {
        self.has_inner |= tail.inner_us != 0;
        if let Some(before) = self.now.replace(tail) {
            self.has_inner |= before.inner_us != 0;
            if self.earlier.len() == self.earlier.capacity() {
                self.earlier.reserve_exact(1);
            }
            self.earlier.push(before);
        }
    }

    pub(super) fn n_earlier_with_inner(&self) -> usize {
        if self.has_inner { self.earlier.len() } else { 0 }
    }

    /// Time since the anchor is taken back already.
    pub(super) fn settle(&mut self) {
        if self.has_inner {
            self.earlier.iter_mut().for_each(|tail| tail.inner_us = 0);
            self.has_inner = false;
        }
        if let Some(now) = &mut self.now {
            now.inner_us = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.now = None;
        self.earlier.clear();
        self.has_inner = false;
    }
}

/// A fix that was reached at an impossible speed: an outlier if it is left at one too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) fix: Fix,
    pub(super) leg: Break,
    /// `gap_m` of its row before it.
    pub(super) gap_m_before: f64,
}

/// A leg that is no travel: it took too long, or was too fast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Break {
    pub(super) leg_us: i64,
    /// Its ends lie within the stay radius: standing still.
    pub(super) is_near: bool,
    /// Distance from the cluster's centre.
    pub(super) from_centre_m: f64,
    /// How far a fix may be from the centre and still belong to the cluster.
    pub(super) reach_m: f64,
    /// Whether it may complete a stay. An impossible leg may not, so that deciding about it later changes nothing.
    pub(super) is_gap: bool,
}

/// A leap of which the other side may turn out to be true.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Leap {
    /// The last fix before it.
    pub(super) from: Point,
    pub(super) chord_m: f64,
}

/// A trip under way, as of now, as of the cluster's first fix, and as of the first fix at which the device may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TripState {
    pub(super) start_us: i64,
    pub(super) rep: u32,
    pub(super) distance_m: f64,
    pub(super) n_pings: u32,
    pub(super) distance_m_then: f64,
    pub(super) n_pings_then: u32,
    pub(super) distance_m_moving: f64,
}

/// Whether the device moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Pace {
    /// Or has not stood still for long enough to tell.
    Moves(Way),
    /// It stands still; the legs since it was last within the noise, and their path, the first from the centre.
    Stands { run: Run, path_m: f64 },
}

/// All that the future depends on, once there is a kept fix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Track {
    /// The last kept fix.
    pub(super) last: Fix,
    pub(super) still: Still,
    pub(super) pace: Pace,
    /// Empty while the device stands.
    pub(super) tail: Tails,
    pub(super) cluster: Cluster,
    pub(super) is_stay: bool,
    pub(super) trip: TripState,
    pub(super) pending: Option<Box<Pending>>,
    pub(super) leap: Option<Box<Leap>>,
}

/// State of the fold after some ping.
/// The ping before the next one, kept or not, is known to the caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The last reading.
    pub(super) odometer_m: Option<f64>,
    pub(super) track: Option<Track>,
}

impl State {
    /// The stay or trip that is not among those that have ended.
    pub(crate) fn under_way(&self) -> (Option<Stay>, Option<Trip>) {
        self.track.as_ref().map_or((None, None), Track::under_way)
    }

    /// Reads a bit of each part.
    #[inline(always)]
    pub(crate) fn touch(&self) -> i64 {
        self.track.as_ref().map_or(0, |track| {
            let ends = track.last.time_us ^ track.still.first.time_us ^ track.trip.start_us ^ track.cluster.start_us;
            let now = track.tail.now.map_or(0, |tail| tail.inner_us);
            let pace = match &track.pace {
                Pace::Moves(way) => way.anchor.time_us,
                Pace::Stands { path_m, .. } => path_m.to_bits() as i64,
            };
            ends ^ now ^ pace ^ i64::from(track.cluster.n_pings) ^ track.cluster.centre.lat.to_bits() as i64
        })
    }

    /// Time and place of the fix of which the next one will say whether it is an outlier.
    pub(crate) fn pending(&self) -> Option<(i64, Place)> {
        let pending = self.track.as_ref().and_then(|track| track.pending.as_ref());
        pending.map(|pending| (pending.fix.time_us, pending.fix.place))
    }

    /// Whether what was decided of the pings before a time stands, whatever comes: they are before all fixes at which the device may turn
    /// out to stand still, and of which the next fix will say whether they are outliers.
    pub(crate) fn is_settled(&self, until_us: i64) -> bool {
        self.track.as_ref().is_none_or(|track| {
            let is_still_open = matches!(track.pace, Pace::Moves(_)) && track.still.first.time_us < until_us;
            let is_pending = track.pending.as_ref().is_some_and(|pending| pending.fix.time_us < until_us);
            !is_still_open && !is_pending
        })
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.track.as_ref().map_or(0, |track| {
            track.tail.earlier.capacity() * size_of::<Tail>()
                + track.pending.as_ref().map_or(0, |_| size_of::<Pending>())
                + track.leap.as_ref().map_or(0, |_| size_of::<Leap>())
        })
    }

    /// First window whose rows may still change, given the time of the last ping.
    pub(crate) fn open_from_us(&self, params: &Params, last_us: i64) -> i64 {
        let last = window_start(last_us, params.window_us);
        let Some(track) = &self.track else { return last };
        let pending = track.pending.as_ref().map_or(last, |p| window_start(p.fix.time_us, params.window_us));
        track.tail.all().map(|tail| tail.window_us).fold(last.min(pending), i64::min)
    }
}

impl Track {
    pub(super) fn new(fix: Fix) -> Track {
        Track {
            last: fix,
            still: Still::new(fix.point()),
            pace: Pace::Moves(Way::new(fix.point())),
            tail: Tails::default(),
            cluster: Cluster::new(fix.time_us, fix.rep, fix.place),
            is_stay: false,
            trip: TripState::new(fix),
            pending: None,
            leap: None,
        }
    }

    /// The stay or trip under way, given the fix that is pending counts.
    fn under_way(&self) -> (Option<Stay>, Option<Trip>) {
        let last_us = self.last.time_us;
        let mut cluster = self.cluster;
        let mut trip = self.trip;
        let (end_us, is_open) = match &self.pending {
            None => (last_us, true),
            Some(pending) if !pending.leg.is_near => (last_us, false),
            Some(pending) => {
                cluster.add(&pending.fix.place, pending.leg.from_centre_m);
                cluster.centre_on_mean();
                trip.n_pings += 1;
                (pending.fix.time_us, true)
            }
        };
        if self.is_stay {
            (Some(cluster.stay(end_us, !is_open)), None)
        } else {
            (None, (trip.distance_m > 0.0).then(|| trip.row(end_us, is_open)))
        }
    }
}

impl TripState {
    pub(super) fn new(fix: Fix) -> TripState {
        TripState {
            start_us: fix.time_us,
            rep: fix.rep,
            distance_m: 0.0,
            n_pings: 1,
            distance_m_then: 0.0,
            n_pings_then: 1,
            distance_m_moving: 0.0,
        }
    }

    pub(super) fn row(&self, end_us: i64, is_open: bool) -> Trip {
        let TripState { start_us, rep, distance_m, n_pings, .. } = *self;
        Trip { start_us, end_us, distance_m, n_pings, rep, is_open }
    }
}
