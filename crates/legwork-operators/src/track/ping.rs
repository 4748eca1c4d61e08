//! One ping, as far as the track needs it.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::track::place::Place;

/// Stands for a missing time.
pub(crate) const NO_TIME: i64 = i64::MIN;
/// Stands for a missing rep.
pub(crate) const NO_REP: u32 = u32::MAX;

/// A ping. Missing numbers are NaN.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ping {
    pub(crate) time_us: i64,
    /// [`NO_TIME`] when missing.
    pub(crate) sent_us: i64,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
    pub(crate) odometer_m: f64,
    pub(crate) accuracy_m: f32,
    pub(crate) speed_mps: f32,
    pub(crate) battery_pct: f32,
    /// [`NO_REP`] when missing. A number of the lane as it arrives, of the device once it is taken.
    pub(crate) rep: u32,
    pub(crate) mock: bool,
}

/// Order of floats for ties: missing first, then by value. Bits decide between NaNs and zeros, so that only identical ones are equal.
fn order(a: f64, b: f64) -> Ordering {
    b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(&b))
}

impl Ping {
    pub(crate) fn place(&self) -> Place {
        Place::new(self.lat, self.lon)
    }

    /// Which of two pings of a device with the same event time stays: the larger (sent time, then content). Content is what the
    /// tables can show; `rep_name` gives names, since ids depend on the order of arrival. The battery is asked last, and known of
    /// the newest ping only: no table shows that of others.
    pub(crate) fn order_of_equals<'a>(&self, other: &Ping, rep_name: impl Fn(u32) -> Option<&'a str>) -> Ordering {
        self.sent_us
            .cmp(&other.sent_us)
            .then_with(|| order(self.lat, other.lat))
            .then_with(|| order(self.lon, other.lon))
            .then_with(|| order(self.accuracy_m.into(), other.accuracy_m.into()))
            .then_with(|| order(self.speed_mps.into(), other.speed_mps.into()))
            .then_with(|| self.mock.cmp(&other.mock))
            .then_with(|| order(self.odometer_m, other.odometer_m))
            .then_with(|| {
                if self.rep == other.rep { Ordering::Equal } else { rep_name(self.rep).cmp(&rep_name(other.rep)) }
            })
            .then_with(|| order(self.battery_pct.into(), other.battery_pct.into()))
    }
}
