//! What a device's pings add up to: rows of movement, stays, trips.

use crate::track::place::Place;

/// Figures of a row that most rows do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rare {
    pub(crate) gap_m: f64,
    pub(crate) gap_us: i64,
    /// None until two readings of the odometer follow each other.
    pub(crate) odometer_m: Option<f64>,
    pub(crate) n_filtered_accuracy: u32,
    pub(crate) n_filtered_speed: u32,
    pub(crate) n_filtered_mock: u32,
}

/// A row of `device_movement`. Its sums are left folds over its pings in event-time order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) window_us: i64,
    pub(crate) first_us: i64,
    pub(crate) last_us: i64,
    pub(crate) moving_us: i64,
    pub(crate) still_us: i64,
    pub(crate) raw_m: f64,
    pub(crate) distance_m: f64,
    /// NaN until a speed is reported.
    pub(crate) speed_mps_max: f32,
    pub(crate) rep: u32,
    pub(crate) n_pings: u32,
    pub(crate) revision: u32,
    pub(crate) rare: Rare,
}

/// A stay that has ended, or, with no end, one that lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stay {
    pub(crate) start_us: i64,
    pub(crate) last_us: i64,
    pub(crate) has_ended: bool,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
    pub(crate) radius_m: f64,
    pub(crate) n_pings: u32,
    pub(crate) rep: u32,
}

/// A trip that has ended or is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trip {
    pub(crate) start_us: i64,
    pub(crate) end_us: i64,
    pub(crate) distance_m: f64,
    pub(crate) n_pings: u32,
    pub(crate) rep: u32,
    pub(crate) is_open: bool,
}

/// Rows of one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceRows {
    /// By window, then by first ping.
    pub(crate) movement: Vec<Row>,
    /// Those that have ended.
    pub(crate) stays: Vec<Stay>,
    /// Those that have ended.
    pub(crate) trips: Vec<Trip>,
}

impl DeviceRows {
    /// The row of a window and rep, which is among the last ones; none when there is none yet.
    #[inline]
    pub(crate) fn find(&mut self, window_us: i64, rep: u32) -> Option<&mut Row> {
        self.movement
            .iter_mut()
            .rev()
            .take_while(|row| row.window_us >= window_us)
            .find(|row| row.window_us == window_us && row.rep == rep)
    }
}

/// Fixes close together: the device may be standing still.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cluster {
    pub(crate) start_us: i64,
    pub(crate) rep: u32,
    pub(crate) n_pings: u32,
    /// Its first fix; offsets are relative to it.
    origin: Place,
    /// Sums of offsets, degrees.
    offset_lat: f64,
    offset_lon: f64,
    pub(crate) radius_m: f64,
    /// Its first fix; once it is a stay, the mean of its fixes.
    pub(crate) centre: Place,
}

impl Cluster {
    pub(crate) fn new(start_us: i64, rep: u32, origin: Place) -> Cluster {
        let zero = 0.0;
        Cluster {
            start_us,
            rep,
            n_pings: 1,
            origin,
            offset_lat: zero,
            offset_lon: zero,
            radius_m: zero,
            centre: origin,
        }
    }

    /// Adds a fix `distance_m` from the centre.
    #[inline]
    pub(crate) fn add(&mut self, place: &Place, distance_m: f64) {
        self.n_pings += 1;
        self.offset_lat += place.lat - self.origin.lat;
        // Either side of the date line is near.
        let offset_lon = place.lon - self.origin.lon;
        self.offset_lon += if offset_lon > 180.0 {
            offset_lon - 360.0
        } else if offset_lon < -180.0 {
            offset_lon + 360.0
        } else {
            offset_lon
        };
        self.radius_m = self.radius_m.max(distance_m);
    }

    /// Moves the centre to the mean of the fixes.
    #[inline]
    pub(crate) fn centre_on_mean(&mut self) {
        let n_pings = f64::from(self.n_pings);
        let lon = self.origin.lon + self.offset_lon / n_pings;
        let lon = if lon > 180.0 {
            lon - 360.0
        } else if lon < -180.0 {
            lon + 360.0
        } else {
            lon
        };
        self.centre = Place::new((self.origin.lat + self.offset_lat / n_pings).clamp(-90.0, 90.0), lon);
    }

    pub(crate) fn stay(&self, last_us: i64, has_ended: bool) -> Stay {
        Stay {
            start_us: self.start_us,
            last_us,
            has_ended,
            lat: self.centre.lat,
            lon: self.centre.lon,
            radius_m: self.radius_m,
            n_pings: self.n_pings,
            rep: self.rep,
        }
    }
}

impl Row {
    /// Takes over the revision of an older version that says the same.
    pub(crate) fn keep_revision(&mut self, old: &Row) {
        let unchanged = Row { revision: old.revision, ..*self };
        if unchanged.is_same(old) {
            self.revision = old.revision;
        }
    }

    /// Equality, where a missing speed equals a missing speed.
    fn is_same(&self, other: &Row) -> bool {
        let speed = |row: &Row| if row.speed_mps_max.is_nan() { -1.0 } else { row.speed_mps_max };
        Row { speed_mps_max: speed(self), ..*self } == Row { speed_mps_max: speed(other), ..*other }
    }
}

impl DeviceRows {
    pub(crate) fn memory_bytes(&self) -> usize {
        self.movement.capacity() * size_of::<Row>()
            + self.stays.capacity() * size_of::<Stay>()
            + self.trips.capacity() * size_of::<Trip>()
    }
}
