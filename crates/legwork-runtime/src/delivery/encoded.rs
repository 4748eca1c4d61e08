//! Raw events that are Parquet already: encoded once, for the store and for the lake.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use legwork_types::TableSnapshot;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::recover::conform;

/// Bytes of all rows that wait for the lake, or have just reached it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldBytes(Arc<AtomicUsize>);

/// Some of them, as long as it lives.
#[derive(Debug)]
pub(crate) struct Held {
    n_bytes: usize,
    total: HeldBytes,
}

impl HeldBytes {
    /// How many.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts so many more.
    pub(crate) fn hold(&self, n_bytes: usize) -> Held {
        self.0.fetch_add(n_bytes, Ordering::Relaxed);
        Held { n_bytes, total: self.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.0.fetch_sub(self.n_bytes, Ordering::Relaxed);
    }
}

/// Rows of a table as a Parquet file, read when they are asked for. A chunk is a row group.
#[derive(Clone, Debug)]
pub(crate) struct EncodedRows {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    _held: Arc<Held>,
}

impl EncodedRows {
    /// Of a Parquet file, shown with these columns: by name, null where the file lacks one.
    ///
    /// *Errors:* it is no Parquet file.
    pub(crate) fn open(bytes: Bytes, schema: SchemaRef, held: &HeldBytes) -> Result<EncodedRows, ParquetError> {
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())?;
        let held = Arc::new(held.hold(bytes.len()));
        Ok(EncodedRows { bytes, metadata, schema, _held: held })
    }

    /// The file.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn read(&self, group_idx: usize, schema: &SchemaRef) -> Result<RecordBatch, ParquetError> {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let mask = ProjectionMask::columns(self.metadata.parquet_schema(), names);
        let group = self.metadata.metadata().row_group(group_idx);
        let n_rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes().clone(), self.metadata.clone());
        let mut batches =
            reader.with_row_groups(vec![group_idx]).with_projection(mask).with_batch_size(n_rows).build()?;
        let missing = || ParquetError::General("a row group has no rows".to_owned());
        Ok(conform(&batches.next().ok_or_else(missing)??, schema)?)
    }
}

impl TableSnapshot for EncodedRows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn n_chunks(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    fn n_rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    fn chunk(&self, chunk_idx: usize, projection: Option<&[usize]>) -> RecordBatch {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns).expect("projected columns exist")),
            None => self.schema.clone(),
        };
        self.read(chunk_idx, &schema).expect("the bytes are as they were encoded: a store checks them when it reads")
    }
}
