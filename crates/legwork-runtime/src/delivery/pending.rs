//! Rows that the lake does not hold yet.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use legwork_types::{BatchSnapshot, Table, TableSnapshot};

use super::{EncodedRows, Held, HeldBytes};

/// How long rows are kept that a version of the lake holds: for queries that pinned the version before it.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Rows of one checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) number: u32,
    pub(crate) rows: Arc<dyn TableSnapshot>,
    /// The same rows as the lake can take them.
    pub(crate) file: Option<Bytes>,
    _held: Option<Arc<Held>>,
}

impl Part {
    pub(crate) fn of_batch(number: u32, batch: RecordBatch, held: &HeldBytes) -> Part {
        let held = Arc::new(held.hold(batch.get_array_memory_size()));
        let rows = Arc::new(BatchSnapshot::new(batch.schema(), vec![batch]));
        Part { number, rows, file: None, _held: Some(held) }
    }

    pub(crate) fn new(number: u32, rows: Arc<dyn TableSnapshot>) -> Part {
        Part { number, rows, file: None, _held: None }
    }

    pub(crate) fn of_file(number: u32, rows: EncodedRows) -> Part {
        Part { number, file: Some(rows.bytes().clone()), rows: Arc::new(rows), _held: None }
    }

    /// All rows, chunk by chunk.
    pub(crate) fn batches(&self) -> impl Iterator<Item = RecordBatch> {
        (0..self.rows.n_chunks()).map(|chunk_idx| self.rows.chunk(chunk_idx, None))
    }
}

#[derive(Debug, Default)]
struct PendingTable {
    /// Open rows that the lake left out, under the number through which it holds all others.
    carried: Option<Part>,
    /// By number.
    parts: Vec<Part>,
    /// Of the newest checkpoint, while it is on its way: they may not be made yet.
    unmade: Vec<Part>,
    /// What the lake holds since then, in versions with at least this transaction number.
    covered: Vec<(Instant, u32, Part)>,
    /// The newest transaction number in the lake.
    in_lake: u32,
    /// Of what has been let go: versions of the lake with a smaller number lack some of it.
    after: u32,
}

/// Rows of a lane that the lake does not hold yet, by table.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    tables: BTreeMap<String, PendingTable>,
}

impl Pending {
    /// Adds rows of a checkpoint; numbers ascend.
    pub(crate) fn add(&mut self, table: &str, part: Part) {
        if part.rows.n_rows() > 0 {
            self.tables.entry(table.to_owned()).or_default().parts.push(part);
        }
    }

    /// Adds rows of the newest checkpoint that need not be made yet: they are when it is durable, or when they are asked for.
    pub(crate) fn add_unmade(&mut self, table: &str, part: Part) {
        self.tables.entry(table.to_owned()).or_default().unmade.push(part);
    }

    /// Checkpoint `number` is durable: all its rows have been made.
    pub(crate) fn made(&mut self, number: u32, held: &HeldBytes) {
        for table in self.tables.values_mut() {
            for part in table.unmade.extract_if(.., |part| part.number <= number) {
                let batches = part.batches().filter(|batch| batch.num_rows() > 0);
                table.parts.extend(batches.map(|batch| Part::of_batch(part.number, batch, held)));
            }
        }
    }

    /// Puts files in the place of the rows of checkpoint `number`.
    pub(crate) fn replace(&mut self, table: Table, number: u32, files: Vec<Bytes>, held: &HeldBytes) {
        let Some(PendingTable { parts, .. }) = self.tables.get_mut(table.name()) else { return };
        let open = |file| EncodedRows::open(file, table.version_schema(), held);
        // What cannot be read back stays as it is.
        if let Ok(files) = files.into_iter().map(open).collect::<Result<Vec<_>, _>>() {
            parts.retain(|part| part.number != number);
            parts.extend(files.into_iter().map(|rows| Part::new(number, Arc::new(rows))));
        }
    }

    /// Rows that were left out by the lake because they were open.
    pub(crate) fn carry(&mut self, table: &str, part: Part) {
        if part.rows.n_rows() > 0 {
            self.tables.entry(table.to_owned()).or_default().carried = Some(part);
        }
    }

    /// What is to be committed when checkpoint `number` is durable: tables with anything new, or with rows carried if those are due.
    pub(crate) fn until(&self, number: u32, carried_are_due: bool) -> Vec<(String, Vec<Part>)> {
        let table = |(name, table): (&String, &PendingTable)| {
            let parts = table.parts.iter().filter(|part| part.number <= number);
            let is_new = parts.clone().next().is_some();
            let is_due = is_new || (carried_are_due && table.carried.is_some());
            is_due.then(|| (name.clone(), table.carried.iter().chain(parts).cloned().collect()))
        };
        self.tables.iter().filter_map(table).collect()
    }

