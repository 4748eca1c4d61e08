//! What a device's pings add up to: rows of movement, stays, trips.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::track::place::Place;
use crate::track::row_codec::{RowReader, RowWriter};

/// Figures of a row that most rows do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trip {
    pub(crate) start_us: i64,
    pub(crate) end_us: i64,
    pub(crate) distance_m: f64,
    pub(crate) n_pings: u32,
    pub(crate) rep: u32,
    pub(crate) is_open: bool,
}

/// What most devices have little of.
#[derive(Clone, Debug, Default)]
struct Side {
    /// By window; of open rows whose flag says so.
    rare: Vec<(i64, u32, Rare)>,
    stays: Vec<Stay>,
    trips: Vec<Trip>,
}

/// Rows of one device since its open chunk began, those that were open then first.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceRows {
    /// Rows that change no more while pings come in order.
    done: RowWriter,
    /// The others, by window, then by first ping.
    open: Vec<Packed>,
    side: Option<Box<Side>>,
}

/// What a span of pings adds to the rows that are done, and the stays and trips that ended in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    pub(crate) rows: Vec<Row>,
    pub(crate) stays: Vec<Stay>,
    pub(crate) trips: Vec<Trip>,
}

/// Makes room for one more by little: many devices have few rows each.
fn push_tightly<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 2).max(1));
    }
    list.push(item);
}

/// A row in 60 bytes. Words of it hold 58 bits of the window (years 1399 to 10532) and of standing still, 37 of each offset in the window,
/// 42 of moving (50 days), 23 of pings, and whether it has rare figures.
#[derive(Clone, Copy, Debug)]
struct Packed([u32; 15]);

const PACKED_LEN: usize = size_of::<Packed>();

/// Windows are counted from so long before 1970, so that they are not negative.
const WINDOW_BIAS: i64 = 1 << 54;
const LONG_BITS: u32 = 58;
const OFFSET_BITS: u32 = 37;
const MOVING_BITS: u32 = 42;
/// Where the rest of the words is: pings with whether there are rare figures, and standing still, both from the lowest bits up.
const COUNTS_BITS: [u32; 2] = [64 - LONG_BITS, 18];
const STILL_BITS: [u32; 2] = [64 - OFFSET_BITS, 64 - MOVING_BITS];

/// Pings of a row are counted up to here.
const N_PINGS_MAX: u32 = (1 << 23) - 1;

const fn low(n_bits: u32) -> u64 {
    (1 << n_bits) - 1
}

impl Packed {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        u64::from(self.0[at]) | u64::from(self.0[at + 1]) << 32
    }

    #[inline(always)]
    fn window_us(&self) -> i64 {
        (self.word(0) & low(LONG_BITS)) as i64 - WINDOW_BIAS
    }

    #[inline(always)]
    fn rep(&self) -> u32 {
        self.0[8]
    }
}

impl Row {
    #[inline(always)]
    fn pack(&self) -> Packed {
        let has_rare = u64::from(self.rare != Rare::default());
        let counts = u64::from(self.n_pings) << 1 | has_rare;
        let (first, last) = ((self.first_us - self.window_us) as u64, (self.last_us - self.window_us) as u64);
        let (moving, still) = (self.moving_us as u64, self.still_us as u64);
        debug_assert!(self.is_plausible(), "{self:?}");
        let words = [
            (self.window_us + WINDOW_BIAS) as u64 | counts << LONG_BITS,
            first
                | (counts >> COUNTS_BITS[0]) << OFFSET_BITS
                | (still >> (STILL_BITS[0] + STILL_BITS[1])) << (OFFSET_BITS + COUNTS_BITS[1]),
            last | still << OFFSET_BITS,
            moving | (still >> STILL_BITS[0]) << MOVING_BITS,
        ];
        let half = |at: usize| (words[at / 2] >> (32 * (at % 2))) as u32;
        let (raw, distance) = (self.raw_m.to_bits(), self.distance_m.to_bits());
        Packed([
            half(0),
            half(1),
            half(2),
            half(3),
            half(4),
            half(5),
            half(6),
            half(7),
            self.rep,
            self.revision,
            self.speed_mps_max.to_bits(),
            raw as u32,
            (raw >> 32) as u32,
            distance as u32,
            (distance >> 32) as u32,
        ])
    }

