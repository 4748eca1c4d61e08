//! What a device's pings add up to: rows of movement, stays, trips.

use std::cmp::Ordering;

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

/// What most devices have little of.
#[derive(Clone, Debug, Default)]
struct Side {
    /// By window; of rows whose flag says so.
    rare: Vec<(i64, u32, Rare)>,
    stays: Vec<Stay>,
    trips: Vec<Trip>,
}

/// Rows of one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceRows {
    /// By window, then by first ping.
    movement: Vec<Packed>,
    side: Option<Box<Side>>,
}

/// Makes room for one more by little: many devices have few rows each.
fn grow_tightly<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(1));
    }
}

/// Rows in steps of this many: lists that grow one by one pass through every size class of the allocator, and a few slow devices then
/// hold the pages of each.
const ROWS_STEP: usize = 8;

fn grow_by_blocks<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).next_multiple_of(ROWS_STEP).max(ROWS_STEP));
    }
}

fn push_tightly<T>(list: &mut Vec<T>, item: T) {
    grow_tightly(list);
    list.push(item);
}

/// A row in 60 bytes: 56 bits of window (years 828 before and 3111 after Christ), 40 of offsets in it and of moving (12 days), 48 of
/// standing still (8 years), 23 of pings, and whether it has rare figures.
#[derive(Clone, Copy, Debug)]
struct Packed([u32; 15]);

const PACKED_LEN: usize = size_of::<Packed>();

/// Windows are counted from here, so that they are not negative.
const WINDOW_BIAS: i64 = 1 << 55;
const BITS_40: u64 = (1 << 40) - 1;

