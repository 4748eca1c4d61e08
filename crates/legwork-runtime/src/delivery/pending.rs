//! Rows that the lake does not hold yet.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use legwork_types::{BatchSnapshot, TableSnapshot};

/// How long rows are kept that a version of the lake holds: for queries that pinned the version before it.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Rows of one checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) number: u32,
    pub(crate) rows: Arc<dyn TableSnapshot>,
}

impl Part {
    pub(crate) fn of_batch(number: u32, batch: RecordBatch) -> Part {
        Part { number, rows: Arc::new(BatchSnapshot::new(batch.schema(), vec![batch])) }
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
    /// What the lake holds since then.
    covered: Vec<(Instant, Part)>,
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
    pub(crate) fn made(&mut self, number: u32) {
        for table in self.tables.values_mut() {
            let made = table.unmade.extract_if(.., |part| part.number <= number);
            table.parts.extend(made.filter(|part| part.rows.n_rows() > 0));
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

    /// The lake holds what [`Pending::until`] gave of a table, but for `carried`.
    pub(crate) fn cover(&mut self, table: &str, through: u32, carried: Option<RecordBatch>, now: Instant) {
        let Some(table) = self.tables.get_mut(table) else { return };
        let (covered, parts) = std::mem::take(&mut table.parts).into_iter().partition(|part| part.number <= through);
        let covered: Vec<Part> = covered;
        table.parts = parts;
        table.covered.extend(table.carried.take().into_iter().chain(covered).map(|part| (now, part)));
        table.carried = carried.filter(|rows| rows.num_rows() > 0).map(|rows| Part::of_batch(through, rows));
    }

    /// Lets go of what the lake has held for long enough.
    pub(crate) fn expire(&mut self, now: Instant) {
        for table in self.tables.values_mut() {
            table.covered.retain(|(since, _)| now.duration_since(*since) < GRACE);
        }
    }

    /// All rows that a query may miss in the lake.
    pub(crate) fn fresh(&self, table: &str) -> Vec<Part> {
        let Some(table) = self.tables.get(table) else { return Vec::new() };
        let covered = table.covered.iter().map(|(_, part)| part);
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

/// Batches as bytes: Arrow streams, one for each run of batches of one schema, each after its length.
pub(crate) fn to_ipc(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    for run in batches.chunk_by(|a, b| a.schema_ref() == b.schema_ref()) {
        let mut writer = StreamWriter::try_new(Vec::new(), run[0].schema_ref())?;
        run.iter().try_for_each(|batch| writer.write(batch))?;
        let stream = writer.into_inner()?;
        bytes.extend_from_slice(&(stream.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&stream);
    }
    Ok(bytes)
}

/// What [`to_ipc`] wrote.
pub(crate) fn from_ipc(mut bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut batches = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((stream, rest)) = rest.split_at_checked(length) else {
            return Err(ArrowError::IpcError("a stream ends before its length".to_owned()));
        };
        for batch in StreamReader::try_new(Cursor::new(stream), None)? {
            batches.push(batch?);
        }
        bytes = rest;
    }
    Ok(batches)
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
        Part::of_batch(number, batch("n", &[number]))
    }

    fn numbers(parts: &[Part]) -> Vec<u32> {
        parts.iter().map(|part| part.number).collect()
    }

    #[test]
    fn rows_stay_until_the_lake_has_held_them_for_a_while() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        (1..=3).for_each(|number| pending.add("t", part(number)));
        assert_eq!(numbers(&pending.until(2, false)[0].1), [1, 2]);
        pending.cover("t", 2, Some(batch("n", &[1])), now);
        assert_eq!((numbers(&pending.fresh("t")), pending.n_rows()), (vec![1, 2, 2, 3], 1));
        pending.expire(now + GRACE);
        assert_eq!(numbers(&pending.fresh("t")), [2, 3]);
        assert_eq!(numbers(&pending.until(3, false)[0].1), [2, 3]);
        pending.cover("t", 3, Some(batch("n", &[1])), now);
        assert!(pending.until(3, false).is_empty());
        assert_eq!(numbers(&pending.until(3, true)[0].1), [3]);
        pending.cover("t", 3, None, now);
        pending.expire(now + GRACE);
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
            Part { number, rows: Arc::new(rows) }
        };
        let mut pending = Pending::default();
        pending.add("t", part(1));
        pending.add_unmade("t", lazy(2, &[2, 2]));
        pending.add_unmade("u", lazy(2, &[]));
        assert_eq!((pending.n_rows(), numbers(&pending.until(1, false)[0].1), n_made.load(Relaxed)), (1, vec![1], 0));
        let fresh = pending.fresh("t");
        assert_eq!(fresh[1].batches().map(|batch| batch.num_rows()).sum::<usize>(), 2);
        pending.made(2);
        assert_eq!((pending.n_rows(), n_made.load(Relaxed)), (3, 2));
        assert_eq!(numbers(&pending.until(2, false)[0].1), [1, 2]);
        assert_eq!(pending.until(2, false).len(), 1, "none of the other table");
    }

    #[test]
    fn bytes_are_read_as_they_were_written() {
        let (n, m) = (batch("n", &[1, 2]), batch("m", &[3]));
        let batches = [n.clone(), n.slice(1, 1), m, n];
        let bytes = to_ipc(&batches).unwrap();
        assert_eq!(from_ipc(&bytes).unwrap(), batches);
        assert_eq!(from_ipc(&to_ipc(&[]).unwrap()).unwrap(), []);
        assert!(from_ipc(&bytes[..bytes.len() - 1]).is_err());
    }
}
