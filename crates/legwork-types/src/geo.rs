//! Distances on the sphere.

/// Mean radius of the Earth, metres: IUGG 1980, R1 = (2a + b) / 3 of GRS 80, rounded to 0.1 m.
pub const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// Great-circle distance, metres, between two points in degrees. *Source:* R. W. Sinnott, "Virtues of the Haversine", 1984.
#[inline]
pub fn haversine_m(lat_a: f64, lon_a: f64, lat_b: f64, lon_b: f64) -> f64 {
    let (phi_a, phi_b) = (lat_a.to_radians(), lat_b.to_radians());
    let half_dphi = (phi_b - phi_a) * 0.5;
    let half_dlambda = (lon_b - lon_a).to_radians() * 0.5;
    let (sin_phi, sin_lambda) = (half_dphi.sin(), half_dlambda.sin());
    let h = sin_phi * sin_phi + phi_a.cos() * phi_b.cos() * sin_lambda * sin_lambda;
    2.0 * EARTH_RADIUS_M * h.sqrt().min(1.0).asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distances() {
        // One degree of a meridian is R * pi / 180.
        assert!((haversine_m(0.0, 0.0, 1.0, 0.0) - 111_195.080_233_532_9).abs() < 1e-6);
        assert!((haversine_m(0.0, 179.5, 0.0, -179.5) - 111_195.080_233_532_9).abs() < 1e-6);
        assert_eq!(haversine_m(52.5, 13.4, 52.5, 13.4), 0.0);
        assert!((haversine_m(90.0, 0.0, -90.0, 0.0) - std::f64::consts::PI * EARTH_RADIUS_M).abs() < 1e-6);
    }
}