impl Packed {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        u64::from(self.0[at]) | u64::from(self.0[at + 1]) << 32
    }

    #[inline(always)]
    fn window_us(&self) -> i64 {
        (self.word(0) & ((1 << 56) - 1)) as i64 - WINDOW_BIAS
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
        debug_assert!(self.window_us.unsigned_abs() < 1 << 55 && counts < 1 << 24);
        debug_assert!((first | last | moving) <= BITS_40 && still < 1 << 48, "{self:?}");
        let words = [
            (self.window_us + WINDOW_BIAS) as u64 | counts << 56,
            first | (counts >> 8) << 40,
            last | still << 40,
            moving | (still >> 24) << 40,
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
        let counts = packed.word(0) >> 56 | (first >> 40) << 8;
        let rep = packed.rep();
        Row {
            window_us,
            first_us: window_us + (first & BITS_40) as i64,
            last_us: window_us + (last & BITS_40) as i64,
            moving_us: (moving & BITS_40) as i64,
            still_us: (last >> 40 | (moving >> 40) << 24) as i64,
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

/// Where the rows of a device stood: all rows before `n_rows` were done with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) n_rows: usize,
    /// Rows that may change, as they were.
    pub(crate) open: Box<[Row]>,
    pub(crate) n_stays: usize,
    pub(crate) n_trips: usize,
}

impl Mark {
    /// Moves it by as many rows as `now` is from `then`.
    pub(crate) fn shift(&mut self, then: &Mark, now: &Mark) {
        self.n_rows = self.n_rows - then.n_rows + now.n_rows;
        self.n_stays = self.n_stays - then.n_stays + now.n_stays;
        self.n_trips = self.n_trips - then.n_trips + now.n_trips;
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.open.len() * size_of::<Row>()
    }

    /// Whether what follows will be the same as after `other`.
    pub(crate) fn is_same(&self, other: &Mark) -> bool {
        self.open.len() == other.open.len() && self.open.iter().zip(&other.open).all(|(a, b)| a.is_same(b))
    }
}

impl DeviceRows {
    /// The open rows of a mark alone.
    pub(crate) fn of(mark: &Mark) -> DeviceRows {
        let mut rows = DeviceRows::default();
        mark.open.iter().for_each(|row| {
            rows.push(row);
        });
        rows
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

    /// All rows of `device_movement`.
    pub(crate) fn movement(&self) -> impl ExactSizeIterator<Item = Row> {
        self.movement.iter().map(|packed| self.unpack(packed))
    }

    /// Reads a bit of the last row.
    #[inline(always)]
    pub(crate) fn touch(&self) -> i64 {
        self.movement.last().map_or(0, |row| i64::from(row.0[0]) ^ i64::from(row.0[14]))
    }

    pub(crate) fn n_movement(&self) -> usize {
        self.movement.len()
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

    /// Position of the row of a window and rep, which is among the last ones.
    #[inline(always)]
    pub(crate) fn position(&self, window_us: i64, rep: u32) -> Option<usize> {
        let mut idx = self.movement.len();
        while idx > 0 {
            idx -= 1;
            let row = &self.movement[idx];
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
        self.unpack(&self.movement[idx])
    }

    #[inline(always)]
    pub(crate) fn store(&mut self, idx: usize, row: &Row) {
        self.movement[idx] = row.pack();
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
        grow_tightly(rare);
        rare.insert(first, (row.window_us, row.rep, row.rare));
    }

    /// Appends a row; gives its position.
    pub(crate) fn push(&mut self, row: &Row) -> usize {
        grow_by_blocks(&mut self.movement);
        let idx = self.movement.len();
        self.movement.push(row.pack());
        self.store(idx, row);
        idx
    }

    /// Where the rows stand when those from `open_from_us` on may still change.
    pub(crate) fn mark(&self, open_from_us: i64) -> Mark {
        let n_open = self.movement.iter().rev().take_while(|row| row.window_us() >= open_from_us).count();
        let n_rows = self.movement.len() - n_open;
        Mark {
            n_rows,
            open: self.movement[n_rows..].iter().map(|packed| self.unpack(packed)).collect(),
            n_stays: self.stays().len(),
            n_trips: self.trips().len(),
        }
    }

    /// Goes back to where the rows stood; gives what came since, with rows that were open then as they became.
    pub(crate) fn rewind(&mut self, mark: &Mark) -> Since {
        let movement: Vec<Row> = self.movement[mark.n_rows..].iter().map(|packed| self.unpack(packed)).collect();
        self.movement.truncate(mark.n_rows);
        let mut since = Since { movement, stays: Vec::new(), trips: Vec::new() };
        if let Some(side) = &mut self.side {
            let window_us = self.movement.last().map_or(i64::MIN, Packed::window_us);
            side.rare.truncate(side.rare.partition_point(|(window, _, _)| *window <= window_us));
            since.stays = side.stays.split_off(mark.n_stays);
            since.trips = side.trips.split_off(mark.n_trips);
        }
        for row in &mark.open {
            self.push(row);
        }
        since
    }

    /// Replaces what may still change by what came after `then`, a later mark of what `since` began at.
    pub(crate) fn resume(&mut self, since: &Since, begun: &Mark, now: &Mark, then: &Mark) {
        drop(self.rewind(&Mark { open: Box::default(), ..now.clone() }));
        since.movement[then.n_rows - begun.n_rows..].iter().for_each(|row| {
            self.push(row);
        });
        since.stays[then.n_stays - begun.n_stays..].iter().for_each(|stay| self.push_stay(*stay));
        since.trips[then.n_trips - begun.n_trips..].iter().for_each(|trip| self.push_trip(*trip));
    }

    /// The revision of each row.
    pub(crate) fn revisions(&self) -> impl Iterator<Item = u32> {
        self.movement().map(|row| row.revision)
    }

    /// Sets the revision of a row.
    pub(crate) fn set_revision(&mut self, idx: usize, revision: u32) {
        let row = Row { revision, ..self.load(idx) };
        self.store(idx, &row);
    }

    /// Gives rows from `from` to `to` the revision of their older version that says the same, or `revision`.
    pub(crate) fn keep_revisions(&mut self, from: usize, to: usize, since: &Since, revision: u32) {
        for idx in from..to {
            let row = self.load(idx);
            let first = since.movement.partition_point(|old| old.window_us < row.window_us);
            let mut same_window = since.movement[first..].iter().take_while(|old| old.window_us == row.window_us);
            let old = same_window.find(|old| old.rep == row.rep).filter(|old| row.is_same(old));
            self.store(idx, &Row { revision: old.map_or(revision, |old| old.revision), ..row });
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let side = self.side.as_ref().map_or(0, |side| {
            size_of::<Side>()
                + side.rare.capacity() * size_of::<(i64, u32, Rare)>()
                + side.stays.capacity() * size_of::<Stay>()
                + side.trips.capacity() * size_of::<Trip>()
        });
        self.movement.capacity() * PACKED_LEN + side
    }
}

/// Rows since a mark.
#[derive(Debug)]
pub(crate) struct Since {
    movement: Vec<Row>,
    stays: Vec<Stay>,
    trips: Vec<Trip>,
}

/// Fixes close together: the device may be standing still.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Equality but for the revision, where a missing speed equals a missing speed.
    fn is_same(&self, other: &Row) -> bool {
        let plain = |row: &Row| {
            let speed_mps_max = if row.speed_mps_max.is_nan() { -1.0 } else { row.speed_mps_max };
            Row { speed_mps_max, revision: 0, ..*row }
        };
        plain(self) == plain(other)
    }
}