    /// The lake held rows through this number when the lane was claimed: those are not here.
    pub(crate) fn begin_after(&mut self, table: &str, number: u32) {
        let table = self.tables.entry(table.to_owned()).or_default();
        (table.in_lake, table.after) = (number, number);
    }

    /// The lake holds what [`Pending::until`] gave of a table, but for `carried`. `is_numbered`: its transaction number says so.
    pub(crate) fn cover(
        &mut self,
        table: &str,
        (through, is_numbered): (u32, bool),
        carried: Option<Part>,
        now: Instant,
    ) {
        let Some(table) = self.tables.get_mut(table) else { return };
        if is_numbered {
            table.in_lake = through;
        }
        let (covered, parts) = std::mem::take(&mut table.parts).into_iter().partition(|part| part.number <= through);
        let covered: Vec<Part> = covered;
        table.parts = parts;
        let covered = table.carried.take().into_iter().chain(covered);
        table.covered.extend(covered.map(|part| (now, table.in_lake, part)));
        table.carried = carried.filter(|part| part.rows.n_rows() > 0);
    }

    /// Lets go of what the lake has held for long enough; of all that it holds, if room is tight.
    pub(crate) fn expire(&mut self, now: Instant, is_tight: bool) {
        for PendingTable { covered, after, .. } in self.tables.values_mut() {
            covered.retain(|(since, number, _)| {
                let is_kept = !is_tight && now.duration_since(*since) < GRACE;
                if !is_kept {
                    *after = (*after).max(*number);
                }
                is_kept
            });
        }
    }

    /// [`legwork_types::FreshRows::after`] of a table.
    pub(crate) fn after(&self, table: &str) -> u32 {
        self.tables.get(table).map_or(0, |table| table.after)
    }

    /// All rows that a query may miss in the lake.
    pub(crate) fn fresh(&self, table: &str) -> Vec<Part> {
        let Some(table) = self.tables.get(table) else { return Vec::new() };
        let covered = table.covered.iter().map(|(_, _, part)| part);
        covered.chain(&table.carried).chain(&table.parts).chain(&table.unmade).cloned().collect()
    }

    /// Rows carried, by table.
    pub(crate) fn carried(&self) -> impl Iterator<Item = (&str, &Part)> {
        self.tables.iter().filter_map(|(name, table)| Some((name.as_str(), table.carried.as_ref()?)))
    }

    /// Rows that wait for the lake.
    pub(crate) fn n_rows(&self) -> usize {
        self.tables.values().flat_map(|table| &table.parts).map(|part| part.rows.n_rows()).sum()
    }
}

/// Marks the length of a Parquet file among those of Arrow streams.
const IS_FILE: u64 = 1 << 63;

/// Rows of one table as the store has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StoredRows {
    pub(crate) batches: Vec<RecordBatch>,
    /// More rows, as Parquet files.
    pub(crate) files: Vec<Bytes>,
}

