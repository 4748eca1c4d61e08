//! Positions, and the distance between two of them when most are close to each other.

use legwork_types::geo::{EARTH_RADIUS_M, haversine_m};
use serde::{Deserialize, Serialize};

/// Half angles below this are computed by series, radians; legs of up to some 60 km.
const SERIES_HALF_ANGLE_MAX: f64 = 0.005;

/// A position in degrees, with the cosine of its latitude: each takes part in several legs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, f64)", into = "(f64, f64)")]
pub(crate) struct Place {
    pub(crate) lat: f64,
    pub(crate) lon: f64,
    cos_lat: f64,
}

impl From<(f64, f64)> for Place {
    fn from((lat, lon): (f64, f64)) -> Place {
        Place::new(lat, lon)
    }
}

impl From<Place> for (f64, f64) {
    fn from(place: Place) -> (f64, f64) {
        (place.lat, place.lon)
    }
}

impl Place {
    #[inline(always)]
    pub(crate) fn new(lat: f64, lon: f64) -> Place {
        Place { lat, lon, cos_lat: lat.to_radians().cos() }
    }

    /// Great-circle distance, metres, as [`haversine_m`] up to rounding: the differences of angles are formed in the same way, and
    /// the first term that the series leave out is below 1e-17 of the result.
    #[inline(always)]
    pub(crate) fn distance_m(&self, other: &Place) -> f64 {
        let half_dphi = (other.lat.to_radians() - self.lat.to_radians()) * 0.5;
        let half_dlambda = (other.lon - self.lon).to_radians() * 0.5;
        if half_dphi.abs() >= SERIES_HALF_ANGLE_MAX || half_dlambda.abs() >= SERIES_HALF_ANGLE_MAX {
            return haversine_m(self.lat, self.lon, other.lat, other.lon);
        }
        let (sin_phi, sin_lambda) = (sin_small(half_dphi), sin_small(half_dlambda));
        let h = sin_phi * sin_phi + self.cos_lat * other.cos_lat * sin_lambda * sin_lambda;
        2.0 * EARTH_RADIUS_M * asin_small(h)
    }

    /// Where another place lies, as if the earth were flat here: right to a thousandth within some kilometres.
    #[inline(always)]
    pub(crate) fn offset(&self, other: &Place) -> Offset {
        Offset {
            east_m: around(other.lon - self.lon).to_radians() * self.cos_lat * EARTH_RADIUS_M,
            north_m: (other.lat - self.lat).to_radians() * EARTH_RADIUS_M,
        }
    }

    /// The place that lies there.
    pub(crate) fn at(&self, offset: &Offset) -> Place {
        let lat = (self.lat + (offset.north_m / EARTH_RADIUS_M).to_degrees()).clamp(-90.0, 90.0);
        // At a pole there is no east.
        let east = if self.cos_lat > 1e-9 { offset.east_m / (EARTH_RADIUS_M * self.cos_lat) } else { 0.0 };
        Place::new(lat, around(self.lon + around(east.to_degrees())))
    }
}

/// A few metres east and north: where one place lies seen from another, on a plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Offset {
    pub(crate) east_m: f64,
    pub(crate) north_m: f64,
}

impl Offset {
    #[inline(always)]
    pub(crate) fn dot(&self, other: &Offset) -> f64 {
        self.east_m * other.east_m + self.north_m * other.north_m
    }

    #[inline(always)]
    pub(crate) fn length_m(&self) -> f64 {
        self.dot(self).sqrt()
    }
}

/// A difference of longitudes the short way round.
#[inline(always)]
fn around(degrees: f64) -> f64 {
    if degrees > 180.0 {
        degrees - 360.0
    } else if degrees < -180.0 {
        degrees + 360.0
    } else {
        degrees
    }
}

/// sin x for small x, Taylor to x^7.
#[inline(always)]
fn sin_small(x: f64) -> f64 {
    let x2 = x * x;
    x * (1.0 - x2 * (1.0 / 6.0 - x2 * (1.0 / 120.0 - x2 / 5040.0)))
}

/// asin sqrt h for small h, Taylor to h^(7/2).
#[inline(always)]
fn asin_small(h: f64) -> f64 {
    h.sqrt() * (1.0 + h * (1.0 / 6.0 + h * (3.0 / 40.0 + h * (15.0 / 336.0))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_haversine(lat in -90.0f64..90.0, lon in -180.0f64..180.0, scale in 1e-7f64..2.0, dlat in -1.0f64..1.0, dlon in -1.0f64..1.0) {
            let (lat_b, lon_b) = ((lat + dlat * scale).clamp(-90.0, 90.0), (lon + dlon * scale).clamp(-180.0, 180.0));
            let exact = haversine_m(lat, lon, lat_b, lon_b);
            let short = Place::new(lat, lon).distance_m(&Place::new(lat_b, lon_b));
            prop_assert!((exact - short).abs() <= exact * 1e-12, "{exact} {short}");
        }
    }

    #[test]
    fn no_distance_to_itself() {
        assert_eq!(Place::new(52.5, 13.4).distance_m(&Place::new(52.5, 13.4)), 0.0);
    }
}
