//! From columns to pings.

use arrow::array::{Array, AsArray, BooleanArray, Float32Array, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Float32Type;
use legwork_types::{EventBatch, gps};

use crate::track::names::Interner;
use crate::track::ping::{NO_REP, NO_TIME, Ping};

/// The columns of a batch that the track reads, downcast once.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    times: &'a [i64],
    devices: &'a StringArray,
    reps: Option<&'a StringArray>,
    sent: Option<&'a TimestampMicrosecondArray>,
    lat: &'a [f64],
    lon: &'a [f64],
    accuracy: Option<&'a Float32Array>,
    speed: Option<&'a Float32Array>,
    battery: Option<&'a Float32Array>,
    odometer: Option<&'a Float64Array>,
    mock: Option<&'a BooleanArray>,
}

fn unless_null<A: Array>(column: &A) -> Option<&A> {
    (column.null_count() < column.len()).then_some(column)
}

impl<'a> Columns<'a> {
    pub(crate) fn of(events: &'a EventBatch) -> Columns<'a> {
        let f32s = |column: usize| unless_null(events.columns.column(column).as_primitive::<Float32Type>());
        Columns {
            times: events.event_time_us(),
            devices: events.strings(gps::DEVICE_ID),
            reps: unless_null(events.strings(gps::REP_ID)),
            sent: unless_null(events.times(gps::SENT_TIME)),
            lat: events.f64s(gps::LAT).values(),
            lon: events.f64s(gps::LON).values(),
            accuracy: f32s(gps::ACCURACY_M),
            speed: f32s(gps::SPEED_MPS),
            battery: f32s(gps::BATTERY_PCT),
            odometer: unless_null(events.f64s(gps::ODOMETER_M)),
            mock: unless_null(events.columns.column(gps::MOCK).as_boolean()),
        }
    }

    #[inline]
    pub(crate) fn device(&self, row: usize) -> &'a str {
        self.devices.value(row)
    }

    #[inline]
    pub(crate) fn time_us(&self, row: usize) -> i64 {
        self.times[row]
    }

    #[inline]
    pub(crate) fn ping(&self, row: usize, reps: &mut Interner) -> Ping {
        let f32_at = |column: Option<&Float32Array>| match column {
            Some(values) if values.is_valid(row) => values.value(row),
            _ => f32::NAN,
        };
        Ping {
            time_us: self.times[row],
            sent_us: match self.sent {
                Some(times) if times.is_valid(row) => times.value(row),
                _ => NO_TIME,
            },
            lat: self.lat[row],
            lon: self.lon[row],
            odometer_m: match self.odometer {
                Some(values) if values.is_valid(row) => values.value(row),
                _ => f64::NAN,
            },
            accuracy_m: f32_at(self.accuracy),
            speed_mps: f32_at(self.speed),
            battery_pct: f32_at(self.battery),
            rep: match self.reps {
                Some(names) if names.is_valid(row) => reps.intern(names.value(row)),
                _ => NO_REP,
            },
            mock: self.mock.is_some_and(|values| values.is_valid(row) && values.value(row)),
        }
    }
}
