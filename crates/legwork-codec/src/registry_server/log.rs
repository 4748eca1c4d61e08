//! The file behind a registry: one JSON object a line and change, appended.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::RegistryError;

/// One change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Change {
    /// A schema became a version of a subject.
    Register { subject: String, version: u32, id: u32, schema: String },
    /// Versions were hidden, or removed for good.
    Delete { subject: String, versions: Vec<u32>, permanent: bool },
    /// A level was set or unset, for a subject or for all.
    Level { subject: Option<String>, level: Option<String> },
}

#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    n_bytes: u64,
}

impl Log {
    /// Opens or makes the file, hands its changes to `apply` in order, and removes a last line that was cut off.
    pub(crate) fn open(
        path: &Path,
        mut apply: impl FnMut(Change) -> Result<(), RegistryError>,
    ) -> Result<Log, RegistryError> {
        let failed = |error: std::io::Error| RegistryError::Storage(format!("{}: {error}", path.display()));
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        file.try_lock().map_err(|error| failed(error.into()))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let whole = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
        for (at, line) in text[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
            let damaged = |error: &dyn std::fmt::Display| {
                RegistryError::Storage(format!("{}: line {} is damaged: {error}", path.display(), at + 1))
            };
            let change = serde_json::from_slice(line).map_err(|error| damaged(&error))?;
            apply(change).map_err(|error| damaged(&error))?;
        }
        let mut log = Log { file, n_bytes: whole as u64 };
        log.roll_back().map_err(failed)?;
        Ok(log)
    }

    /// Appends a change and makes it durable. After an error nothing has been appended.
    pub(crate) fn append(&mut self, change: &Change) -> Result<(), RegistryError> {
        let mut line = serde_json::to_vec(change).map_err(|error| RegistryError::Storage(error.to_string()))?;
        line.push(b'\n');
        // What an append that failed has left is overwritten first.
        let written = self.roll_back().and_then(|()| self.file.write_all(&line)).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            let undone = self.roll_back();
            let undone = undone.err().map(|error| format!("; undoing it failed too: {error}")).unwrap_or_default();
            return Err(RegistryError::Storage(format!("{error}{undone}")));
        }
        self.n_bytes += line.len() as u64;
        Ok(())
    }

    fn roll_back(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.n_bytes)?;
        self.file.seek(SeekFrom::Start(self.n_bytes)).map(|_| ())
    }
}
