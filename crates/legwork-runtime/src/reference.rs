//! Reference tables read from a folder of files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::RecordBatch;
use legwork_codec::files::{FileError, FileInput, FileReader};
use legwork_types::{BatchSnapshot, Kind, TableSnapshot};

/// Endings of reference files, in the order in which they are looked for.
const ENDINGS: [&str; 6] = ["csv", "csv.gz", "parquet", "ndjson", "ndjson.gz", "avro"];
/// Rows of one batch of a reference file.
const BATCH_ROWS: usize = 8_192;

/// Reference tables by name.
#[derive(Clone, Debug, Default)]
pub struct ReferenceTables {
    tables: HashMap<&'static str, Arc<dyn TableSnapshot>>,
}

impl ReferenceTables {
    /// The table of that name, if it is here.
    pub fn get(&self, table: &str) -> Option<Arc<dyn TableSnapshot>> {
        self.tables.get(table).cloned()
    }

    /// Puts a table in place of what was there.
    pub fn set(&mut self, kind: Kind, batches: Vec<RecordBatch>) {
        self.tables.insert(kind.table(), Arc::new(BatchSnapshot::new(kind.schema(), batches)));
    }

    /// Takes a table out: something else stands for it.
    pub fn forget(&mut self, kind: Kind) {
        self.tables.remove(kind.table());
    }

    /// Names of the tables that are here.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.tables.keys().copied()
    }
}

/// A folder `<name>.{csv,parquet,ndjson}`, re-read when a file changes.
#[derive(Debug)]
pub struct ReferenceDir {
    dir: PathBuf,
    seen: HashMap<Kind, (PathBuf, SystemTime, u64)>,
    tables: ReferenceTables,
}

/// A reference file that cannot be used; the last good version of it stays.
#[derive(Debug, thiserror::Error)]
#[error("reference file {}: {message}", path.display())]
pub struct ReferenceError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub message: String,
}

impl ReferenceDir {
    /// Of a folder that need not exist yet.
    pub fn new(dir: PathBuf) -> ReferenceDir {
        ReferenceDir { dir, seen: HashMap::new(), tables: ReferenceTables::default() }
    }

    /// Reads what has changed. *Returns* all tables when anything did, and the files that could not be used.
    pub fn refresh(&mut self, arrival_us: i64) -> (Option<ReferenceTables>, Vec<ReferenceError>) {
        let mut has_changed = false;
        let mut errors = Vec::new();
        for kind in Kind::references() {
            let Some((path, modified, n_bytes)) = find(&self.dir, kind) else {
                has_changed |= self.seen.remove(&kind).is_some() && self.tables.tables.remove(kind.table()).is_some();
                continue;
            };
            let version = (path.clone(), modified, n_bytes);
            if self.seen.get(&kind) == Some(&version) {
                continue;
            }
            self.seen.insert(kind, version);
            match read(kind, &path, arrival_us) {
                Ok((batches, n_rejected, first_rejected)) => {
                    if let Some(first) = first_rejected {
                        let message = format!("{n_rejected} rows are wrong and left out, the first one {first}");
                        errors.push(ReferenceError { path, message });
                    }
                    self.tables.set(kind, batches);
                    has_changed = true;
                }
                Err(error) => errors.push(ReferenceError { path, message: error.to_string() }),
            }
        }
        (has_changed.then(|| self.tables.clone()), errors)
    }
}

fn find(dir: &Path, kind: Kind) -> Option<(PathBuf, SystemTime, u64)> {
    ENDINGS.iter().find_map(|ending| {
        let path = dir.join(format!("{}.{ending}", kind.name()));
        let metadata = std::fs::metadata(&path).ok()?;
        Some((path, metadata.modified().ok()?, metadata.len()))
    })
}

fn read(kind: Kind, path: &Path, arrival_us: i64) -> Result<(Vec<RecordBatch>, usize, Option<String>), FileError> {
    let input = FileInput { kind, path: path.to_owned(), map: Vec::new(), arrival_us, batch_rows: BATCH_ROWS };
    let mut reader = FileReader::open(input)?;
    let mut batches = Vec::new();
    let (mut n_rejected, mut first_rejected) = (0, None);
    while let Some(batch) = reader.next() {
        let batch = batch?;
        n_rejected += batch.rejects.len();
        let first = batch.rejects.first();
        first_rejected =
            first_rejected.or(first.map(|reject| format!("{}: {}", batch.places.of(reject.offset), reject.detail)));
        batches.push(batch.events.columns);
    }
    Ok((batches, n_rejected, first_rejected))
}
