//! Where a device was, in cells.

use h3o::{LatLng, Resolution};
use legwork_types::time::{DAY_US, window_start};

use crate::track::explain::Explained;

/// Cells with edges of some 200 m, a block of houses.
const RESOLUTION: Resolution = Resolution::Nine;

/// Kept fixes of a device in an H3 cell on a UTC day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coverage {
    pub(crate) day_us: i64,
    pub(crate) cell: u64,
    pub(crate) n_pings: u32,
    pub(crate) first_us: i64,
    pub(crate) last_us: i64,
}

impl Coverage {
    /// Adds kept fixes, in event-time order and later than those before, to a list sorted by day and cell.
    pub(crate) fn add_all<'a>(list: &mut Vec<Coverage>, explained: impl Iterator<Item = &'a Explained>) {
        let mut last = None;
        for ping in explained.filter(|e| e.is_kept()).map(|e| &e.ping) {
            let Ok(place) = LatLng::new(ping.lat, ping.lon) else { continue };
            let key = (window_start(ping.time_us, DAY_US), u64::from(place.to_cell(RESOLUTION)));
            let same = last.filter(|&at: &usize| (list[at].day_us, list[at].cell) == key);
            let found = same.map_or_else(|| list.binary_search_by_key(&key, |c| (c.day_us, c.cell)), Ok);
            let at = found.unwrap_or_else(|at| {
                let first_us = ping.time_us;
                list.insert(at, Coverage { day_us: key.0, cell: key.1, n_pings: 0, first_us, last_us: first_us });
                at
            });
            list[at].n_pings += 1;
            list[at].last_us = ping.time_us;
            last = Some(at);
        }
    }
}
