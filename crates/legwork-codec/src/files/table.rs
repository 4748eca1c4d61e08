//! Parquet and Avro object container files: Arrow columns to canonical ones, whole columns at a time.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_avro::reader::ReaderBuilder;
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::bind::{bind, may_be_absent};
use super::builder::{Fault, good_rows};
use super::convert::{Faults, convert};
use super::csv::PAYLOAD_BYTES_MAX;
use super::input::{Bytes, Progress};
use super::places::Places;
use super::{FileBatch, FileError, RowSource, Target};

/// Batches of the file as the format's own reader gives them.
type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// The last bytes that were read, as many as a marker of Avro's has.
type LastBytes = Arc<Mutex<[u8; 16]>>;

/// Passes bytes on and keeps the last ones.
struct Ending {
    bytes: Bytes,
    last: LastBytes,
}

impl Read for Ending {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n_read = self.bytes.read(into)?;
        let mut last = self.last.lock();
        let n_new = n_read.min(last.len());
        last.copy_within(n_new.., 0);
        let n_kept = last.len() - n_new;
        last[n_kept..].copy_from_slice(&into[n_read - n_new..n_read]);
        Ok(n_read)
    }
}

pub(crate) struct TableRows {
    target: Arc<Target>,
    format: &'static str,
    batches: Batches,
    /// Columns that are read, in the order of the file: (field, position in the batches).
    wanted: Vec<(usize, usize)>,
    next_row: i64,
    /// Where the bytes read are estimated by the rows read: rows in all.
    progress: Option<(Progress, u64)>,
}

impl TableRows {
    pub(crate) fn open_parquet(
        file: File,
        target: Arc<Target>,
        map: &[(String, String)],
        progress: Progress,
    ) -> Result<TableRows, FileError> {
        let corrupt = |error: parquet::errors::ParquetError| damaged(&target, "Parquet", error.to_string());
        // Parquet's own types say enough, and reading a damaged Arrow schema beside them panics in arrow-ipc.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = guarded(&target, "Parquet", || {
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(corrupt)
        })?;
        let bound = bind(&target, map, &names(builder.schema()))?;
        let n_rows = builder.metadata().file_metadata().num_rows();
        let roots = roots(&bound);
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied());
        let reader = guarded(&target, "Parquet", || {
            builder.with_projection(mask).with_batch_size(target.batch_rows).build().map_err(corrupt)
        })?;
        let progress = Some((progress, u64::try_from(n_rows).unwrap_or(0)));
        TableRows::new(target, "Parquet", Box::new(reader), &bound, &roots, progress)
    }

    pub(crate) fn open_avro(
        bytes: Bytes,
        target: Arc<Target>,
        map: &[(String, String)],
    ) -> Result<TableRows, FileError> {
        let last = LastBytes::default();
        let bytes = Ending { bytes, last: last.clone() };
        let reader = guarded(&target, "Avro", || {
            ReaderBuilder::new()
                .with_batch_size(target.batch_rows)
                .build(BufReader::with_capacity(256 * 1024, bytes))
                .map_err(|error| damaged(&target, "Avro", error.to_string()))
        })?;
        // Header and blocks all end with the file's own marker. The reader takes a file that ends anywhere else for one that is whole.
        let marker = reader.avro_header().sync();
        let cut = iter::from_fn(move || {
            let is_cut = std::mem::replace(&mut *last.lock(), marker) != marker;
            is_cut.then(|| Err(ArrowError::AvroError("the file ends in the middle of a block".to_owned())))
        });
        let columns = names(&reader.schema());
        let bound = bind(&target, map, &columns)?;
        let all: Vec<usize> = (0..columns.len()).collect();
        TableRows::new(target, "Avro", Box::new(reader.chain(cut)), &bound, &all, None)
    }

    fn new(
        target: Arc<Target>,
        format: &'static str,
        batches: Batches,
        bound: &[Option<usize>],
        read: &[usize],
        progress: Option<(Progress, u64)>,
    ) -> Result<TableRows, FileError> {
        let position = |column: usize| read.iter().position(|&other| other == column);
        let wanted =
            bound.iter().enumerate().filter_map(|(field, column)| Some((field, position((*column)?)?))).collect();
        Ok(TableRows { target, format, batches, wanted, next_row: 0, progress })
    }

    fn convert(&mut self, read: &RecordBatch) -> Result<FileBatch, FileError> {
        let schema = self.target.kind.schema();
        let mut faults = Faults::default();
        let mut built: Vec<(usize, ArrayRef)> = Vec::with_capacity(self.wanted.len());
        for &(field_idx, position) in &self.wanted {
            let field = schema.field(field_idx);
            let array = read.column(position);
            let may_lack = field.is_nullable() || may_be_absent(field.name());
            let column = convert(array, field, may_lack, &mut faults).ok_or_else(|| FileError::UnsupportedColumn {
                path: self.target.path.clone(),
                column: read.schema_ref().field(position).name().clone(),
                field: field.name().clone(),
                found: Box::new(array.data_type().clone()),
                expected: Box::new(field.data_type().clone()),
            })?;
            built.push((field_idx, column));
        }
        let first_row = self.next_row;
        self.next_row += read.num_rows() as i64;
        let (places, faults): (Vec<usize>, Vec<Fault>) = faults.into_rows().unzip();
        let (columns, offsets) = good_rows(&schema, built, read.num_rows(), &places, first_row);
        let rejects = places
            .iter()
            .zip(faults)
            .map(|(&place, fault)| self.target.reject(first_row + place as i64, fault, row_text(read, place)))
            .collect();
        Ok(self.target.batch(columns, offsets, rejects, Places::new(&self.target.path, "row")))
    }
}

impl RowSource for TableRows {
    fn next_batch(&mut self) -> Option<Result<FileBatch, FileError>> {
        loop {
            let batches = &mut self.batches;
            let (target, row) = (&self.target, self.next_row);
            let read = guarded(target, self.format, || {
                let read = batches.next().transpose();
                read.map_err(|error| damaged(target, self.format, format!("behind row {row}: {error}")))
            });
            let read = match read.transpose()? {
                Ok(read) => read,
                Err(error) => return Some(Err(error)),
            };
            if read.num_rows() == 0 {
                continue;
            }
            let batch = self.convert(&read);
            if let Some((progress, n_rows)) = &self.progress {
                progress.set_share(self.next_row as u64, *n_rows);
            }
            return Some(batch);
        }
    }
}

/// Runs a library's code that panics over some damaged files. What it was working on is not used again.
fn guarded<T>(
    target: &Target,
    format: &'static str,
    run: impl FnOnce() -> Result<T, FileError>,
) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(damaged(target, format, "its reader gave up with a panic".to_owned())))
}

fn damaged(target: &Target, format: &'static str, detail: String) -> FileError {
    FileError::Corrupt { path: target.path.clone(), format, detail }
}

fn names(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// Columns that any field wants, in the order of the file.
fn roots(bound: &[Option<usize>]) -> Vec<usize> {
    let mut roots: Vec<usize> = bound.iter().flatten().copied().collect();
    roots.sort_unstable();
    roots.dedup();
    roots
}

/// The columns of a row that are read, as JSON; empty where a column has no JSON form.
fn row_text(read: &RecordBatch, place: usize) -> Vec<u8> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    let written = writer.write(&read.slice(place, 1)).and_then(|()| writer.finish());
    let mut text = if written.is_ok() { writer.into_inner() } else { Vec::new() };
    text.truncate(PAYLOAD_BYTES_MAX);
    text.truncate(text.trim_ascii_end().len());
    text
}