    #[inline(always)]
    fn unpack(packed: &Packed, rare: impl FnOnce(i64, u32) -> Rare) -> Row {
        let window_us = packed.window_us();
        let (first, last, moving) = (packed.word(2), packed.word(4), packed.word(6));
        let counts = packed.word(0) >> LONG_BITS | (first >> OFFSET_BITS & low(COUNTS_BITS[1])) << COUNTS_BITS[0];
        let still_high = first >> (OFFSET_BITS + COUNTS_BITS[1]);
        let still = last >> OFFSET_BITS
            | (moving >> MOVING_BITS) << STILL_BITS[0]
            | still_high << (STILL_BITS[0] + STILL_BITS[1]);
        let rep = packed.rep();
        Row {
            window_us,
            first_us: window_us + (first & low(OFFSET_BITS)) as i64,
            last_us: window_us + (last & low(OFFSET_BITS)) as i64,
            moving_us: (moving & low(MOVING_BITS)) as i64,
            still_us: still as i64,
            raw_m: f64::from_bits(packed.word(11)),
            distance_m: f64::from_bits(packed.word(13)),
            speed_mps_max: f32::from_bits(packed.0[10]),
            rep,
            n_pings: (counts >> 1) as u32,
            revision: packed.0[9],
            rare: if counts & 1 == 1 { rare(window_us, rep) } else { Rare::default() },
        }
    }
}

impl DeviceRows {
    /// Open rows alone.
    pub(crate) fn of(open: &[Row]) -> DeviceRows {
        let mut rows = DeviceRows::default();
        open.iter().for_each(|row| {
            rows.push(row);
        });
        rows
    }

    /// Rows as they were taken apart by [`DeviceRows::parts`].
    pub(crate) fn from_parts(done: RowWriter, open: &[Row], stays: Vec<Stay>, trips: Vec<Trip>) -> DeviceRows {
        let mut rows = DeviceRows { done, ..DeviceRows::of(open) };
        if !stays.is_empty() || !trips.is_empty() {
            let side = rows.side.get_or_insert_default();
            (side.stays, side.trips) = (stays, trips);
        }
        rows
    }

    /// Rows that are done, rows that are open.
    pub(crate) fn parts(&self) -> (&RowWriter, Vec<Row>) {
        (&self.done, self.open_rows().collect())
    }

    fn rare(&self, window_us: i64, rep: u32) -> Rare {
        let rare = self.side.as_ref().map_or(&[][..], |side| &side.rare);
        let first = rare.partition_point(|(window, _, _)| *window < window_us);
        let found = rare[first..].iter().take_while(|(window, _, _)| *window == window_us).find(|r| r.1 == rep);
        found.map_or_else(Rare::default, |(_, _, rare)| *rare)
    }

    #[inline(always)]
    fn unpack(&self, packed: &Packed) -> Row {
        Row::unpack(packed, |window_us, rep| self.rare(window_us, rep))
    }

    /// All rows of `device_movement` that are here.
    pub(crate) fn movement(&self, width_us: i64) -> impl Iterator<Item = Row> {
        RowReader::new(width_us, self.done.bytes(), self.done.n_rows()).chain(self.open_rows())
    }

    /// Those that may change while pings come in order.
    pub(crate) fn open_rows(&self) -> impl Iterator<Item = Row> {
        self.open.iter().map(|packed| self.unpack(packed))
    }

    /// Reads a bit of the last row.
    #[inline(always)]
    pub(crate) fn touch(&self) -> i64 {
        self.open.last().map_or(0, |row| i64::from(row.0[0]) ^ i64::from(row.0[14]))
    }

