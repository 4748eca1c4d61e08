//! Counts by rep and tumbling window.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use legwork_types::time::{LaneClock, TimeConfig, window_start};
use legwork_types::{StateEntry, StateError, Table, TableSnapshot};

use crate::state::{
    Archive, ArchiveConfig, Fingerprint, Index, Leave, Loader, NONE, Refs, Rows, Saver, Texts, Versioned, Versions,
    View, counts, damaged, hash_of, measures, names, snapshot, times, version_batch,
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
    archive: Option<Archive<WindowWire>>,
    leave: Leave<u32>,
    /// State of before there was an archive was taken up: not all rows are in the store.
    is_unsaved: bool,
}

impl<const N: usize> Windows<N> {
    /// Without windows. `archive`: how some leave memory, where there is a store and what is done may still change.
    pub(super) fn new(width_us: i64, archive: Option<ArchiveConfig>) -> Windows<N> {
        let (rows, index, recent, leave) = (Rows::default(), Index::default(), Vec::new(), Leave::new(archive, 1));
        let archive = archive.map(|config| Archive::new(config.section));
        Windows { rows, index, recent, width_us, retire_at: RETIRE_AT_MIN, archive, leave, is_unsaved: false }
    }

    /// Adds to the window of a rep that `time_us` falls in.
    pub(super) fn add(&mut self, rep: u32, time_us: i64, share: &Share<N>) {
        if share.counts == [0; N] {
            return;
        }
        let start_us = self.start_us(time_us);
        let slot = self.slot(rep, start_us).or_else(|| self.bring_back(rep, start_us));
        let slot = slot.unwrap_or_else(|| self.create(rep, start_us));
        self.recent[rep as usize] = slot;
        self.leave.stay(&slot);
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
        let slot = self.slot(rep, start_us).or_else(|| self.bring_back(rep, start_us));
        let slot = slot.expect("what is taken back was added");
        self.leave.stay(&slot);
        let row = self.rows.get_mut(slot);
        row.counts.iter_mut().zip(share.counts).for_each(|(sum, n)| *sum -= n);
        row.seconds -= share.nanos / NANOS_A_SECOND;
        row.nanos -= share.nanos % NANOS_A_SECOND;
        if row.counts == [0; N] {
            self.archive.iter_mut().for_each(|archive| archive.remove(name(rep, start_us)));
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
        let slot = self.rows.insert(WindowRow { window_start_us: start_us, seconds: 0, nanos: 0, rep, counts: [0; N] });
        self.enter(rep, start_us, slot)
    }

    fn enter(&mut self, rep: u32, start_us: i64, slot: u32) -> u32 {
        self.index.insert(hash_of((rep, start_us)), slot);
        if self.recent.len() <= rep as usize {
            self.recent.resize(rep as usize + 1, NONE);
        }
        slot
    }

    /// Whether none has left memory.
    pub(super) fn are_all_here(&self) -> bool {
        self.archive.as_ref().is_none_or(Archive::is_empty)
    }

    /// Key of a window that the store may have, and memory has not.
    pub(super) fn wanted(&self, rep: u32, time_us: i64) -> Option<Vec<u8>> {
        let start_us = self.start_us(time_us);
        let key = self.archive.as_ref()?.wanted(name(rep, start_us))?;
        let is_it = |slot: u32| (self.rows.get(slot).rep, self.rows.get(slot).window_start_us) == (rep, start_us);
        self.index.find(hash_of((rep, start_us)), is_it).is_none().then_some(key)
    }

    /// Takes a window that was read back into memory again, where there is one.
    fn bring_back(&mut self, rep: u32, start_us: i64) -> Option<u32> {
        let row = row_of(self.archive.as_mut()?.take(name(rep, start_us))?)?;
        if (row.rep, row.window_start_us) != (rep, start_us) {
            return None;
        }
        let slot = self.rows.bring_back(row);
        Some(self.enter(rep, start_us, slot))
    }

    /// Takes up a window that was wanted; false where the entry is none.
    pub(super) fn supply(&mut self, entry: &StateEntry) -> Result<bool, StateError> {
        let check = |wire: &WindowWire| match row_of::<N>(wire.clone()) {
            Some(_) => Ok(()),
            None => Err(damaged(entry.key[0], 0, format!("{} counts, not {N}", wire.4.len()))),
        };
        self.archive.as_mut().map_or(Ok(false), |archive| archive.supply(entry, check))
    }

    /// The batch is over.
    pub(super) fn forget_brought(&mut self) {
        self.archive.iter_mut().for_each(Archive::forget_brought);
    }

    /// The checkpoint with that revision is durable.
    pub(super) fn committed(&mut self, revision: u32) {
        self.archive.iter_mut().for_each(|archive| archive.committed(revision));
    }

    /// At a checkpoint, after [`Windows::versions`] and before [`Windows::save`]: copies windows that ended before the late horizon of the lane
    /// into `cold`, and lets go of those of which the copy is durable.
    pub(super) fn leave(&mut self, clock: &LaneClock, time: &TimeConfig, cold: &mut Vec<StateEntry>) {
        let Some(archive) = &mut self.archive else { return };
        archive.delete(clock.revision, cold);
        let at = (clock.newest_us.saturating_sub(time.late_horizon_us), clock.revision, archive.durable());
        let (rows, width_us) = (&self.rows, self.width_us);
        let gone = self.leave.advance((rows.len(), rows.n_slots()), at, |slot, before_us| {
            let row = rows.live(slot)?;
            let is_done = row.window_start_us.saturating_add(width_us) <= before_us;
            is_done.then(|| {
                cold.push(archive.copy(name(row.rep, row.window_start_us), &wire(row)));
                slot
            })
        });
        let mut gone: Vec<u32> = gone.into_iter().flatten().collect();
        gone.sort_unstable();
        for slot in gone {
            let row = self.rows.get(slot);
            archive.add(name(row.rep, row.window_start_us));
            let (rep, start_us) = (row.rep, row.window_start_us);
            self.rows.remove(slot);
            self.index.remove(hash_of((rep, start_us)), slot);
            self.recent[rep as usize] = NONE;
        }
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

    /// Writes what changed since the last checkpoint. Not for windows that follow from entities that are all in memory: those are counted
    /// again.
    pub(super) fn save(&mut self, section: u8, saver: &mut Saver) {
        let n_slots = self.rows.n_slots();
        let blocks = match std::mem::take(&mut self.is_unsaved) {
            true => Rows::<WindowRow<N>>::all_blocks(n_slots),
            false => self.rows.touched_blocks(),
        };
        let rows = &self.rows;
        saver.blocks(section, &blocks, n_slots, |slot| -> WindowWire {
            rows.live(slot).map_or_else(|| (0, 0, 0, 0, vec![0; N]), wire)
        });
        if let Some(archive) = &mut self.archive {
            archive.save(saver);
        }
    }

    /// Takes up what was written. *Returns* whether there was anything.
    pub(super) fn load(&mut self, section: u8, loader: &mut Loader<'_>, reps: Refs) -> Result<bool, StateError> {
        let mut by_slot = Vec::new();
        for (slot, wire) in (0..).zip(loader.blocks::<WindowWire>(section)?) {
            let n_counts = wire.4.len();
            let row = row_of::<N>(wire);
            let row = row.ok_or_else(|| damaged(section, 0, format!("{n_counts} counts, not {N}")))?;
            let WindowRow { rep, window_start_us, .. } = row;
            let is_live = row.counts != [0; N];
            if is_live {
                reps.known(rep)?;
                if self.start_us(window_start_us) != window_start_us {
                    return Err(damaged(section, 0, format!("no window starts at {window_start_us} us")));
                }
                self.index.insert(hash_of((rep, window_start_us)), slot);
            }
            by_slot.push((row, is_live));
        }
        let has_rows = !by_slot.is_empty();
        self.rows = Rows::restored(by_slot);
        self.recent = vec![NONE; reps.n];
        if let Some(archive) = &mut self.archive {
            archive.load(loader)?;
        }
        Ok(has_rows)
    }

    /// What was added was written before there was an archive: it counts as handed over, and is to be written.
    pub(super) fn take_over(&mut self) {
        self.rows.forget_changes();
        self.is_unsaved = self.archive.is_some();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let away = self.archive.as_ref().map_or(0, Archive::memory_bytes);
        self.rows.memory_bytes() + self.index.memory_bytes() + 4 * self.recent.capacity() + away
    }
}

fn name(rep: u32, start_us: i64) -> Fingerprint {
    Fingerprint::default().int(i64::from(rep)).int(start_us)
}

fn wire<const N: usize>(row: &WindowRow<N>) -> WindowWire {
    (row.window_start_us, row.seconds, row.nanos, row.rep, row.counts.to_vec())
}

/// None where the counts are not as many.
fn row_of<const N: usize>((window_start_us, seconds, nanos, rep, counts): WindowWire) -> Option<WindowRow<N>> {
    Some(WindowRow { window_start_us, seconds, nanos, rep, counts: counts.try_into().ok()? })
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
