//! Opening files: formats by ending, gzip, and how far a reader has come.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::FileError;

/// Bytes asked of the operating system at once.
const READ_BYTES: usize = 256 * 1024;

/// The bytes of a file, unzipped where need be.
pub(crate) type Bytes = Box<dyn Read + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Ndjson,
    Parquet,
    Avro,
    Gpx,
}

impl Format {
    pub(crate) fn of(path: &Path) -> Result<Format, FileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (zipped, name) = match name.strip_suffix(".gz") {
            Some(inner) => (true, inner),
            None => (false, name.as_str()),
        };
        match name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("csv") => Ok(Format::Csv),
            Some("ndjson" | "jsonl" | "json") => Ok(Format::Ndjson),
            Some("avro") => Ok(Format::Avro),
            Some("gpx") => Ok(Format::Gpx),
            // Parquet is read by seeking, which a gzipped file does not allow.
            Some("parquet") if !zipped => Ok(Format::Parquet),
            _ => Err(FileError::UnknownFormat { path: path.to_owned() }),
        }
    }
}

/// Bytes read of a file, shared between its reader and whoever shows it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    n_bytes: Arc<AtomicU64>,
    n_bytes_total: Option<u64>,
}

impl Progress {
    pub(crate) fn get(&self) -> (u64, Option<u64>) {
        (self.n_bytes.load(Ordering::Relaxed), self.n_bytes_total)
    }

    /// For readers that seek: sets the bytes to this share of the file.
    pub(crate) fn set_share(&self, part: u64, whole: u64) {
        let n_bytes = self.n_bytes_total.unwrap_or(0) as f64 * part as f64 / whole.max(1) as f64;
        self.n_bytes.store(n_bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn finish(&self) {
        if let Some(total) = self.n_bytes_total {
            self.n_bytes.store(total, Ordering::Relaxed);
        }
    }
}

struct Counted {
    file: File,
    n_bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n_bytes = self.file.read(into)?;
        self.n_bytes.fetch_add(n_bytes as u64, Ordering::Relaxed);
        Ok(n_bytes)
    }
}

/// Opens a file to be read from its start to its end. Gzip is told by its magic bytes.
pub(crate) fn open(path: &Path) -> Result<(Bytes, Progress), FileError> {
    let (mut file, progress) = open_plain(path)?;
    let io = |source| FileError::Io { path: path.to_owned(), source };
    let mut magic = Vec::with_capacity(2);
    file.by_ref().take(2).read_to_end(&mut magic).map_err(io)?;
    let zipped = magic == [0x1f, 0x8b];
    let counted = if file.rewind().is_ok() {
        Box::new(Counted { file, n_bytes: progress.n_bytes.clone() }) as Bytes
    } else {
        // A pipe: what was read cannot be read again.
        Box::new(std::io::Cursor::new(magic).chain(Counted { file, n_bytes: progress.n_bytes.clone() }))
    };
    let bytes: Bytes = if zipped {
        Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, counted)))
    } else {
        counted
    };
    Ok((bytes, progress))
}

/// Opens a file to be read by seeking.
pub(crate) fn open_plain(path: &Path) -> Result<(File, Progress), FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        return Err(io(std::io::ErrorKind::IsADirectory.into()));
    }
    let n_bytes_total = metadata.is_file().then_some(metadata.len());
    Ok((file, Progress { n_bytes: Arc::default(), n_bytes_total }))
}
