//! Counts by rep and tumbling window.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use legwork_types::time::window_start;
use legwork_types::{StateError, Table, TableSnapshot};

use crate::state::{
    Index, Loader, NONE, Refs, Rows, Saver, Texts, Versioned, Versions, View, counts, damaged, hash_of, measures,
    names, snapshot, times, version_batch,
};

/// `N` counts, and seconds in nanoseconds, so that sums do not depend on their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowRow<const N: usize> {
    window_start_us: i64,
    /// Whole seconds, and nanoseconds beyond them, each summed on its own.
    seconds: i64,
    nanos: i64,
    rep: u32,
    counts: [u32; N],
}

/// A window in the store: start, seconds, nanoseconds, rep, counts. One whose counts are all 0 is a free slot.
type WindowWire = (i64, i64, i64, u32, Vec<u32>);

impl<const N: usize> Versioned for WindowRow<N> {
    type Key = (u32, i64);

    fn key(&self) -> (u32, i64) {
        (self.rep, self.window_start_us)
    }

    fn day_time_us(&self) -> i64 {
        self.window_start_us
    }

    fn says_same(&self, other: &WindowRow<N>) -> bool {
        self == other
    }
}

/// What one entity or fact adds to its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share<const N: usize> {
    pub(super) counts: [u32; N],
    pub(super) nanos: i64,
}

impl<const N: usize> Share<N> {
    /// Counts without seconds.
    pub(super) fn of(counts: [u32; N]) -> Share<N> {
        Share { counts, nanos: 0 }
    }
}

const RETIRE_AT_MIN: usize = 64;
const NANOS_A_SECOND: i64 = 1_000_000_000;

/// Rows exist while one of their counts is not zero.
#[derive(Debug)]
pub(super) struct Windows<const N: usize> {
    rows: Rows<WindowRow<N>>,
    index: Index,
    /// Slot of the row last added to, by rep: most events fall into it.
    recent: Vec<u32>,
    width_us: i64,
    /// Number of rows at which it is worth looking for those that are done.
    retire_at: usize,
}

impl<const N: usize> Windows<N> {
    pub(super) fn new(width_us: i64) -> Windows<N> {
        let (rows, index, recent) = (Rows::default(), Index::default(), Vec::new());
        Windows { rows, index, recent, width_us, retire_at: RETIRE_AT_MIN }
    }

    /// Adds to the window of a rep that `time_us` falls in.
    pub(super) fn add(&mut self, rep: u32, time_us: i64, share: &Share<N>) {
        if share.counts == [0; N] {
            return;
        }
        let start_us = self.start_us(time_us);
        let slot = self.slot(rep, start_us).unwrap_or_else(|| self.create(rep, start_us));
        self.recent[rep as usize] = slot;
        let row = self.rows.get_mut(slot);
        row.counts.iter_mut().zip(share.counts).for_each(|(sum, n)| *sum += n);
        row.seconds += share.nanos / NANOS_A_SECOND;
        row.nanos += share.nanos % NANOS_A_SECOND;
    }

