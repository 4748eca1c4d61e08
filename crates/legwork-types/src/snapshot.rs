//! Immutable views of tables, made on demand.

use std::fmt::Debug;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

/// What a table held at one moment, cheap to make and to keep: chunks become Arrow only when they are read, and only the columns
/// asked for. Readers never block the writer.
pub trait TableSnapshot: Send + Sync + Debug {
    /// Columns of the table.
    fn schema(&self) -> SchemaRef;

    /// Number of chunks; each is read on its own.
    fn n_chunks(&self) -> usize;

    /// Rows in all chunks.
    fn n_rows(&self) -> usize;

    /// One chunk as Arrow. `projection`: positions of the columns wanted, in the order wanted; none means all. Chunks hold some
    /// thousands of rows, so that a reader can stream them.
    fn chunk(&self, chunk_idx: usize, projection: Option<&[usize]>) -> RecordBatch;
}

/// A snapshot of batches that are Arrow already.
#[derive(Clone, Debug)]
pub struct BatchSnapshot {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl BatchSnapshot {
    /// Of batches that all have this schema.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> BatchSnapshot {
        debug_assert!(batches.iter().all(|batch| batch.num_columns() == schema.fields().len()));
        BatchSnapshot { schema, batches }
    }
}

impl TableSnapshot for BatchSnapshot {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn n_chunks(&self) -> usize {
        self.batches.len()
    }

    fn n_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    fn chunk(&self, chunk_idx: usize, projection: Option<&[usize]>) -> RecordBatch {
        let batch = &self.batches[chunk_idx];
        match projection {
            Some(columns) => batch.project(columns).expect("projected columns exist"),
            None => batch.clone(),
        }
    }
}
