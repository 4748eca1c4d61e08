//! Newest versions of rows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int32Array, RecordBatch};
use arrow::array::{RecordBatchOptions, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Where the columns of versions lie.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Columns of the result: the first ones.
    pub(super) n_columns: usize,
    /// Columns that together identify a row within its lane.
    pub(super) identity: Vec<usize>,
    pub(super) lane: usize,
    pub(super) revision: usize,
    pub(super) is_deleted: usize,
}

impl Layout {
    /// Columns that identify a row.
    pub(super) fn identity_of(&self, versions: &RecordBatch) -> Vec<ArrayRef> {
        std::iter::once(&self.lane).chain(&self.identity).map(|&idx| versions.column(idx).clone()).collect()
    }

    /// The columns of [`Layout::identity_of`].
    pub(super) fn identity_schema(&self, versions: &Schema) -> Result<SchemaRef> {
        let columns: Vec<usize> = std::iter::once(&self.lane).chain(&self.identity).copied().collect();
        Ok(Arc::new(versions.project(&columns)?))
    }

    /// *Shape:* the columns of the result of the rows that are `wanted`.
    pub(super) fn rows(&self, versions: &RecordBatch, wanted: &BooleanArray) -> Result<RecordBatch> {
        rows_of(&versions.project(&(0..self.n_columns).collect::<Vec<_>>())?, wanted)
    }
}

/// Newest versions, batch by batch.
pub(super) type NewestRows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// The newest version of a row so far.
#[derive(Clone, Copy, Debug)]
struct Newest {
    revision: i64,
    /// [`DELETED`] when the version is a retraction.
    batch: u32,
    row: u32,
}

const DELETED: u32 = u32::MAX;

/// Takes versions of rows and gives the newest of each, without those that were retracted. Of versions with one revision, which say the
/// same, the first counts.
pub(super) struct NewestVersions {
    layout: Layout,
    /// Numbers of identities, with a number for the lane.
    identities: Box<dyn GroupValues>,
    newest: Vec<Newest>,
    lanes: HashMap<String, i32>,
    /// Columns of the result, for every version.
    batches: Vec<RecordBatch>,
    schema: SchemaRef,
    n_bytes: usize,
    numbers: Vec<usize>,
}

impl NewestVersions {
    /// Of batches with the columns `versions`.
    pub(super) fn try_new(versions: &Schema, layout: Layout) -> Result<NewestVersions> {
        let mut fields = vec![Field::new("lane", DataType::Int32, false)];
        fields.extend(layout.identity.iter().map(|&idx| versions.field(idx).clone()));
        let identities = new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)?;
        let schema = Arc::new(versions.project(&(0..layout.n_columns).collect::<Vec<_>>())?);
        Ok(NewestVersions {
            layout,
            identities,
            newest: Vec::new(),
            lanes: HashMap::new(),
            batches: Vec::new(),
            schema,
            n_bytes: 0,
            numbers: Vec::new(),
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes held.
    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes + self.identities.size() + self.newest.capacity() * size_of::<Newest>()
    }

    pub(super) fn push(&mut self, versions: &RecordBatch) -> Result<()> {
        let lanes = self.lanes_of(versions.column(self.layout.lane).as_string())?;
        let identity = self.layout.identity.iter().map(|&idx| versions.column(idx).clone());
        let columns: Vec<ArrayRef> = std::iter::once(lanes).chain(identity).collect();
        self.identities.intern(&columns, &mut self.numbers)?;
        let revisions = versions.column(self.layout.revision).as_primitive::<Int64Type>().values();
        let is_deleted = versions.column(self.layout.is_deleted).as_boolean().values();
        let batch =
            u32::try_from(self.batches.len()).map_err(|_| exec_datafusion_err!("too many batches of versions"))?;
        for (row, (&number, &revision)) in self.numbers.iter().zip(revisions).enumerate() {
            let batch = if is_deleted.value(row) { DELETED } else { batch };
            let version = Newest { revision, batch, row: row as u32 };
            match self.newest.get_mut(number) {
                None => self.newest.push(version),
                Some(newest) if newest.revision < revision => *newest = version,
                Some(_) => {}
            }
        }
        let columns = &versions.columns()[..self.layout.n_columns];
        self.n_bytes += columns.iter().map(|column| slice_bytes(column.as_ref())).sum::<usize>();
        let options = RecordBatchOptions::new().with_row_count(Some(versions.num_rows()));
        self.batches.push(RecordBatch::try_new_with_options(self.schema.clone(), columns.to_vec(), &options)?);
        Ok(())
    }

    /// A number for each row's lane: equal lanes come in long runs.
    fn lanes_of(&mut self, lanes: &StringArray) -> Result<ArrayRef> {
        let (mut previous, mut number) = (None, 0);
        let mut numbers = Vec::with_capacity(lanes.len());
        for row in 0..lanes.len() {
            let lane = lanes.value(row);
            if previous != Some(lane) {
                previous = Some(lane);
                number = match self.lanes.get(lane) {
                    Some(number) => *number,
                    None => {
                        let number =
                            i32::try_from(self.lanes.len()).map_err(|_| exec_datafusion_err!("too many lanes"))?;
                        self.lanes.insert(lane.to_owned(), number);
                        number
                    }
                };
            }
            numbers.push(number);
        }
        Ok(Arc::new(Int32Array::from(numbers)))
    }

    /// The newest versions, batch by batch; what is held shrinks with them. *Returns* the bytes that the batches hold, too.
    pub(super) fn finish(self) -> (usize, NewestRows) {
        let mut masks: Vec<BooleanBufferBuilder> = Vec::with_capacity(self.batches.len());
        for batch in &self.batches {
            let mut mask = BooleanBufferBuilder::new(batch.num_rows());
            mask.append_n(batch.num_rows(), false);
            masks.push(mask);
        }
        for newest in self.newest.iter().filter(|newest| newest.batch != DELETED) {
            masks[newest.batch as usize].set_bit(newest.row as usize, true);
        }
        let n_bytes = self.n_bytes;
        let rows = self.batches.into_iter().zip(masks);
        let rows = rows.map(|(batch, mut mask)| rows_of(&batch, &BooleanArray::new(mask.finish(), None)));
        (n_bytes, Box::new(rows.filter(|rows| rows.as_ref().map_or(true, |rows| rows.num_rows() > 0))))
    }
}

fn rows_of(batch: &RecordBatch, wanted: &BooleanArray) -> Result<RecordBatch> {
    match wanted.true_count() {
        n_rows if n_rows == batch.num_rows() => Ok(batch.clone()),
        n_rows if batch.num_columns() == 0 => {
            let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
            Ok(RecordBatch::try_new_with_options(batch.schema(), Vec::new(), &options)?)
        }
        _ => Ok(filter_record_batch(batch, wanted)?),
    }
}

/// Bytes of the rows themselves, not of the buffers that they may be a small slice of.
fn slice_bytes(column: &dyn Array) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}
