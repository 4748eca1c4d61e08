//! Counts by rep and tumbling window.

use std::sync::Arc;

use arrow::array::ArrayRef;
use legwork_types::time::window_start;
use legwork_types::{Table, TableSnapshot};

use crate::state::{Index, NONE, Rows, Texts, View, counts, hash_of, measures, names, snapshot, times};

/// `N` counts, and seconds in nanoseconds, so that sums do not depend on their order.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowRow<const N: usize> {
    window_start_us: i64,
    /// Whole seconds, and nanoseconds beyond them, each summed on its own.
    seconds: i64,
    nanos: i64,
    rep: u32,
    counts: [u32; N],
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

const NANOS_A_SECOND: i64 = 1_000_000_000;

/// Rows exist while one of their counts is not zero.
#[derive(Debug)]
pub(super) struct Windows<const N: usize> {
    rows: Rows<WindowRow<N>>,
    index: Index,
    /// Slot of the row last added to, by rep: most events fall into it.
    recent: Vec<u32>,
    width_us: i64,
}

impl<const N: usize> Windows<N> {
    pub(super) fn new(width_us: i64) -> Windows<N> {
        Windows { rows: Rows::default(), index: Index::default(), recent: Vec::new(), width_us }
    }

    /// Adds to the window of a rep that `time_us` falls in.
    pub(super) fn add(&mut self, rep: u32, time_us: i64, share: &Share<N>) {
        if share.counts == [0; N] {
            return;
        }
        let start_us = window_start(time_us, self.width_us);
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
        let start_us = window_start(time_us, self.width_us);
        let slot = self.slot(rep, start_us).expect("what is taken back was added");
        let row = self.rows.get_mut(slot);
        row.counts.iter_mut().zip(share.counts).for_each(|(sum, n)| *sum -= n);
        row.seconds -= share.nanos / NANOS_A_SECOND;
        row.nanos -= share.nanos % NANOS_A_SECOND;
        if row.counts == [0; N] {
            self.rows.remove(slot);
            self.index.remove(hash_of((rep, start_us)), slot);
            self.recent[rep as usize] = NONE;
        }
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
        snapshot(table.schema(), &self.rows, WindowView { reps: reps.clone(), width_us: self.width_us })
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
            2 => times(rows.iter().map(|row| row.window_start_us + self.width_us)),
            _ if column - 3 < N => counts(rows.iter().map(|row| i64::from(row.counts[column - 3]))),
            _ => measures(rows.iter().map(|row| {
                // The sum is exact; it is rounded once, to the nearest Float64.
                let nanos = i128::from(row.seconds) * i128::from(NANOS_A_SECOND) + i128::from(row.nanos);
                nanos as f64 / NANOS_A_SECOND as f64
            })),
        }
    }
}
