//! Parameters of the track filter.

use legwork_types::time::MINUTE_US;

/// The section `[track]` of the configuration: how a track is filtered.
///
/// *Source* of the defaults: 200 m is what a phone reports when it knows only its cell; 70 m/s (252 km/h) is faster than any car or
/// regional train; 15 m is three times the 68 % accuracy of a phone under open sky (GPS.gov: 4.9 m); 100 m and five minutes are common
/// in stay-point detection (Li et al. 2008 use 200 m and 20 min for places, Hariharan and Toyama 2004 smaller scales); phones that
/// report at all report more often than each 15 minutes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackConfig {
    /// Fixes whose reported accuracy is worse are left out, metres.
    pub accuracy_m_max: f64,
    /// Legs that are faster are impossible, metres per second.
    pub speed_mps_max: f64,
    /// Movement counts once a fix is farther than this from the last counted one, metres.
    pub anchor_m_min: f64,
    /// ... and farther than this many times its reported accuracy.
    pub anchor_accuracy_factor: f64,
    /// Fixes within this distance of a stay's centre belong to it, metres.
    pub stay_radius_m: f64,
    /// Standing still for so long is a stay, microseconds.
    pub stay_min_us: i64,
    /// A leg that took longer is a gap, microseconds.
    pub gap_max_us: i64,
    /// Bound on the memory of the operator's sealed chunks, bytes, where there is a store from which they come back.
    pub memory_bytes_max: u64,
    /// Whether changes are handed over to a store at checkpoints. Without one everything stays in memory.
    pub has_store: bool,
}

impl Default for TrackConfig {
    fn default() -> TrackConfig {
        TrackConfig {
            accuracy_m_max: 200.0,
            speed_mps_max: 70.0,
            anchor_m_min: 15.0,
            anchor_accuracy_factor: 1.0,
            stay_radius_m: 100.0,
            stay_min_us: 5 * MINUTE_US,
            gap_max_us: 15 * MINUTE_US,
            memory_bytes_max: 1 << 30,
            has_store: false,
        }
    }
}
