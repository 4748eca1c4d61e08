//! An append-only log of record batches: small ones are merged, old ones go to a folder, and all of them can be read.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use legwork_types::TableSnapshot;
use parking_lot::Mutex;

use crate::SpillConfig;

/// Batches below this are merged, so that a trickle of events does not become a heap of tiny arrays.
const MERGED_ROWS_MIN: usize = 4_096;
/// A run of so many small batches is merged at once.
const SMALL_BATCHES_MAX: usize = 32;

/// The space that all logs of a process share.
#[derive(Debug)]
pub(crate) struct Space {
    root: PathBuf,
    memory_bytes_max: usize,
    disk_bytes_max: u64,
    /// Where nothing else has the rows, none go when the disk's share is used up.
    is_only_copy: bool,
    memory_bytes: AtomicUsize,
    disk_bytes: AtomicU64,
    next_file: AtomicU64,
    folder: Mutex<Option<Folder>>,
}

impl Space {
    /// Removes what processes that have ended left in the folder. `is_only_copy`: nothing else has what the logs hold.
    pub(crate) fn open(config: &SpillConfig, is_only_copy: bool) -> Arc<Space> {
        let root = config.dir.join("events");
        if root.is_dir() {
            // What cannot be removed is reported when the folder is needed.
            let _ = Folder::clear(&root);
        }
        Arc::new(Space {
            root,
            memory_bytes_max: config.memory_bytes_max,
            disk_bytes_max: config.disk_bytes_max,
            is_only_copy,
            memory_bytes: AtomicUsize::new(0),
            disk_bytes: AtomicU64::new(0),
            next_file: AtomicU64::new(0),
            folder: Mutex::default(),
        })
    }

    /// The folder of this process.
    fn folder(&self) -> io::Result<PathBuf> {
        let mut folder = self.folder.lock();
        let made = match folder.take() {
            Some(made) => made,
            None => Folder::make(&self.root)?,
        };
        // The cache folder may be lost at any time.
        fs::create_dir_all(&made.path)?;
        Ok(folder.insert(made).path.clone())
    }
}

