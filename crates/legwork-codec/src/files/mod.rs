//! Bounded input: files of events or reference records to canonical batches.
//!
//! CSV, NDJSON (both plain or gzipped), Parquet, Avro object container files and GPX. A bad row costs only itself: it becomes a
//! [`Reject`] beside the good ones. Not here: checking values against their ranges, which is the same for files and topics.

mod bind;
mod builder;
mod convert;
mod csv;
mod error;
mod fingerprint;
mod gpx;
mod input;
mod lines;
mod ndjson;
mod parse;
mod places;
mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod test_rows;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use legwork_types::{EventBatch, Kind, Reject};

pub use error::FileError;
pub use fingerprint::Fingerprint;
pub use places::{Place, Places};

use input::{Format, Progress};

/// Rows of a batch where nothing else is said.
pub const BATCH_ROWS: usize = 8_192;

/// A file to read, as in `--input KIND=FILE`.
#[derive(Clone, Debug)]
pub struct FileInput {
    /// What its rows are.
    pub kind: Kind,
    /// The file. Its ending tells the format: `.csv`, `.ndjson`, `.jsonl`, `.json`, `.parquet`, `.avro`, `.gpx`; `.gz` may follow.
    pub path: PathBuf,
    /// (field, column): columns that are named differently from their fields. A column may serve several fields.
    pub map: Vec<(String, String)>,
    /// Arrival time of all rows: the start of the run, microseconds since 1970-01-01 UTC.
    pub arrival_us: i64,
    /// Rows of a batch at most.
    pub batch_rows: usize,
}

/// Rows of a file: the good ones and the bad ones.
#[derive(Clone, Debug)]
pub struct FileBatch {
    /// Rows in canonical columns. `offsets` are row numbers from 0, counting bad rows too; partition 0; topic is the file's name.
    pub events: EventBatch,
    /// Rows that could not be read; their payload is the row's text (JSON for Parquet and Avro).
    pub rejects: Vec<Reject>,
    /// Where the rows stand in the file: lines, rows (Parquet, Avro) or track points (GPX).
    pub places: Places,
}

/// Reads one file, batch by batch, in the order of its rows. Holds one batch of rows.
pub struct FileReader {
    source: Box<dyn RowSource>,
    progress: Progress,
    ended: bool,
}

impl FileReader {
    /// Opens a file and finds its columns.
    ///
    /// *Errors:* the file cannot be read, is of no known format, lacks a column that its kind needs, or the map names a field or column
    /// that does not exist.
    pub fn open(input: FileInput) -> Result<FileReader, FileError> {
        let format = Format::of(&input.path)?;
        let target = Arc::new(Target::new(&input));
        let (source, progress) = match format {
            Format::Csv => {
                let (bytes, progress) = input::open(&input.path)?;
                (Box::new(csv::CsvRows::open(bytes, target, &input.map)?) as Box<dyn RowSource>, progress)
            }
            Format::Ndjson => {
                let (bytes, progress) = input::open(&input.path)?;
                (Box::new(ndjson::JsonRows::open(bytes, target, &input.map)?) as _, progress)
            }
            Format::Gpx => {
                let (bytes, progress) = input::open(&input.path)?;
                (Box::new(gpx::GpxRows::open(bytes, target, &input)?) as _, progress)
            }
            Format::Avro => {
                let (bytes, progress) = input::open(&input.path)?;
                (Box::new(table::TableRows::open_avro(bytes, target, &input.map)?) as _, progress)
            }
            Format::Parquet => {
                let (file, progress) = input::open_plain(&input.path)?;
                (Box::new(table::TableRows::open_parquet(file, target, &input.map, progress.clone())?) as _, progress)
            }
        };
        Ok(FileReader { source, progress, ended: false })
    }

    /// The next batch; none at the end and after an error. Good rows in front of an error are handed over first.
    #[allow(clippy::should_implement_trait, reason = "an iterator besides would only be a second name")]
    pub fn next(&mut self) -> Option<Result<FileBatch, FileError>> {
        if self.ended {
            return None;
        }
        let batch = self.source.next_batch();
        self.ended = !matches!(batch, Some(Ok(_)));
        if self.ended {
            self.progress.finish();
        }
        batch
    }

    /// (bytes read of the file as it lies there, its size where known).
    pub fn progress(&self) -> (u64, Option<u64>) {
        self.progress.get()
    }
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("progress", &self.progress()).field("ended", &self.ended).finish()
    }
}

/// One format's way to batches.
pub(crate) trait RowSource: Send {
    fn next_batch(&mut self) -> Option<Result<FileBatch, FileError>>;
}

/// What every row of a file shares.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) batch_rows: usize,
    topic: Arc<str>,
    arrival_us: i64,
}

impl Target {
    fn new(input: &FileInput) -> Target {
        let name = input.path.file_name().unwrap_or(input.path.as_os_str()).to_string_lossy();
        Target {
            kind: input.kind,
            path: input.path.clone(),
            batch_rows: input.batch_rows.max(1),
            topic: Arc::from(name.as_ref()),
            arrival_us: input.arrival_us,
        }
    }

    pub(crate) fn reject(&self, row: i64, fault: builder::Fault, payload: Vec<u8>) -> Reject {
        Reject {
            offset: row,
            arrival_us: self.arrival_us,
            reason: fault.reason,
            detail: fault.detail,
            schema_id: None,
            key: None,
            payload,
        }
    }

    pub(crate) fn batch(
        &self,
        columns: RecordBatch,
        offsets: Vec<i64>,
        rejects: Vec<Reject>,
        places: Places,
    ) -> FileBatch {
        let arrival_us = vec![self.arrival_us; offsets.len()];
        let events = EventBatch {
            kind: self.kind,
            topic: self.topic.clone(),
            partition: 0,
            columns,
            offsets,
            arrival_us,
            keys: None,
        };
        FileBatch { events, rejects, places }
    }
}
