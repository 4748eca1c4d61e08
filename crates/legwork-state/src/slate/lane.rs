//! A claimed lane on SlateDB.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use legwork_types::LaneId;
use slatedb::config::{CloseOptions, FlushOptions, FlushType, ScanOptions};
use slatedb::{Db, ErrorKind, KeyValue, WriteBatch};

use super::settings::{L0_BYTES, LIGHT_CHECKPOINTS};
use super::{Background, refused, unavailable};
use crate::layout::{self, COLD, Changes, HEAD, HOT, Loaded, ROWS, Written};
use crate::liveness::Liveness;
use crate::{Checkpoint, LaneStore, StoreError, format};

/// Cold values read at once.
const READ_AT_ONCE: usize = 16;
/// Bytes asked for ahead when hot state is scanned.
const READ_AHEAD_BYTES: usize = 256 << 10;

pub(super) struct SlateLane {
    id: LaneId,
    db: Db,
    liveness: Liveness,
    writer: tokio::sync::Mutex<Writer>,
    commit_timeout: Duration,
    is_closed: AtomicBool,
    /// The database's compactor runs on it: where that ends first, whoever still writes panics.
    _compaction: Arc<Background>,
}

impl std::fmt::Debug for SlateLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlateLane").field("id", &self.id).field("liveness", &self.liveness).finish_non_exhaustive()
    }
}

/// What the writer of a lane remembers.
#[derive(Debug)]
struct Writer {
    written: Written,
    /// Checkpoints and bytes since the memtable became an object, as far as can be told from here.
    n_unflushed: u32,
    unflushed_bytes: usize,
}

impl SlateLane {
    pub(super) fn new(
        id: LaneId,
        db: Db,
        written: Written,
        commit_timeout: Duration,
        compaction: Arc<Background>,
    ) -> SlateLane {
        let mut hash = DefaultHasher::new();
        id.hash(&mut hash);
        // Staggered, or all lanes that were claimed together would write their objects together for ever.
        let n_unflushed = (hash.finish() % u64::from(LIGHT_CHECKPOINTS)) as u32;
        SlateLane {
            liveness: Liveness::new(id.clone()),
            id,
            db,
            writer: tokio::sync::Mutex::new(Writer { written, n_unflushed, unflushed_bytes: 0 }),
            commit_timeout,
            is_closed: AtomicBool::new(false),
            _compaction: compaction,
        }
    }

    async fn write(&self, writer: &mut Writer, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let changes = writer.written.changes(checkpoint)?;
        let bytes: usize = changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        let committed = tokio::time::timeout(self.commit_timeout, commit(&self.id, &self.db, changes)).await;
        committed.map_err(|_| StoreError::Unknown {
            lane: self.id.clone(),
            detail: format!("no answer within {:?}", self.commit_timeout),
        })??;
        writer.n_unflushed += 1;
        writer.unflushed_bytes += bytes;
        if writer.unflushed_bytes >= L0_BYTES {
            // SlateDB does it by itself.
            (writer.n_unflushed, writer.unflushed_bytes) = (0, 0);
        } else if writer.n_unflushed >= LIGHT_CHECKPOINTS {
            (writer.n_unflushed, writer.unflushed_bytes) = (0, 0);
            self.flush_memtable();
        }
        Ok(())
    }

    /// In the background: the checkpoint is durable without it.
    fn flush_memtable(&self) {
        let (lane, db) = (self.id.clone(), self.db.clone());
        tokio::spawn(async move {
            if let Err(error) = db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await {
                tracing::debug!(%lane, %error, "the memtable was not flushed");
            }
        });
    }

    async fn get(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let gets = keys.into_iter().map(|key| async move {
            let key = layout::prefixed(COLD, &key);
            let value = self.db.get(&key).await.map_err(|error| refused(&self.id, &error))?;
            value.map(|value| Ok(format::open(&self.id, &key, &value)?.to_vec())).transpose()
        });
        let reading = stream::iter(gets).buffered(READ_AT_ONCE).try_collect();
        match tokio::time::timeout(self.commit_timeout, reading).await {
            Ok(found) => found,
            Err(_) => {
                Err(unavailable(format_args!("lane {}: no answer to a read within {:?}", self.id, self.commit_timeout)))
            }
        }
    }

