//! Compact rows in shared blocks, and snapshots of them that become Arrow when read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, SchemaRef};
use legwork_types::TableSnapshot;

use super::Texts;
use super::persist::BLOCK_ITEMS;

/// The time that stands for none.
pub(crate) const NO_TIME: i64 = i64::MIN;

/// Rows a block: what the writer copies when it touches one row that a reader holds.
const BLOCK_ROWS: usize = 1024;
/// Blocks a chunk of a snapshot.
const CHUNK_BLOCKS: usize = 8;

#[derive(Clone, Debug)]
struct Block<R> {
    rows: Vec<R>,
    live: [u64; BLOCK_ROWS / 64],
}

impl<R> Block<R> {
    fn is_live(&self, idx: usize) -> bool {
        self.live[idx / 64] >> (idx % 64) & 1 == 1
    }

    fn live_rows(&self) -> impl Iterator<Item = &R> {
        self.rows.iter().enumerate().filter(|(idx, _)| self.is_live(*idx)).map(|(_, row)| row)
    }
}

/// Rows by slot. Slots of removed rows are used again, the smallest first.
#[derive(Clone, Debug)]
pub(crate) struct Rows<R> {
    blocks: Vec<Arc<Block<R>>>,
    free: BinaryHeap<Reverse<u32>>,
    n_live: usize,
    touched: Option<Touched<R>>,
}

/// Slots touched since the last checkpoint, with the rows that were in them then.
#[derive(Clone, Debug)]
struct Touched<R> {
    is_touched: Vec<u64>,
    before: Vec<(u32, Option<R>)>,
}

impl<R> Default for Rows<R> {
    fn default() -> Rows<R> {
        Rows { blocks: Vec::new(), free: BinaryHeap::new(), n_live: 0, touched: None }
    }
}

impl<R: Copy> Touched<R> {
    #[inline]
    fn touch(&mut self, slot: u32, before: impl FnOnce() -> Option<R>) {
        let (idx, bit) = (slot as usize / 64, 1 << (slot % 64));
        if self.is_touched.len() <= idx {
            self.is_touched.resize(idx + 1, 0);
        }
        if self.is_touched[idx] & bit == 0 {
            self.is_touched[idx] |= bit;
            self.before.push((slot, before()));
        }
    }
}

impl<R: Copy> Rows<R> {
    /// The rows, by slot, as they came from the store; false where a slot is free. What changes from now on is noted.
    pub(crate) fn restored(by_slot: impl IntoIterator<Item = (R, bool)>) -> Rows<R> {
        let mut rows = Rows::default();
        let mut free = Vec::new();
        for (row, is_live) in by_slot {
            let slot = rows.insert(row);
            if !is_live {
                free.push(slot);
            }
        }
        free.into_iter().for_each(|slot| rows.remove(slot));
        rows.forget_changes();
        rows
    }

    /// Slots touched since the last checkpoint, with the rows that were in them then. None before the first one: every row is new.
    pub(crate) fn touched(&self) -> Option<&[(u32, Option<R>)]> {
        self.touched.as_ref().map(|touched| touched.before.as_slice())
    }

    /// Blocks of slots, as they lie in the store, with touched ones; all before the first checkpoint.
    pub(crate) fn touched_blocks(&self) -> Vec<u32> {
        match &self.touched {
            None => Self::all_blocks(self.n_slots()),
            Some(touched) => {
                let mut blocks: Vec<u32> = touched.before.iter().map(|(slot, _)| slot / BLOCK_ITEMS as u32).collect();
                blocks.sort_unstable();
                blocks.dedup();
                blocks
            }
        }
    }

    /// Blocks of so many slots, as they lie in the store.
    pub(crate) fn all_blocks(n_slots: usize) -> Vec<u32> {
        (0..n_slots.div_ceil(BLOCK_ITEMS) as u32).collect()
    }