    pub(crate) fn n_movement(&self) -> usize {
        self.done.n_rows() as usize + self.open.len()
    }

    #[inline(always)]
    pub(crate) fn n_open(&self) -> usize {
        self.open.len()
    }

    /// Stays that have ended.
    pub(crate) fn stays(&self) -> &[Stay] {
        self.side.as_ref().map_or(&[], |side| &side.stays)
    }

    /// Trips that have ended.
    pub(crate) fn trips(&self) -> &[Trip] {
        self.side.as_ref().map_or(&[], |side| &side.trips)
    }

    pub(crate) fn push_stay(&mut self, stay: Stay) {
        push_tightly(&mut self.side.get_or_insert_default().stays, stay);
    }

    pub(crate) fn push_trip(&mut self, trip: Trip) {
        push_tightly(&mut self.side.get_or_insert_default().trips, trip);
    }

    /// Position of the open row of a window and rep, which is among the last ones.
    #[inline(always)]
    pub(crate) fn position(&self, window_us: i64, rep: u32) -> Option<usize> {
        let mut idx = self.open.len();
        while idx > 0 {
            idx -= 1;
            let row = &self.open[idx];
            match row.window_us().cmp(&window_us) {
                Ordering::Less => return None,
                Ordering::Equal if row.rep() == rep => return Some(idx),
                _ => {}
            }
        }
        None
    }

    #[inline(always)]
    pub(crate) fn load(&self, idx: usize) -> Row {
        self.unpack(&self.open[idx])
    }

    #[inline(always)]
    pub(crate) fn store(&mut self, idx: usize, row: &Row) {
        self.open[idx] = row.pack();
        if row.rare != Rare::default() {
            self.store_rare(row);
        }
    }

    fn store_rare(&mut self, row: &Row) {
        let rare = &mut self.side.get_or_insert_default().rare;
        let first = rare.partition_point(|(window, _, _)| *window < row.window_us);
        let same_window = rare[first..].iter_mut().take_while(|(window, _, _)| *window == row.window_us);
        for (_, rep, held) in same_window {
            if *rep == row.rep {
                *held = row.rare;
                return;
            }
        }
        rare.insert(first, (row.window_us, row.rep, row.rare));
    }

    /// Appends a row; gives its position.
    pub(crate) fn push(&mut self, row: &Row) -> usize {
        let idx = self.open.len();
        push_tightly(&mut self.open, row.pack());
        self.store(idx, row);
        idx
    }

    /// Open rows before a window: they change no more.
    fn n_before(&self, open_from_us: i64) -> usize {
        self.open.partition_point(|row| row.window_us() < open_from_us)
    }

    /// Drops the first open rows.
    fn drop_first(&mut self, n_rows: usize) {
        self.open.drain(..n_rows);
        let first_us = self.open.first().map_or(i64::MAX, Packed::window_us);
        if let Some(side) = &mut self.side {
            side.rare.drain(..side.rare.partition_point(|(window, _, _)| *window < first_us));
        }
    }

    /// Puts rows of windows before `open_from_us` among those that are done.
    pub(crate) fn retire(&mut self, width_us: i64, open_from_us: i64) {
        let n_rows = self.n_before(open_from_us);
        if n_rows > 0 {
            for idx in 0..n_rows {
                let row = self.load(idx);
                self.done.push(width_us, &row);
            }
            self.drop_first(n_rows);
        }
    }

    /// Rows from `open_from_us` on, as they are.
    pub(crate) fn open_from(&self, open_from_us: i64) -> Box<[Row]> {
        self.open[self.n_before(open_from_us)..].iter().map(|packed| self.unpack(packed)).collect()
    }

    /// Takes the rows that are done out of rows of which none was retired, and the stays and trips that have ended.
    pub(crate) fn take_done(&mut self, open_from_us: i64) -> Done {
        debug_assert_eq!(self.done.n_rows(), 0);
        let n_rows = self.n_before(open_from_us);
        let rows = (0..n_rows).map(|idx| self.load(idx)).collect();
        self.drop_first(n_rows);
        let (stays, trips) = self.take_ended();
        Done { rows, stays, trips }
    }

