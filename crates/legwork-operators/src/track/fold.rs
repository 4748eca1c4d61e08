//! The filter: a left fold over a device's pings in event-time order.
//!
//! [`step`] takes one ping and changes rows that are already written where the ping settles what was open: a fix turns out to be an
//! outlier once the next one is known, movement to be jitter once the device has stood still long enough. What may still change is
//! bounded by the fixes since the current cluster began, which, until it is a stay, span less than `stay_min`.

use legwork_types::time::window_start;
use serde::{Deserialize, Serialize};

use crate::track::config::TrackConfig;
use crate::track::ping::Ping;
use crate::track::place::Place;
use crate::track::rows::{Cluster, DeviceRows, Rare, Row, Stay, Trip};

/// What became of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    First,
    Counted,
    Jitter,
    Stay,
    Gap,
    Invalid,
    Mock,
    Accuracy,
    Speed,
}

impl Decision {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Decision::First => "first",
            Decision::Counted => "counted",
            Decision::Jitter => "jitter",
            Decision::Stay => "stay",
            Decision::Gap => "gap",
            Decision::Invalid => "filtered_invalid",
            Decision::Mock => "filtered_mock",
            Decision::Accuracy => "filtered_accuracy",
            Decision::Speed => "filtered_speed",
        }
    }
}

/// What a ping adds to its row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) distance_m: f64,
    pub(crate) gap_m: f64,
    pub(crate) moving_us: i64,
    pub(crate) still_us: i64,
    pub(crate) gap_us: i64,
}

/// Hears what the fold decides, in order, with what it takes back. Nobody listens but to explain.
pub(crate) trait Journal {
    /// A ping was read; its share follows from `decided`.
    fn ping(&mut self, _ping: &Ping, _raw_m: f64) {}
    /// The last ping read is this, and adds that; `leg_us` is the time since the last kept fix.
    fn decided(&mut self, _decision: Decision, _share: Share, _leg_us: i64) {}
    /// The ping of that time is an outlier after all and adds nothing.
    fn rejected(&mut self, _time_us: i64) {}
    /// A cluster began at the fix of that time; it is the anchor too.
    fn cluster(&mut self, _start_us: i64) {}
    /// The last ping was counted as movement since the anchor, and is the anchor now: fixes between stood for nothing.
    fn counted(&mut self) {}
    /// Seconds since the anchor stay as they are; the fix of that time is the anchor now.
    fn settled(&mut self, _time_us: i64) {}
    /// All fixes after the first of the cluster are a stay.
    fn stay(&mut self) {}
}

/// Nobody listens.
#[derive(Debug)]
pub(crate) struct Silent;
impl Journal for Silent {}

/// A kept fix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Fix {
    time_us: i64,
    place: Place,
    rep: u32,
}

/// What a row held when the current cluster began, and what the cluster added to it since.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Tail {
    window_us: i64,
    rep: u32,
    distance_m: f64,
    moving_us: i64,
    still_us: i64,
    /// Time of the legs since, each in its own fix's row.
    own_us: i64,
    /// The part of `own_us` since the anchor: standing still unless the gate is left.
    inner_us: i64,
}

/// The rows that a cluster added to. Most clusters add to one at a time, kept at hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tails {
    /// That of the last fix.
    now: Option<Tail>,
    earlier: Vec<Tail>,
    /// Whether any of the earlier ones has time since the anchor.
    has_inner: bool,
}

impl Tails {
    fn all(&self) -> impl Iterator<Item = &Tail> {
        self.earlier.iter().chain(&self.now)
    }

    fn turn_to(&mut self, tail: Tail) {
        self.has_inner |= tail.inner_us != 0;
        if let Some(before) = self.now.replace(tail) {
            self.has_inner |= before.inner_us != 0;
            if self.earlier.len() == self.earlier.capacity() {
                self.earlier.reserve_exact(1);
            }
            self.earlier.push(before);
        }
    }

    fn n_earlier_with_inner(&self) -> usize {
        if self.has_inner { self.earlier.len() } else { 0 }
    }

    /// Time since the anchor stays standing still, or is taken back already.
    fn settle(&mut self) {
        if self.has_inner {
            self.earlier.iter_mut().for_each(|tail| tail.inner_us = 0);
            self.has_inner = false;
        }
        if let Some(now) = &mut self.now {
            now.inner_us = 0;
        }
    }

    fn clear(&mut self) {
        self.now = None;
        self.earlier.clear();
        self.has_inner = false;
    }
}

/// A fix that was reached at an impossible speed: an outlier if it is left at one too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Pending {
    fix: Fix,
    leg: Break,
    /// `gap_m` of its row before it.
    gap_m_before: f64,
}