    /// Whether a row was touched since the last checkpoint.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.as_ref().map_or(self.n_live > 0, |touched| !touched.before.is_empty())
    }

    /// What is there counts as handed over.
    pub(crate) fn forget_changes(&mut self) {
        let touched = self.touched.get_or_insert_with(|| Touched { is_touched: Vec::new(), before: Vec::new() });
        for (slot, _) in touched.before.drain(..) {
            touched.is_touched[slot as usize / 64] = 0;
        }
        touched.before.shrink_to(1 << 12);
    }

    /// How many slots there are.
    pub(crate) fn n_slots(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK_ROWS + last.rows.len())
    }

    /// The row in a slot, if there is one.
    pub(crate) fn live(&self, slot: u32) -> Option<&R> {
        let (block_idx, idx) = split(slot);
        let block = self.blocks.get(block_idx).filter(|block| block.is_live(idx))?;
        Some(&block.rows[idx])
    }

    /// All rows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &R> {
        self.blocks.iter().flat_map(|block| block.live_rows())
    }

    /// Slots of the rows for which `is_it` holds.
    pub(crate) fn slots(&self, is_it: impl Fn(&R) -> bool) -> Vec<u32> {
        (0..self.n_slots() as u32).filter(|slot| self.live(*slot).is_some_and(&is_it)).collect()
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.n_live
    }

    #[inline]
    fn touch(&mut self, slot: u32) {
        if let Some(touched) = &mut self.touched {
            let (block_idx, idx) = split(slot);
            let block = &self.blocks[block_idx];
            touched.touch(slot, || block.is_live(idx).then(|| block.rows[idx]));
        }
    }

    /// Adds a row; gives its slot. Without removals slots are dense from 0.
    pub(crate) fn insert(&mut self, row: R) -> u32 {
        self.n_live += 1;
        if let Some(Reverse(slot)) = self.free.pop() {
            self.touch(slot);
            let (block_idx, idx) = split(slot);
            let block = Arc::make_mut(&mut self.blocks[block_idx]);
            block.rows[idx] = row;
            block.live[idx / 64] |= 1 << (idx % 64);
            return slot;
        }
        if self.blocks.last().is_none_or(|block| block.rows.len() == BLOCK_ROWS) {
            self.blocks.push(Arc::new(Block { rows: Vec::new(), live: [0; BLOCK_ROWS / 64] }));
        }
        let block_idx = self.blocks.len() - 1;
        let block = Arc::make_mut(&mut self.blocks[block_idx]);
        let idx = block.rows.len();
        block.rows.push(row);
        block.live[idx / 64] |= 1 << (idx % 64);
        let slot = u32::try_from(block_idx * BLOCK_ROWS + idx).expect("fewer than 2^32 rows fit into memory");
        if let Some(touched) = &mut self.touched {
            touched.touch(slot, || None);
        }
        slot
    }

    /// Adds a row that was handed over before, after the last slot; gives its slot.
    pub(crate) fn bring_back(&mut self, row: R) -> u32 {
        let free = std::mem::take(&mut self.free);
        let slot = self.insert(row);
        self.free = free;
        if let Some((touched, before)) = self.touched.as_mut().and_then(|touched| touched.before.last_mut()) {
            debug_assert_eq!(*touched, slot, "no slot behind the last one was touched");
            *before = Some(row);
        }
        slot
    }

    /// The row in a slot.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &R {
        let (block_idx, idx) = split(slot);
        &self.blocks[block_idx].rows[idx]
    }

    /// The row in a slot, to be changed. Copies the block when a snapshot holds it.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut R {
        self.touch(slot);
        let (block_idx, idx) = split(slot);
        &mut Arc::make_mut(&mut self.blocks[block_idx]).rows[idx]
    }

    /// Removes the row in a slot.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.touch(slot);
        let (block_idx, idx) = split(slot);
        let block = Arc::make_mut(&mut self.blocks[block_idx]);
        debug_assert!(block.is_live(idx));
        block.live[idx / 64] &= !(1 << (idx % 64));
        self.n_live -= 1;
        self.free.push(Reverse(slot));
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        let full = self.blocks.len().saturating_sub(1) * BLOCK_ROWS;
        let rows = full + self.blocks.last().map_or(0, |block| block.rows.capacity());
        let touched = |touched: &Touched<R>| {
            8 * touched.is_touched.capacity() + touched.before.capacity() * size_of::<(u32, Option<R>)>()
        };
        rows * size_of::<R>()
            + self.blocks.len() * size_of::<Block<R>>()
            + 4 * self.free.capacity()
            + self.touched.as_ref().map_or(0, touched)
    }
}

#[inline]
fn split(slot: u32) -> (usize, usize) {
    (slot as usize / BLOCK_ROWS, slot as usize % BLOCK_ROWS)
}

/// How rows become columns.
pub(crate) trait View: Send + Sync + Debug + 'static {
    /// A row.
    type Row: Copy + Send + Sync + Debug + 'static;

    /// Column number `column` of the table.
    fn column(&self, column: usize, rows: &[&Self::Row]) -> ArrayRef;
}