impl StoredRows {
    pub(crate) fn of_batches(batches: Vec<RecordBatch>) -> StoredRows {
        StoredRows { batches, files: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.batches.iter().all(|batch| batch.num_rows() == 0)
    }

    /// As bytes: Arrow streams, one for each run of batches of one schema, then files, each after its length (64 bits, little endian, the
    /// highest one set for files).
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, ArrowError> {
        let mut bytes = Vec::with_capacity(self.files.iter().map(|file| file.len() + 8).sum());
        let mut push = |part: &[u8], mark: u64| {
            bytes.extend_from_slice(&(part.len() as u64 | mark).to_le_bytes());
            bytes.extend_from_slice(part);
        };
        for run in self.batches.chunk_by(|a, b| a.schema_ref() == b.schema_ref()) {
            let mut writer = StreamWriter::try_new(Vec::new(), run[0].schema_ref())?;
            run.iter().try_for_each(|batch| writer.write(batch))?;
            push(&writer.into_inner()?, 0);
        }
        self.files.iter().for_each(|file| push(file, IS_FILE));
        Ok(bytes)
    }

    /// What [`StoredRows::to_bytes`] wrote.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Result<StoredRows, ArrowError> {
        let (mut rows, mut bytes) = (StoredRows::default(), Bytes::from(bytes));
        while let Some(&length) = bytes.first_chunk::<8>() {
            let length = u64::from_le_bytes(length);
            let n_bytes = usize::try_from(length & !IS_FILE).unwrap_or(usize::MAX);
            if n_bytes > bytes.len() - 8 {
                return Err(ArrowError::IpcError("rows end before their length".to_owned()));
            }
            let part = bytes.split_to(8 + n_bytes).slice(8..);
            if length & IS_FILE != 0 {
                rows.files.push(part);
                continue;
            }
            for batch in StreamReader::try_new(Cursor::new(part), None)? {
                rows.batches.push(batch?);
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::array::{ArrayRef, UInt32Array};

    use super::*;

    fn batch(name: &str, values: &[u32]) -> RecordBatch {
        let column: ArrayRef = Arc::new(UInt32Array::from(values.to_vec()));
        RecordBatch::try_from_iter([(name, column)]).unwrap()
    }

    fn part(number: u32) -> Part {
        Part::of_batch(number, batch("n", &[number]), &HeldBytes::default())
    }

    fn numbers(parts: &[Part]) -> Vec<u32> {
        parts.iter().map(|part| part.number).collect()
    }

    #[test]
    fn rows_stay_until_the_lake_has_held_them_for_a_while() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        (1..=3).for_each(|number| pending.add("t", part(number)));
        assert_eq!(numbers(&pending.until(2, false)[0].1), [1, 2]);
        pending.cover("t", (2, true), Some(part(2)), now);
        pending.expire(now, false);
        assert_eq!((numbers(&pending.fresh("t")), pending.n_rows(), pending.after("t")), (vec![1, 2, 2, 3], 1, 0));
        pending.expire(now + GRACE, false);
        assert_eq!((numbers(&pending.fresh("t")), pending.after("t")), (vec![2, 3], 2));
        assert_eq!(numbers(&pending.until(3, false)[0].1), [2, 3]);
        pending.cover("t", (3, true), Some(part(3)), now);
        pending.expire(now, true);
        assert_eq!((numbers(&pending.fresh("t")), pending.after("t")), (vec![3], 3));
        assert!(pending.until(3, false).is_empty());
        assert_eq!(numbers(&pending.until(3, true)[0].1), [3]);
        pending.cover("t", (4, false), Some(part(4)), now);
        pending.expire(now, true);
        assert_eq!(pending.after("t"), 3, "the lake's number is still 3");
        pending.cover("t", (5, true), None, now);
        pending.expire(now + GRACE, false);
        assert!(pending.fresh("t").is_empty() && pending.carried().next().is_none());
    }

    #[test]
    fn rows_that_are_made_later_are_made_by_who_asks_first() {
        use legwork_types::LazySnapshot;
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

        let n_made = Arc::new(AtomicUsize::new(0));
        let lazy = |number: u32, values: &'static [u32]| {
            let (n_made, schema) = (n_made.clone(), batch("n", &[]).schema());
            let rows = LazySnapshot::new(schema, move || {
                n_made.fetch_add(1, Relaxed);
                batch("n", values)
            });
            Part::new(number, Arc::new(rows))
        };
        let mut pending = Pending::default();
        pending.add("t", part(1));
        pending.add_unmade("t", lazy(2, &[2, 2]));
        pending.add_unmade("u", lazy(2, &[]));
        assert_eq!((pending.n_rows(), numbers(&pending.until(1, false)[0].1), n_made.load(Relaxed)), (1, vec![1], 0));
        let fresh = pending.fresh("t");
        assert_eq!(fresh[1].batches().map(|batch| batch.num_rows()).sum::<usize>(), 2);
        pending.made(2, &HeldBytes::default());
        assert_eq!((pending.n_rows(), n_made.load(Relaxed)), (3, 2));
        assert_eq!(numbers(&pending.until(2, false)[0].1), [1, 2]);
        assert_eq!(pending.until(2, false).len(), 1, "none of the other table");
    }

    #[test]
    fn bytes_are_read_as_they_were_written() {
        let (n, m) = (batch("n", &[1, 2]), batch("m", &[3]));
        let batches = [n.clone(), n.slice(1, 1), m, n];
        let rows = StoredRows { batches: batches.to_vec(), files: vec![Bytes::from_static(b"PAR1"), Bytes::new()] };
        let bytes = rows.to_bytes().unwrap();
        assert_eq!(StoredRows::from_bytes(bytes.clone()).unwrap(), rows);
        assert_eq!(StoredRows::from_bytes(StoredRows::default().to_bytes().unwrap()).unwrap(), StoredRows::default());
        assert!(StoredRows::from_bytes(bytes[..bytes.len() - 9].to_vec()).is_err());
    }
}