    /// Takes back what was added.
    pub(super) fn subtract(&mut self, rep: u32, time_us: i64, share: &Share<N>) {
        if share.counts == [0; N] {
            return;
        }
        let start_us = self.start_us(time_us);
        let slot = self.slot(rep, start_us).expect("what is taken back was added");
        let row = self.rows.get_mut(slot);
        row.counts.iter_mut().zip(share.counts).for_each(|(sum, n)| *sum -= n);
        row.seconds -= share.nanos / NANOS_A_SECOND;
        row.nanos -= share.nanos % NANOS_A_SECOND;
        if row.counts == [0; N] {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        let WindowRow { rep, window_start_us, .. } = *self.rows.get(slot);
        self.rows.remove(slot);
        self.index.remove(hash_of((rep, window_start_us)), slot);
        self.recent[rep as usize] = NONE;
    }

    /// Lets go of windows that will not change: those that ended before `horizon_us` of their rep. What they say was handed over: this
    /// comes after [`Windows::versions`], and before [`Windows::save`]. Done when the number has doubled, so that it costs little.
    pub(super) fn retire(&mut self, horizon_us: impl Fn(u32) -> i64) {
        if self.rows.len() >= self.retire_at && self.rows.is_touched() {
            let width_us = self.width_us;
            let is_done = |row: &WindowRow<N>| row.window_start_us.saturating_add(width_us) <= horizon_us(row.rep);
            self.rows.slots(is_done).into_iter().for_each(|slot| self.remove(slot));
            self.retire_at = (2 * self.rows.len()).max(RETIRE_AT_MIN);
        }
    }

    /// Times further out than any clock's share the outermost windows.
    #[inline]
    fn start_us(&self, time_us: i64) -> i64 {
        window_start(time_us.clamp(i64::MIN / 2, i64::MAX / 2), self.width_us)
    }

    #[inline]
    fn slot(&mut self, rep: u32, start_us: i64) -> Option<u32> {
        let is_it = |slot: u32| {
            let row = self.rows.get(slot);
            row.rep == rep && row.window_start_us == start_us
        };
        let recent = self.recent.get(rep as usize).copied().unwrap_or(NONE);
        if recent != NONE && is_it(recent) {
            return Some(recent);
        }
        self.index.find(hash_of((rep, start_us)), is_it)
    }

    fn create(&mut self, rep: u32, start_us: i64) -> u32 {
        let row = WindowRow { window_start_us: start_us, seconds: 0, nanos: 0, rep, counts: [0; N] };
        let slot = self.rows.insert(row);
        self.index.insert(hash_of((rep, start_us)), slot);
        if self.recent.len() <= rep as usize {
            self.recent.resize(rep as usize + 1, NONE);
        }
        slot
    }

    /// As a table of rep_id, window_start, window_end, the counts and, where the table has one more column, the seconds.
    pub(super) fn snapshot(&self, table: Table, reps: &Texts) -> Arc<dyn TableSnapshot> {
        snapshot(table.schema(), &self.rows, self.view(reps))
    }

    fn view(&self, reps: &Texts) -> WindowView<N> {
        WindowView { reps: reps.clone(), width_us: self.width_us }
    }

    /// Versions of what changed since the last checkpoint.
    pub(super) fn versions(&self, table: Table, reps: &Texts, revision: u32) -> Option<RecordBatch> {
        version_batch(table, &Versions::of(&self.rows), &self.view(reps), revision)
    }

    /// What is there counts as handed over.
    pub(super) fn forget_changes(&mut self) {
        self.rows.forget_changes();
    }

    /// Writes what changed since the last checkpoint. Not for windows that follow from entities: those are counted again.
    pub(super) fn save(&self, section: u8, saver: &mut Saver) {
        saver.blocks(section, &self.rows.touched_blocks(), self.rows.n_slots(), |slot| -> WindowWire {
            match self.rows.live(slot) {
                Some(row) => (row.window_start_us, row.seconds, row.nanos, row.rep, row.counts.to_vec()),
                None => (0, 0, 0, 0, vec![0; N]),
            }
        });
    }

    /// Takes up what was written.
    pub(super) fn load(&mut self, section: u8, loader: &mut Loader<'_>, reps: Refs) -> Result<(), StateError> {
        let mut by_slot = Vec::new();
        for (slot, (window_start_us, seconds, nanos, rep, counts)) in (0..).zip(loader.blocks::<WindowWire>(section)?) {
            let counts: [u32; N] = counts
                .try_into()
                .map_err(|counts: Vec<u32>| damaged(section, 0, format!("{} counts, not {N}", counts.len())))?;
            let is_live = counts != [0; N];
            if is_live {
                reps.known(rep)?;
                if self.start_us(window_start_us) != window_start_us {
                    return Err(damaged(section, 0, format!("no window starts at {window_start_us} us")));
                }
                self.index.insert(hash_of((rep, window_start_us)), slot);
            }
            by_slot.push((WindowRow { window_start_us, seconds, nanos, rep, counts }, is_live));
        }
        self.rows = Rows::restored(by_slot);
        self.recent = vec![NONE; reps.n];
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.index.memory_bytes() + 4 * self.recent.capacity()
    }
}

#[derive(Debug)]
struct WindowView<const N: usize> {
    reps: Texts,
    width_us: i64,
}

impl<const N: usize> View for WindowView<N> {
    type Row = WindowRow<N>;

    fn column(&self, column: usize, rows: &[&WindowRow<N>]) -> ArrayRef {
        match column {
            0 => names(&self.reps, rows.iter().map(|row| row.rep)),
            1 => times(rows.iter().map(|row| row.window_start_us)),
            2 => times(rows.iter().map(|row| row.window_start_us.saturating_add(self.width_us))),
            _ if column - 3 < N => counts(rows.iter().map(|row| i64::from(row.counts[column - 3]))),
            _ => measures(rows.iter().map(|row| {
                // The sum is exact; it is rounded once, to the nearest Float64.
                let nanos = i128::from(row.seconds) * i128::from(NANOS_A_SECOND) + i128::from(row.nanos);
                nanos as f64 / NANOS_A_SECOND as f64
            })),
        }
    }
}