#[derive(Debug)]
struct RowsSnapshot<V: View> {
    schema: SchemaRef,
    blocks: Vec<Arc<Block<V::Row>>>,
    n_rows: usize,
    view: V,
}

/// A snapshot of `rows` as a table of that schema.
pub(crate) fn snapshot<V: View>(schema: SchemaRef, rows: &Rows<V::Row>, view: V) -> Arc<dyn TableSnapshot> {
    Arc::new(RowsSnapshot { schema, blocks: rows.blocks.clone(), n_rows: rows.n_live, view })
}

impl<V: View> TableSnapshot for RowsSnapshot<V> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn n_chunks(&self) -> usize {
        self.blocks.len().div_ceil(CHUNK_BLOCKS)
    }

    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn chunk(&self, chunk_idx: usize, projection: Option<&[usize]>) -> RecordBatch {
        let start = chunk_idx * CHUNK_BLOCKS;
        let blocks = &self.blocks[start..self.blocks.len().min(start + CHUNK_BLOCKS)];
        let rows: Vec<&V::Row> = blocks.iter().flat_map(|block| block.live_rows()).collect();
        let all: Vec<usize>;
        let projection = match projection {
            Some(projection) => projection,
            None => {
                all = (0..self.schema.fields().len()).collect();
                &all
            }
        };
        let schema = Arc::new(self.schema.project(projection).expect("projected columns exist"));
        let columns = projection.iter().map(|&column| self.view.column(column, &rows)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(schema, columns, &options).expect("views give the schema's types")
    }
}

/// Strings by their numbers; [`super::NONE`] is null.
pub(crate) fn names(texts: &Texts, ids: impl Iterator<Item = u32>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    ids.for_each(|id| builder.append_option(texts.get_opt(id)));
    Arc::new(builder.finish())
}

/// Strings made row by row.
pub(crate) fn id_texts(ids: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(ids))
}

/// Words from a fixed list.
pub(crate) fn labels(labels: impl Iterator<Item = Option<&'static str>>) -> ArrayRef {
    Arc::new(labels.collect::<StringArray>())
}

/// Times, microseconds; [`NO_TIME`] is null.
pub(crate) fn times(times: impl Iterator<Item = i64>) -> ArrayRef {
    let array: TimestampMicrosecondArray = times.map(|time| (time != NO_TIME).then_some(time)).collect();
    Arc::new(array.with_timezone("UTC"))
}

/// Counts.
pub(crate) fn counts(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Measures.
pub(crate) fn measures(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

/// Measures that may be missing.
pub(crate) fn opt_measures(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

/// Booleans.
pub(crate) fn flags(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}

/// Days since 1970-01-01.
pub(crate) fn dates(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.collect::<Date32Array>())
}

/// Money, in units of 0.0001.
pub(crate) fn moneys(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    debug_assert_eq!(legwork_types::money(), DataType::Decimal128(18, 4));
    let array: Decimal128Array = values.map(|value| value.map(i128::from)).collect();
    Arc::new(array.with_data_type(legwork_types::money()))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    #[derive(Debug)]
    struct Numbers;

    impl View for Numbers {
        type Row = i64;

        fn column(&self, _column: usize, rows: &[&i64]) -> ArrayRef {
            counts(rows.iter().map(|row| **row))
        }
    }

    fn values(snapshot: &dyn TableSnapshot) -> Vec<i64> {
        (0..snapshot.n_chunks())
            .flat_map(|idx| snapshot.chunk(idx, None).column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }

    #[test]
    fn a_snapshot_stays_as_it_was_and_chunks_join_up() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let mut rows = Rows::default();
        let slots: Vec<u32> = (0..10_000i64).map(|n| rows.insert(n)).collect();
        let before = snapshot(schema.clone(), &rows, Numbers);
        slots.iter().step_by(2).for_each(|slot| rows.remove(*slot));
        *rows.get_mut(1) = -1;
        let after = snapshot(schema, &rows, Numbers);
        assert_eq!((before.n_rows(), before.n_chunks(), after.n_rows()), (10_000, 2, 5_000));
        assert_eq!(values(before.as_ref()), (0..10_000).collect::<Vec<_>>());
        assert_eq!(values(after.as_ref())[..3], [-1, 3, 5]);
        assert_eq!(values(after.as_ref()).len(), 5_000);
        assert_eq!(rows.insert(77), 0);
        assert_eq!(before.chunk(1, Some(&[])).num_rows(), 10_000 - 8_192);
    }
}
