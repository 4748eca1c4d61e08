//! Where a device was, in cells.

use legwork_types::time::{DAY_US, window_start};

use crate::track::cell::Cells;
use crate::track::chunk::Start;
use crate::track::codec::Reader;
use crate::track::fold::{Decision, Journal, Params, Share, State, step};
use crate::track::ping::Ping;
use crate::track::rows::DeviceRows;

/// Kept fixes of a device in an H3 cell on a UTC day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Coverage {
    pub(crate) day_us: i64,
    pub(crate) cell: u64,
    pub(crate) n_pings: u32,
    pub(crate) first_us: i64,
    pub(crate) last_us: i64,
}

/// Those of the chunk that began at `part_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) part_us: i64,
    pub(crate) coverage: Coverage,
}

/// Fixes that the fold keeps.
#[derive(Debug, Default)]
struct Kept {
    ping: (i64, f64, f64),
    fixes: Vec<(i64, f64, f64)>,
}

impl Journal for Kept {
    fn ping(&mut self, ping: &Ping, _raw_m: f64) {
        self.ping = (ping.time_us, ping.lat, ping.lon);
    }

    fn decided(&mut self, decision: Decision, _share: Share, _leg_us: i64) {
        if !matches!(decision, Decision::Invalid | Decision::Mock | Decision::Accuracy | Decision::Speed) {
            self.fixes.push(self.ping);
        }
    }

    fn rejected(&mut self, time_us: i64) {
        if let Some(at) = self.fixes.iter().rposition(|fix| fix.0 == time_us) {
            self.fixes.remove(at);
        }
    }
}

impl Coverage {
    /// What a chunk covers that nothing is appended to. A fix that is judged by a later one belongs to that one's chunk, so that what a
    /// chunk covers depends on nothing behind it.
    pub(crate) fn of_chunk(params: &Params, start: Option<&Start>, pings: Reader<'_>) -> Vec<Coverage> {
        let (mut kept, state) = kept(params, start, pings);
        if let Some((pending_us, _)) = state.pending() {
            kept.rejected(pending_us);
        }
        by_cell(&kept.fixes)
    }

    /// What the open chunk covers, given the fix that is not judged yet counts.
    pub(crate) fn of_open(params: &Params, start: Option<&Start>, pings: Reader<'_>) -> Vec<Coverage> {
        by_cell(&kept(params, start, pings).0.fixes)
    }

    /// Adds what others, later ones, covered.
    pub(crate) fn merge(list: &mut Vec<Coverage>, others: &[Coverage]) {
        for other in others {
            match list.binary_search_by_key(&(other.day_us, other.cell), |c| (c.day_us, c.cell)) {
                Ok(at) => {
                    list[at].n_pings += other.n_pings;
                    list[at].first_us = list[at].first_us.min(other.first_us);
                    list[at].last_us = list[at].last_us.max(other.last_us);
                }
                Err(at) => list.insert(at, *other),
            }
        }
    }
}

fn kept(params: &Params, start: Option<&Start>, pings: Reader<'_>) -> (Kept, State) {
    let mut kept = Kept::default();
    let Some(start) = start else {
        return fold(params, kept, State::default(), DeviceRows::default(), None, pings);
    };
    kept.fixes.extend(start.state.pending().map(|(time_us, place)| (time_us, place.lat, place.lon)));
    fold(params, kept, start.state.clone(), DeviceRows::of(&start.open), start.before, pings)
}

fn fold(
    params: &Params,
    mut kept: Kept,
    mut state: State,
    mut rows: DeviceRows,
    mut before: Option<Ping>,
    pings: Reader<'_>,
) -> (Kept, State) {
    for ping in pings {
        step(params, &mut state, &mut rows, before.as_ref(), &ping, 0, &mut kept);
        before = Some(ping);
    }
    (kept, state)
}

/// Fixes in event-time order, by day and cell.
fn by_cell(fixes: &[(i64, f64, f64)]) -> Vec<Coverage> {
    let mut list: Vec<Coverage> = Vec::new();
    let (mut last, mut cells) = (None, Cells::default());
    for &(time_us, lat, lon) in fixes {
        let Some(cell) = cells.cell(lat, lon) else { continue };
        let key = (window_start(time_us, DAY_US), cell);
        let same = last.filter(|&at: &usize| (list[at].day_us, list[at].cell) == key);
        let found = same.map_or_else(|| list.binary_search_by_key(&key, |c| (c.day_us, c.cell)), Ok);
        let at = found.unwrap_or_else(|at| {
            let (day_us, cell) = key;
            list.insert(at, Coverage { day_us, cell, n_pings: 0, first_us: time_us, last_us: time_us });
            at
        });
        list[at].n_pings += 1;
        list[at].last_us = time_us;
        last = Some(at);
    }
    list
}