/// A leg that is no travel: it took too long, or was too fast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Break {
    leg_us: i64,
    /// Its ends lie within the stay radius: standing still.
    is_near: bool,
    /// Distance from the cluster's centre.
    from_centre_m: f64,
    /// How far a fix may be from the centre and still belong to the cluster.
    reach_m: f64,
    /// Whether it may complete a stay. An impossible leg may not, so that deciding about it later changes nothing.
    is_gap: bool,
}

/// A trip under way, as of now and as of the cluster's first fix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct TripState {
    start_us: i64,
    rep: u32,
    distance_m: f64,
    n_pings: u32,
    distance_m_then: f64,
    n_pings_then: u32,
}

/// All that the future depends on, once there is a kept fix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Track {
    /// The last kept fix.
    last: Fix,
    /// Metres are counted from here.
    anchor: Fix,
    cluster: Cluster,
    is_stay: bool,
    trip: TripState,
    tail: Tails,
    pending: Option<Box<Pending>>,
}

/// State of the fold after some ping.
/// The ping before the next one, kept or not, is known to the caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The last reading.
    odometer_m: Option<f64>,
    track: Option<Track>,
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
            let ends = track.last.time_us ^ track.anchor.time_us ^ track.trip.start_us ^ track.cluster.start_us;
            let now = track.tail.now.map_or(0, |tail| tail.inner_us);
            ends ^ now ^ i64::from(track.cluster.n_pings) ^ track.cluster.centre.lat.to_bits() as i64
        })
    }

    /// Time and place of the fix of which the next one will say whether it is an outlier.
    pub(crate) fn pending(&self) -> Option<(i64, Place)> {
        let pending = self.track.as_ref().and_then(|track| track.pending.as_ref());
        pending.map(|pending| (pending.fix.time_us, pending.fix.place))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.track.as_ref().map_or(0, |track| {
            track.tail.earlier.capacity() * size_of::<Tail>()
                + track.pending.as_ref().map_or(0, |_| size_of::<Pending>())
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

/// Parameters of the fold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Params {
    pub(crate) track: TrackConfig,
    pub(crate) window_us: i64,
    pub(crate) late_horizon_us: i64,
    /// Pings in a chunk. More make the states remembered at their starts cheaper, late pings dearer.
    pub(crate) chunk_len: u32,
}

impl Params {
    #[inline]
    fn reach_m(&self, ping: &Ping) -> f64 {
        self.track.stay_radius_m.max(self.blur_m(ping))
    }

    #[inline]
    fn gate_m(&self, ping: &Ping) -> f64 {
        self.track.anchor_m_min.max(self.blur_m(ping))
    }

    #[inline]
    fn blur_m(&self, ping: &Ping) -> f64 {
        if ping.accuracy_m.is_nan() { 0.0 } else { self.track.anchor_accuracy_factor * f64::from(ping.accuracy_m) }
    }

    #[inline]
    fn is_impossible(&self, distance_m: f64, leg_us: i64) -> bool {
        distance_m * 1e6 > self.track.speed_mps_max * leg_us as f64
    }

    #[inline]
    fn refusal(&self, ping: &Ping) -> Option<Decision> {
        // iOS marks a fix that it does not trust by a negative accuracy; 0, 0 is what broken receivers report.
        if (ping.lat == 0.0 && ping.lon == 0.0) || ping.accuracy_m < 0.0 {
            Some(Decision::Invalid)
        } else if ping.mock {
            Some(Decision::Mock)
        } else if f64::from(ping.accuracy_m) > self.track.accuracy_m_max {
            Some(Decision::Accuracy)
        } else {
            None
        }
    }
}

/// Reads the next ping, the one after `before`. `revision` marks the rows that change.
pub(crate) fn step<J: Journal>(
    params: &Params,
    state: &mut State,
    rows: &mut DeviceRows,
    before: Option<&Ping>,
    ping: &Ping,
    revision: u32,
    journal: &mut J,
) {
    let place = ping.place();
    let is_before_kept = matches!((&state.track, before), (Some(t), Some(b)) if t.last.time_us == b.time_us);
    let raw_m = match (&state.track, before) {
        (Some(track), _) if is_before_kept => track.last.place.distance_m(&place),
        (_, Some(before)) => before.place().distance_m(&place),
        _ => 0.0,
    };
    journal.ping(ping, raw_m);
    let (row_idx, mut row) = open_row(params, rows, ping);
    row.raw_m += raw_m;
    row.revision = revision;
    // A receiver that knows no speed may say -1.
    if ping.speed_mps >= 0.0 {
        row.speed_mps_max = row.speed_mps_max.max(ping.speed_mps);
    }
    if !ping.odometer_m.is_nan() {
        // It falls when it is reset; that distance is not known.
        if let Some(driven_m) = state.odometer_m.map(|before_m| ping.odometer_m - before_m).filter(|m| *m >= 0.0) {
            row.rare.odometer_m = Some(row.rare.odometer_m.unwrap_or(0.0) + driven_m);
        }
        state.odometer_m = Some(ping.odometer_m);
    }
    if let Some(refusal) = params.refusal(ping) {
        match refusal {
            Decision::Mock => row.rare.n_filtered_mock += 1,
            Decision::Accuracy => row.rare.n_filtered_accuracy += 1,
            _ => {}
        }
        journal.decided(refusal, Share::default(), 0);
        rows.store(row_idx, &row);
        return;
    }
    let fix = Fix { time_us: ping.time_us, place, rep: ping.rep };
    match &mut state.track {
        None => {
            journal.decided(Decision::First, Share::default(), 0);
            journal.cluster(fix.time_us);
            state.track = Some(Track::new(fix));
        }
        Some(track) => {
            let raw_leg = is_before_kept.then_some(raw_m);
            Keep { params, track, rows, row: &mut row, revision, journal }.fix(ping, fix, raw_leg);
        }
    }
    rows.store(row_idx, &row);
}

/// The row of a ping, with the ping counted.
#[inline(always)]
fn open_row(params: &Params, rows: &mut DeviceRows, ping: &Ping) -> (usize, Row) {
    let window_us = window_start(ping.time_us, params.window_us);
    let (row_idx, mut row) = match rows.position(window_us, ping.rep) {
        Some(row_idx) => (row_idx, rows.load(row_idx)),
        None => {
            let row = Row {
                window_us,
                first_us: ping.time_us,
                last_us: ping.time_us,
                moving_us: 0,
                still_us: 0,
                raw_m: 0.0,
                distance_m: 0.0,
                speed_mps_max: f32::NAN,
                rep: ping.rep,
                n_pings: 0,
                revision: 0,
                rare: Rare::default(),
            };
            (rows.push(&row), row)
        }
    };
    row.n_pings += 1;
    row.last_us = ping.time_us;
    (row_idx, row)
}

impl Track {
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

    fn new(fix: Fix) -> Track {
        Track {
            last: fix,
            anchor: fix,
            cluster: Cluster::new(fix.time_us, fix.rep, fix.place),
            is_stay: false,
            trip: TripState::new(fix),
            tail: Tails::default(),
            pending: None,
        }
    }
}

impl TripState {
    fn new(fix: Fix) -> TripState {
        TripState {
            start_us: fix.time_us,
            rep: fix.rep,
            distance_m: 0.0,
            n_pings: 1,
            distance_m_then: 0.0,
            n_pings_then: 1,
        }
    }
}

/// A kept fix being read.
struct Keep<'a, J> {
    params: &'a Params,
    track: &'a mut Track,
    rows: &'a mut DeviceRows,
    /// The ping's own row; the others are in `rows`.
    row: &'a mut Row,
    revision: u32,
    journal: &'a mut J,
}

impl<J: Journal> Keep<'_, J> {
    #[inline]
    fn fix(&mut self, ping: &Ping, fix: Fix, raw_leg: Option<f64>) {
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
        } else if self.track.is_stay {
            self.in_stay(ping, fix, leg_us);
        } else {
            self.in_cluster(ping, fix, leg_us);
        }
    }

    /// Looks at a row that was opened when one of its pings was read.
    #[inline]
    fn row<T>(&mut self, window_us: i64, rep: u32, look: impl FnOnce(&mut Row) -> T) -> T {
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
    fn window_us(&self, fix: &Fix) -> i64 {
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
            self.end_travel();
            *self.track = Track::new(fix);
            self.journal.cluster(fix.time_us);
            return;
        }
        if self.track.is_stay {
            self.track.cluster.add(&fix.place, leg.from_centre_m);
            self.track.cluster.centre_on_mean();
            self.track.last = fix;
            return;
        }
        let mut from_centre_m = leg.from_centre_m;
        if from_centre_m > leg.reach_m {
            let last = self.track.last;
            self.begin_cluster(last);
            from_centre_m = last.place.distance_m(&fix.place);
        }
        self.track.cluster.add(&fix.place, from_centre_m);
        self.track.trip.n_pings += 1;
        let tail = self.tail(&fix, leg.leg_us);
        tail.own_us += leg.leg_us;
        self.track.tail.settle();
        self.track.anchor = fix;
        self.journal.settled(fix.time_us);
        self.track.last = fix;
        if leg.is_gap {
            self.recognise(&fix);
        }
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

    /// A fix while the device stays.
    #[inline]
    fn in_stay(&mut self, ping: &Ping, fix: Fix, leg_us: i64) {
        let from_centre_m = self.track.cluster.centre.distance_m(&fix.place);
        if from_centre_m <= self.params.reach_m(ping) {
            self.row.still_us += leg_us;
            let share = Share { still_us: leg_us, ..Share::default() };
            self.journal.decided(Decision::Stay, share, leg_us);
            self.track.cluster.add(&fix.place, from_centre_m);
            self.track.cluster.centre_on_mean();
            self.track.last = fix;
            return;
        }
        self.end_travel();
        let mut trip = TripState::new(self.track.last);
        trip.distance_m = from_centre_m;
        trip.n_pings = 2;
        self.track.trip = trip;
        self.track.is_stay = false;
        self.row.distance_m += from_centre_m;
        self.row.moving_us += leg_us;
        let share = Share { distance_m: from_centre_m, moving_us: leg_us, ..Share::default() };
        self.journal.decided(Decision::Counted, share, leg_us);
        self.begin_cluster(fix);
        self.track.last = fix;
    }

    /// A fix while the device travels or has not stood still for long.
    #[inline]
    fn in_cluster(&mut self, ping: &Ping, fix: Fix, leg_us: i64) {
        self.track.trip.n_pings += 1;
        let from_centre_m = self.track.cluster.centre.distance_m(&fix.place);
        let is_anchor_first = self.track.anchor.time_us == self.track.cluster.start_us;
        let from_anchor_m =
            if is_anchor_first { from_centre_m } else { self.track.anchor.place.distance_m(&fix.place) };
        if from_centre_m > self.params.reach_m(ping) {
            self.count(&fix, from_anchor_m, leg_us);
            self.begin_cluster(fix);
            self.track.last = fix;
            return;
        }
        self.tail(&fix, 0).own_us += leg_us;
        if from_anchor_m > self.params.gate_m(ping) {
            self.count(&fix, from_anchor_m, leg_us);
        } else {
            self.row.still_us += leg_us;
            self.tail(&fix, 0).inner_us += leg_us;
            let share = Share { still_us: leg_us, ..Share::default() };
            self.journal.decided(Decision::Jitter, share, leg_us);
        }
        self.track.cluster.add(&fix.place, from_centre_m);
        self.track.last = fix;
        self.recognise(&fix);
    }

    /// Counts the leg from the anchor, with all its time, and moves the anchor.
    #[inline]
    fn count(&mut self, fix: &Fix, from_anchor_m: f64, leg_us: i64) {
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
        let moving_us = fix.time_us - self.track.anchor.time_us;
        self.row.distance_m += from_anchor_m;
        self.row.moving_us += moving_us;
        self.track.trip.distance_m += from_anchor_m;
        self.track.anchor = *fix;
        let share = Share { distance_m: from_anchor_m, moving_us, ..Share::default() };
        self.journal.decided(Decision::Counted, share, leg_us);
        self.journal.counted();
    }

    /// What to restore in the fix's row should the cluster be a stay. `written_us`: time of the cluster that is in the row already.
    #[inline]
    fn tail(&mut self, fix: &Fix, written_us: i64) -> &mut Tail {
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
                    still_us: row.still_us - written_us,
                    own_us: 0,
                    inner_us: 0,
                }),
            };
            self.track.tail.turn_to(tail);
        }
        self.track.tail.now.as_mut().expect("the tail has turned to the row")
    }

    fn begin_cluster(&mut self, fix: Fix) {
        let track = &mut *self.track;
        track.cluster = Cluster::new(fix.time_us, fix.rep, fix.place);
        track.anchor = fix;
        track.tail.clear();
        track.trip.distance_m_then = track.trip.distance_m;
        track.trip.n_pings_then = track.trip.n_pings;
        self.journal.cluster(fix.time_us);
    }

    /// Makes the cluster a stay once it has lasted: what was counted since its first fix was jitter.
    fn recognise(&mut self, fix: &Fix) {
        if fix.time_us - self.track.cluster.start_us < self.params.track.stay_min_us {
            return;
        }
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
        let track = &mut *self.track;
        track.is_stay = true;
        track.cluster.centre_on_mean();
        let trip = &track.trip;
        if trip.distance_m_then > 0.0 {
            let ended = TripState { distance_m: trip.distance_m_then, n_pings: trip.n_pings_then, ..*trip };
            self.rows.push_trip(ended.row(track.cluster.start_us, false));
        }
        self.journal.stay();
    }
}

impl TripState {
    fn row(&self, end_us: i64, is_open: bool) -> Trip {
        let TripState { start_us, rep, distance_m, n_pings, .. } = *self;
        Trip { start_us, end_us, distance_m, n_pings, rep, is_open }
    }
}
