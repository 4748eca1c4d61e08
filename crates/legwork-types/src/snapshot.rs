//! Immutable views of tables, made on demand.

use std::fmt::Debug;
use std::sync::LazyLock;

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

/// A snapshot that is made when it is first read, by whoever reads it.
pub struct LazySnapshot {
    schema: SchemaRef,
    made: LazyLock<BatchSnapshot, Box<dyn FnOnce() -> BatchSnapshot + Send>>,
}

impl LazySnapshot {
    /// Of a batch that has this schema.
    pub fn new(schema: SchemaRef, make: impl FnOnce() -> RecordBatch + Send + 'static) -> LazySnapshot {
        let of = schema.clone();
        LazySnapshot { schema, made: LazyLock::new(Box::new(move || BatchSnapshot::new(of, vec![make()]))) }
    }
}

impl Debug for LazySnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LazySnapshot").finish_non_exhaustive()
    }
}

impl TableSnapshot for LazySnapshot {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn n_chunks(&self) -> usize {
        self.made.n_chunks()
    }

    fn n_rows(&self) -> usize {
        self.made.n_rows()
    }

    fn chunk(&self, chunk_idx: usize, projection: Option<&[usize]>) -> RecordBatch {
        self.made.chunk(chunk_idx, projection)
    }
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
