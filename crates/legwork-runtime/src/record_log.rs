//! An append-only log of record batches: small ones are merged, old ones go to a folder, and all of them can be read.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use legwork_types::TableSnapshot;

use crate::SpillConfig;

/// Batches below this are merged, so that a trickle of events does not become a heap of tiny arrays.
const MERGED_ROWS_MIN: usize = 4_096;
/// A run of so many small batches is merged at once.
const SMALL_BATCHES_MAX: usize = 32;

/// The space that all logs of a process share.
#[derive(Debug)]
pub(crate) struct Space {
    dir: PathBuf,
    memory_bytes_max: usize,
    disk_bytes_max: u64,
    memory_bytes: AtomicUsize,
    disk_bytes: AtomicU64,
    next_file: AtomicU64,
}

impl Space {
    /// Empties the folder of what an earlier process left.
    pub(crate) fn open(config: &SpillConfig) -> Arc<Space> {
        let dir = config.dir.join("events");
        // What cannot be removed is not ours to use: a file that then cannot be made is reported when it is needed.
        let _ = fs::remove_dir_all(&dir);
        Arc::new(Space {
            dir,
            memory_bytes_max: config.memory_bytes_max,
            disk_bytes_max: config.disk_bytes_max,
            memory_bytes: AtomicUsize::new(0),
            disk_bytes: AtomicU64::new(0),
            next_file: AtomicU64::new(0),
        })
    }
}

/// A file of batches, removed when nobody reads it any more.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    n_rows: usize,
    n_batches: usize,
    n_bytes: u64,
    space: Arc<Space>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        self.space.disk_bytes.fetch_sub(self.n_bytes, Ordering::Relaxed);
    }
}

/// A log of batches of one schema.
#[derive(Debug)]
pub(crate) struct RecordLog {
    schema: SchemaRef,
    space: Arc<Space>,
    segments: VecDeque<Arc<Segment>>,
    merged: Vec<RecordBatch>,
    small: Vec<RecordBatch>,
    memory_bytes: usize,
    n_dropped: u64,
}

impl RecordLog {
    pub(crate) fn new(schema: SchemaRef, space: Arc<Space>) -> RecordLog {
        RecordLog {
            schema,
            space,
            segments: VecDeque::new(),
            merged: Vec::new(),
            small: Vec::new(),
            memory_bytes: 0,
            n_dropped: 0,
        }
    }

    /// Appends a batch. *Returns* how many of the oldest rows had to be dropped for it because the disk's share is used up.
    pub(crate) fn push(&mut self, batch: RecordBatch) -> u64 {
        if batch.num_rows() == 0 {
            return 0;
        }
        self.account(batch.get_array_memory_size() as isize);
        if batch.num_rows() >= MERGED_ROWS_MIN {
            self.merge_small();
            self.merged.push(batch);
        } else {
            self.small.push(batch);
            if self.small.len() >= SMALL_BATCHES_MAX {
                self.merge_small();
            }
        }
        if self.space.memory_bytes.load(Ordering::Relaxed) > self.space.memory_bytes_max {
            return self.spill();
        }
        0
    }

    /// Rows in the log.
    pub(crate) fn n_rows(&self) -> usize {
        let in_memory: usize = self.merged.iter().chain(&self.small).map(RecordBatch::num_rows).sum();
        in_memory + self.segments.iter().map(|segment| segment.n_rows).sum::<usize>()
    }

    /// What it holds now.
    pub(crate) fn snapshot(&self) -> LogSnapshot {
        let batches: Vec<RecordBatch> = self.merged.iter().chain(&self.small).cloned().collect();
        let chunks = self
            .segments
            .iter()
            .flat_map(|segment| (0..segment.n_batches).map(|batch_idx| Chunk::Disk(segment.clone(), batch_idx)))
            .chain(batches.into_iter().map(Chunk::Memory))
            .collect();
        LogSnapshot { schema: self.schema.clone(), n_rows: self.n_rows(), chunks }
    }