    /// Ends what runs for a claim that has ended.
    fn abandon_if_ended(&self) {
        if self.liveness.check().is_err() && !self.is_closed.swap(true, Ordering::Relaxed) {
            abandon(&self.id, &self.db);
        }
    }
}

#[async_trait]
impl LaneStore for SlateLane {
    async fn commit(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let writing = self.liveness.write()?;
        let result = writing.decide(self.write(&mut writer, checkpoint).await);
        self.abandon_if_ended();
        result
    }

    async fn read(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.liveness.check()?;
        let result = self.liveness.judge(self.get(keys).await);
        self.abandon_if_ended();
        result
    }

    async fn release(&self) -> Result<(), StoreError> {
        let _writer = self.writer.lock().await;
        let writing = self.liveness.write()?;
        self.is_closed.store(true, Ordering::Relaxed);
        let closing = tokio::time::timeout(self.commit_timeout, self.db.close()).await;
        writing.decide(match closing {
            Ok(closed) => closed.map_err(|error| refused(&self.id, &error)),
            Err(_) => {
                Err(unavailable(format_args!("lane {} was not closed within {:?}", self.id, self.commit_timeout)))
            }
        })?;
        self.liveness.release();
        Ok(())
    }
}

impl Drop for SlateLane {
    fn drop(&mut self) {
        if !self.is_closed.swap(true, Ordering::Relaxed) {
            abandon(&self.id, &self.db);
        }
    }
}

/// Ends a database's tasks without writing anything more. Nobody waits for it.
pub(super) fn abandon(lane: &LaneId, db: &Db) {
    let (lane, db) = (lane.clone(), db.clone());
    // Without a runtime there are no tasks to end.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        if let Err(error) = db.close_with_options(CloseOptions::default().with_flush_type(None)).await {
            tracing::debug!(%lane, %error, "a database that was given up did not close");
        }
    });
}

/// Makes an object of what every claim would have to read again: checkpoints of owners that did not live long, and fences.
pub(super) async fn shorten_log(lane: &LaneId, db: &Db) -> Result<(), StoreError> {
    let head = db.get(HEAD).await.map_err(|error| refused(lane, &error))?;
    // Fences alone make no object.
    commit(lane, db, Changes::from([(HEAD.to_vec(), head.map(Into::into))])).await?;
    let flushed = db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await;
    flushed.map_err(|error| refused(lane, &error))
}

/// Everything but cold state.
pub(super) async fn load(lane: &LaneId, db: &Db) -> Result<Loaded, StoreError> {
    let head = db.get(HEAD).await.map_err(|error| refused(lane, &error))?;
    if head.is_none() {
        return Ok(Loaded::default());
    }
    let rows = scan(lane, db, ROWS).await?;
    let hot = scan(lane, db, HOT).await?;
    Loaded::read(lane, head.as_deref(), pairs(&rows), pairs(&hot))
}

fn pairs(entries: &[KeyValue]) -> impl Iterator<Item = (&[u8], &[u8])> {
    entries.iter().map(|entry| (&*entry.key, &*entry.value))
}

async fn scan(lane: &LaneId, db: &Db, prefix: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
    let options = ScanOptions::default().with_read_ahead_bytes(READ_AHEAD_BYTES);
    let scanning = db.scan_prefix_with_options(prefix, .., &options).await;
    let mut scanning = scanning.map_err(|error| refused(lane, &error))?;
    let mut entries = Vec::new();
    while let Some(entry) = scanning.next().await.map_err(|error| refused(lane, &error))? {
        entries.push(entry);
    }
    Ok(entries)
}

/// Deletes keys, durably.
pub(super) async fn delete(lane: &LaneId, db: &Db, keys: &[Vec<u8>]) -> Result<(), StoreError> {
    commit(lane, db, keys.iter().map(|key| (key.clone(), None)).collect()).await
}

async fn commit(lane: &LaneId, db: &Db, changes: Changes) -> Result<(), StoreError> {
    let mut batch = WriteBatch::new();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put_bytes(key.into(), value.into()),
            None => batch.delete(key),
        }
    }
    // In memory only: where it fails, nothing was written.
    db.write(batch).await.map_err(|error| refused(lane, &error))?;
    db.flush().await.map_err(|error| match error.kind() {
        ErrorKind::Closed(slatedb::CloseReason::Fenced) => StoreError::Fenced { lane: lane.clone() },
        _ => StoreError::Unknown { lane: lane.clone(), detail: error.to_string() },
    })
}