    fn take_ended(&mut self) -> (Vec<Stay>, Vec<Trip>) {
        match &mut self.side {
            Some(side) => (std::mem::take(&mut side.stays), std::mem::take(&mut side.trips)),
            None => (Vec::new(), Vec::new()),
        }
    }

    /// Takes all that is done, once everything before `open_from_us` is retired.
    pub(crate) fn seal(&mut self, width_us: i64, open_from_us: i64) -> (RowWriter, Vec<Stay>, Vec<Trip>) {
        self.retire(width_us, open_from_us);
        let (stays, trips) = self.take_ended();
        (std::mem::take(&mut self.done), stays, trips)
    }

    /// Sets the revision of an open row.
    pub(crate) fn set_revision(&mut self, idx: usize, revision: u32) {
        let row = Row { revision, ..self.load(idx) };
        self.store(idx, &row);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let side = self.side.as_ref().map_or(0, |side| {
            size_of::<Side>()
                + side.rare.capacity() * size_of::<(i64, u32, Rare)>()
                + side.stays.capacity() * size_of::<Stay>()
                + side.trips.capacity() * size_of::<Trip>()
        });
        self.done.memory_bytes() + self.open.capacity() * PACKED_LEN + side
    }
}

/// Fixes close together: the device may be standing still.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) start_us: i64,
    pub(crate) rep: u32,
    pub(crate) n_pings: u32,
    /// Its first fix; offsets are relative to it.
    origin: (f64, f64),
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
            origin: (origin.lat, origin.lon),
            offset_lat: zero,
            offset_lon: zero,
            radius_m: zero,
            centre: origin,
        }
    }

    /// Adds a fix `distance_m` from the centre.
    #[inline(always)]
    pub(crate) fn add(&mut self, place: &Place, distance_m: f64) {
        self.n_pings += 1;
        self.offset_lat += place.lat - self.origin.0;
        // Either side of the date line is near.
        let offset_lon = place.lon - self.origin.1;
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
    #[inline(always)]
    pub(crate) fn centre_on_mean(&mut self) {
        let n_pings = f64::from(self.n_pings);
        let lon = self.origin.1 + self.offset_lon / n_pings;
        let lon = if lon > 180.0 {
            lon - 360.0
        } else if lon < -180.0 {
            lon + 360.0
        } else {
            lon
        };
        self.centre = Place::new((self.origin.0 + self.offset_lat / n_pings).clamp(-90.0, 90.0), lon);
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
    /// Whether it can be packed: not so what was read from damaged bytes.
    pub(crate) fn is_plausible(&self) -> bool {
        let is_within = |value: i64, n_bits: u32| value as u64 <= low(n_bits);
        is_within(self.window_us.wrapping_add(WINDOW_BIAS), LONG_BITS)
            && is_within(self.first_us.wrapping_sub(self.window_us), OFFSET_BITS)
            && is_within(self.last_us.wrapping_sub(self.window_us), OFFSET_BITS)
            && is_within(self.moving_us, MOVING_BITS)
            && is_within(self.still_us, LONG_BITS)
            && self.n_pings <= N_PINGS_MAX
    }

    /// Counts a ping, the last one by now.
    #[inline(always)]
    pub(crate) fn count(&mut self, time_us: i64) {
        self.n_pings = (self.n_pings + 1).min(N_PINGS_MAX);
        self.last_us = time_us;
    }

    /// Equality but for the revision, where a missing speed equals a missing speed.
    pub(crate) fn is_same(&self, other: &Row) -> bool {
        let plain = |row: &Row| {
            let speed_mps_max = if row.speed_mps_max.is_nan() { -1.0 } else { row.speed_mps_max };
            Row { speed_mps_max, revision: 0, ..*row }
        };
        plain(self) == plain(other)
    }
}