/// A folder that no other process writes to: it belongs to whoever has the lock on the file beside it.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Removes folders of processes that have ended. *Returns* the right to make one: one process at a time has it, so that nobody takes a
    /// folder for left behind that is just being made.
    fn clear(root: &Path) -> io::Result<File> {
        let turn = File::create(root.join("lock"))?;
        turn.lock()?;
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "lock")
                && File::open(&path).is_ok_and(|lock| lock.try_lock().is_ok())
            {
                // What cannot be removed is in nobody's way.
                let _ = fs::remove_dir_all(path.with_extension(""));
                let _ = fs::remove_file(&path);
            }
        }
        Ok(turn)
    }

    fn make(root: &Path) -> io::Result<Folder> {
        fs::create_dir_all(root)?;
        let _turn = Folder::clear(root)?;
        // Processes in containers that share a folder have the same number.
        let name = format!("{}-{:016x}", std::process::id(), RandomState::new().build_hasher().finish());
        let lock = File::create(root.join(format!("{name}.lock")))?;
        lock.lock()?;
        let path = root.join(name);
        fs::create_dir(&path)?;
        Ok(Folder { path, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(self.path.with_extension("lock"));
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

    /// Bytes in memory and on the disk.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.memory_bytes as u64 + self.segments.iter().map(|segment| segment.n_bytes).sum::<u64>()
    }

    /// All rows, in memory. *Errors:* a file of the cache folder cannot be read.
    pub(crate) fn batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        self.snapshot().chunks.iter().map(Chunk::read).collect()
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
                tracing::warn!(%error, dir = %self.space.root.display(), "events cannot be moved to the cache folder and stay in memory");
            }
        }
        let mut n_dropped = 0;
        while !self.space.is_only_copy && self.space.disk_bytes.load(Ordering::Relaxed) > self.space.disk_bytes_max {
            let Some(oldest) = self.segments.pop_front() else { break };
            n_dropped += oldest.n_rows as u64;
        }
        self.n_dropped += n_dropped;
        n_dropped
    }

    fn write_segment(&self) -> Result<Segment, ArrowError> {
        let number = self.space.next_file.fetch_add(1, Ordering::Relaxed);
        let path = self.space.folder()?.join(format!("{number}.arrow"));
        let n_bytes = self.write_to(&path).inspect_err(|_| {
            // Half a file on a full disk.
            let _ = fs::remove_file(&path);
        })?;
        self.space.disk_bytes.fetch_add(n_bytes, Ordering::Relaxed);
        Ok(Segment {
            path,
            n_rows: self.merged.iter().map(RecordBatch::num_rows).sum(),
            n_batches: self.merged.len(),
            n_bytes,
            space: self.space.clone(),
        })
    }

    fn write_to(&self, path: &Path) -> Result<u64, ArrowError> {
        let mut writer = FileWriter::try_new(BufWriter::new(File::create(path)?), &self.schema)?;
        self.merged.iter().try_for_each(|batch| writer.write(batch))?;
        writer.finish()?;
        Ok(fs::metadata(path)?.len())
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

impl Chunk {
    fn read(&self) -> Result<RecordBatch, ArrowError> {
        match self {
            Chunk::Memory(batch) => Ok(batch.clone()),
            Chunk::Disk(segment, batch_idx) => read_batch(&segment.path, *batch_idx),
        }
    }
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

fn read_batch(path: &Path, batch_idx: usize) -> Result<RecordBatch, ArrowError> {
    let mut reader = FileReader::try_new(File::open(path)?, None)?;
    reader.set_index(batch_idx)?;
    reader.next().unwrap_or_else(|| Err(ArrowError::IpcError("the batch is missing".to_owned())))
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
        let batch = self.chunks[chunk_idx].read().unwrap_or_else(|error| {
            tracing::error!(%error, "a file of the cache folder cannot be read: its events are missing from this answer");
            RecordBatch::new_empty(self.schema.clone())
        });
        match projection {
            Some(columns) => batch.project(columns).expect("projected columns exist"),
            None => batch,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn log(config: &SpillConfig) -> RecordLog {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        RecordLog::new(schema, Space::open(config, true))
    }

    fn push(log: &mut RecordLog, number: i64) {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![number]));
        log.push(RecordBatch::try_new(log.schema.clone(), vec![column]).unwrap());
    }

    fn numbers(log: &RecordLog) -> Vec<i64> {
        let batches = log.batches().unwrap();
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    /// Every row goes to the disk at once.
    fn tight(dir: &Path) -> SpillConfig {
        SpillConfig { dir: dir.to_owned(), memory_bytes_max: 0, disk_bytes_max: 0 }
    }

    #[test]
    fn logs_of_one_cache_folder_keep_apart_and_what_is_left_behind_goes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("events");
        fs::create_dir_all(root.join("dead")).unwrap();
        fs::write(root.join("dead/0.arrow"), "left behind").unwrap();
        fs::write(root.join("dead.lock"), "").unwrap();
        let mut a = log(&tight(folder.path()));
        push(&mut a, 1);
        let mut b = log(&tight(folder.path()));
        push(&mut b, 2);
        push(&mut a, 3);
        assert_eq!((numbers(&a), numbers(&b)), (vec![1, 3], vec![2]));
        assert!(!root.join("dead").exists() && !root.join("dead.lock").exists());
        drop(a);
        assert_eq!(numbers(&b), [2]);
        drop(b);
        let left: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn rows_that_cannot_be_read_back_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(&tight(folder.path()));
        push(&mut log, 1);
        assert!(log.n_bytes() > 0);
        fs::remove_dir_all(folder.path().join("events")).unwrap();
        assert!(log.batches().is_err());
        assert_eq!(log.snapshot().chunk(0, None).num_rows(), 0, "a query goes on without them");
        push(&mut log, 2);
        assert_eq!(log.segments.back().map(|segment| segment.path.exists()), Some(true));
    }
}
