//! The filter: a left fold over a device's pings in event-time order.
//!
//! [`step`] takes one ping and changes rows that are already written where the ping settles what was open: a fix turns out to be an
//! outlier once the next one is known, movement to be jitter once the device has stood still for a while. What may still change is
//! bounded by the fixes since the device was last seen to move on, which span less than twice `stay_min`, or are within the gate of one place.
//!
//! What lives where: `keep` says which fixes stand and finds stays and trips; `metres` what each adds; `still` what standing still and
//! moving look like; `state` all that the future depends on.

mod keep;
mod metres;
mod state;
mod still;

use legwork_types::time::window_start;

use crate::track::config::TrackConfig;
use crate::track::fold::keep::Keep;
pub(crate) use crate::track::fold::state::State;
use crate::track::fold::state::{Fix, Track};
use crate::track::ping::Ping;
use crate::track::rows::{DeviceRows, Rare, Row};

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
    /// From the fix of that time on the device may stand still; it is the anchor too.
    fn still(&mut self, _start_us: i64) {}
    /// The last ping was counted as movement since the anchor, and is the anchor now: fixes between stood for nothing.
    fn counted(&mut self) {}
    /// The device stands still at all fixes after that of `still`; the last adds the way there.
    fn stands(&mut self, _approach_m: f64) {}
}

/// Nobody listens.
#[derive(Debug)]
pub(crate) struct Silent;
impl Journal for Silent {}

/// Parameters of the fold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Params {
    pub(crate) track: TrackConfig,
    pub(crate) window_us: i64,
    pub(crate) late_horizon_us: i64,
    /// Pings in a chunk, by a quarter more or less. More make the states remembered at their starts cheaper, late pings dearer.
    pub(crate) chunk_len: u32,
}

impl Params {
    #[inline]
    pub(super) fn reach_m(&self, ping: &Ping) -> f64 {
        self.track.stay_radius_m.max(self.blur_m(ping))
    }

    #[inline]
    pub(super) fn gate_m(&self, ping: &Ping) -> f64 {
        self.track.anchor_m_min.max(self.blur_m(ping))
    }

    #[inline]
    fn blur_m(&self, ping: &Ping) -> f64 {
        if ping.accuracy_m.is_nan() { 0.0 } else { self.track.anchor_accuracy_factor * f64::from(ping.accuracy_m) }
    }

    #[inline]
    pub(super) fn is_impossible(&self, distance_m: f64, leg_us: i64) -> bool {
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
            journal.still(fix.time_us);
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
    row.count(ping.time_us);
    (row_idx, row)
}