    fn account(&mut self, bytes: isize) {
        self.memory_bytes = self.memory_bytes.saturating_add_signed(bytes);
        if bytes >= 0 {
            self.space.memory_bytes.fetch_add(bytes.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.space.memory_bytes.fetch_sub(bytes.unsigned_abs(), Ordering::Relaxed);
        }
    }

    fn merge_small(&mut self) {
        if self.small.is_empty() {
            return;
        }
        let before: usize = self.small.iter().map(RecordBatch::get_array_memory_size).sum();
        // The last merged batch may still be small: it goes in again, so that batches grow geometrically.
        if let Some(last) = self.merged.pop_if(|last| last.num_rows() < MERGED_ROWS_MIN) {
            self.account(-(last.get_array_memory_size() as isize));
            self.small.insert(0, last);
        }
        let merged = concat_batches(&self.schema, &self.small).expect("all batches have the log's schema");
        self.small.clear();
        self.account(merged.get_array_memory_size() as isize - before as isize);
        self.merged.push(merged);
    }

    /// Moves all that is in memory to the disk. When that fails, it stays in memory and is tried again with the next batch.
    fn spill(&mut self) -> u64 {
        self.merge_small();
        match self.write_segment() {
            Ok(segment) => {
                self.segments.push_back(Arc::new(segment));
                self.merged.clear();
                self.account(-(self.memory_bytes as isize));
            }
            Err(error) => {
                tracing::warn!(%error, dir = %self.space.dir.display(), "events cannot be moved to the cache folder and stay in memory");
            }
        }
        let mut n_dropped = 0;
        while self.space.disk_bytes.load(Ordering::Relaxed) > self.space.disk_bytes_max {
            let Some(oldest) = self.segments.pop_front() else { break };
            n_dropped += oldest.n_rows as u64;
        }
        self.n_dropped += n_dropped;
        n_dropped
    }

    fn write_segment(&self) -> Result<Segment, arrow::error::ArrowError> {
        fs::create_dir_all(&self.space.dir)?;
        let number = self.space.next_file.fetch_add(1, Ordering::Relaxed);
        let path = self.space.dir.join(format!("{number}.arrow"));
        let mut writer = FileWriter::try_new(BufWriter::new(File::create(&path)?), &self.schema)?;
        for batch in &self.merged {
            writer.write(batch)?;
        }
        writer.finish()?;
        let n_bytes = fs::metadata(&path)?.len();
        self.space.disk_bytes.fetch_add(n_bytes, Ordering::Relaxed);
        Ok(Segment {
            path,
            n_rows: self.merged.iter().map(RecordBatch::num_rows).sum(),
            n_batches: self.merged.len(),
            n_bytes,
            space: self.space.clone(),
        })
    }
}

impl Drop for RecordLog {
    fn drop(&mut self) {
        self.account(-(self.memory_bytes as isize));
    }
}

#[derive(Clone, Debug)]
enum Chunk {
    Memory(RecordBatch),
    Disk(Arc<Segment>, usize),
}

/// What a log held at one moment.
#[derive(Clone, Debug)]
pub(crate) struct LogSnapshot {
    schema: SchemaRef,
    n_rows: usize,
    chunks: Vec<Chunk>,
}

impl LogSnapshot {
    /// Of one batch.
    pub(crate) fn of_batch(batch: RecordBatch) -> LogSnapshot {
        LogSnapshot { schema: batch.schema(), n_rows: batch.num_rows(), chunks: vec![Chunk::Memory(batch)] }
    }
}

fn read_batch(path: &Path, batch_idx: usize) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut reader = FileReader::try_new(File::open(path)?, None)?;
    reader.set_index(batch_idx)?;
    reader.next().unwrap_or_else(|| Err(arrow::error::ArrowError::IpcError("the batch is missing".to_owned())))
}

impl TableSnapshot for LogSnapshot {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn n_chunks(&self) -> usize {
        self.chunks.len()
    }

    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn chunk(&self, chunk_idx: usize, projection: Option<&[usize]>) -> RecordBatch {
        let batch = match &self.chunks[chunk_idx] {
            Chunk::Memory(batch) => batch.clone(),
            Chunk::Disk(segment, batch_idx) => match read_batch(&segment.path, *batch_idx) {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(%error, path = %segment.path.display(), "a file of the cache folder cannot be read: its events are missing from this answer");
                    RecordBatch::new_empty(self.schema.clone())
                }
            },
        };
        match projection {
            Some(columns) => batch.project(columns).expect("projected columns exist"),
            None => batch,
        }
    }
}
