//! The H3 cell of a position, where most positions lie in the same cell as the one before.

use h3o::{CellIndex, LatLng, Resolution};

/// Cells with edges of some 200 m, a block of houses.
const RESOLUTION: Resolution = Resolution::Nine;

/// Near the poles and the date line every position is looked up.
const LAT_MAX: f64 = 80.0;
const LON_MAX: f64 = 179.0;

/// Metres in a degree of latitude, about.
const DEGREE_M: f64 = 111_195.0;

/// Positions so near to an edge are looked up: on a plane an edge lies some centimetres beside the arc that it is.
const MARGIN_M: f64 = 2.0;

/// The inner part of a cell takes about as long to find as so many positions take to look up: a device that stays is looked up no more, for
/// one that drives through none is found.
const INNER_AFTER: u32 = 4;

/// A half plane: where `x * east + y * north >= least`, metres from the cell's first corner.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    x: f64,
    y: f64,
    least_m: f64,
}

/// The inner part of a cell.
#[derive(Clone, Debug)]
struct Inner {
    lat: f64,
    lon: f64,
    cos_lat: f64,
    /// A cell has six corners, or five, and more where it lies on an edge of the icosahedron.
    sides: [Side; 10],
    n_sides: usize,
}

/// Finds cells one after the other.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    last: Option<u64>,
    /// Positions that were looked up and lay in the last cell.
    n_looked_up: u32,
    /// Of the last cell, once it pays.
    inner: Option<Inner>,
}

impl Inner {
    fn of(cell: CellIndex) -> Option<Inner> {
        let boundary = cell.boundary();
        let (lat, lon) = (boundary.first()?.lat(), boundary.first()?.lng());
        let is_plain = |corner: &LatLng| corner.lat().abs() < LAT_MAX && corner.lng().abs() < LON_MAX;
        if !boundary.iter().all(is_plain) || boundary.len() > 10 {
            return None;
        }
        let mut inner = Inner { lat, lon, cos_lat: lat.to_radians().cos(), sides: Default::default(), n_sides: 0 };
        let corners: Vec<(f64, f64)> = boundary.iter().map(|corner| inner.metres(corner.lat(), corner.lng())).collect();
        let n = corners.len();
        let middle = corners.iter().fold((0.0, 0.0), |sum, c| (sum.0 + c.0 / n as f64, sum.1 + c.1 / n as f64));
        for (at, a) in corners.iter().enumerate() {
            let b = corners[(at + 1) % n];
            let (dx, dy) = (b.0 - a.0, b.1 - a.1);
            let length_m = dx.hypot(dy);
            let mut side = Side { x: -dy / length_m, y: dx / length_m, least_m: 0.0 };
            if side.x * (middle.0 - a.0) + side.y * (middle.1 - a.1) < 0.0 {
                (side.x, side.y) = (-side.x, -side.y);
            }
            side.least_m = side.x * a.0 + side.y * a.1 + MARGIN_M;
            inner.sides[inner.n_sides] = side;
            inner.n_sides += 1;
        }
        Some(inner)
    }

    fn metres(&self, lat: f64, lon: f64) -> (f64, f64) {
        ((lon - self.lon) * self.cos_lat * DEGREE_M, (lat - self.lat) * DEGREE_M)
    }

    fn contains(&self, lat: f64, lon: f64) -> bool {
        let (east_m, north_m) = self.metres(lat, lon);
        self.sides[..self.n_sides].iter().all(|side| side.x * east_m + side.y * north_m >= side.least_m)
    }
}

impl Cells {
    /// The cell of a position; none where it is no number.
    pub(crate) fn cell(&mut self, lat: f64, lon: f64) -> Option<u64> {
        if let Some(last) = self.last.filter(|_| self.inner.as_ref().is_some_and(|inner| inner.contains(lat, lon))) {
            return Some(last);
        }
        let cell = LatLng::new(lat, lon).ok()?.to_cell(RESOLUTION);
        if self.last != Some(u64::from(cell)) {
            (self.last, self.n_looked_up, self.inner) = (Some(u64::from(cell)), 0, None);
        }
        self.n_looked_up += 1;
        if self.n_looked_up == INNER_AFTER {
            self.inner = Inner::of(cell);
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_cell_is_the_one_that_is_looked_up(lat in -90.0f64..90.0, lon in -180.0f64..180.0, at in any::<u16>(),
                                                   steps in proptest::collection::vec((-0.002f64..0.002, -0.002f64..0.002), 1..60)) {
            // Also round the twelve pentagons.
            let (lat, lon) = if at % 4 == 0 {
                let pentagon = LatLng::from(RESOLUTION.pentagons().nth(usize::from(at / 4) % 12).unwrap());
                (pentagon.lat(), pentagon.lng())
            } else {
                (lat, lon)
            };
            let mut cells = Cells::default();
            for (north, east) in steps {
                let (lat, lon) = (lat + north, lon + east / lat.to_radians().cos().max(0.01));
                let looked_up = LatLng::new(lat, lon).ok().map(|place| u64::from(place.to_cell(RESOLUTION)));
                for _ in 0..=INNER_AFTER {
                    prop_assert_eq!(cells.cell(lat, lon), looked_up);
                }
            }
        }
    }
}
