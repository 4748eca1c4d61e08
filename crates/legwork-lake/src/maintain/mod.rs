//! What keeps the lake fast and small: compaction, retention, vacuum.
//!
//! Each step is one commit against the version it was worked out from, or none: killed at any instruction, it leaves at most files that
//! nobody reads, which a later vacuum finds.

mod lease;
mod plan;
mod rewrite;
mod vacuum;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use deltalake::protocol::DeltaOperation;
pub use lease::Lease;
use tracing::{info, warn};

use crate::log::{ATTEMPTS_MAX, CommitFailure, TableLog, pause};
use crate::{Lake, LakeError, LakeTable};
use plan::{Rules, Task, plan};
use rewrite::{Rewrite, active, infos, removals};

/// What to maintain by.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// Now, milliseconds since 1970.
    pub now_ms: i64,
    /// Days that ended longer ago than this get their final form.
    pub late_horizon: Duration,
    /// Days that ended longer ago than this are dropped, by table; a table without an entry keeps all.
    pub retention: HashMap<String, Duration>,
}

/// What was done about a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Days dropped for their age.
    pub n_days_dropped: usize,
    /// Days that got their final form.
    pub n_days_resolved: usize,
    /// Small files put together on days that may still change.
    pub n_files_merged: usize,
    /// Files written for both.
    pub n_files_written: usize,
    /// Their bytes.
    pub n_bytes_written: u64,
    /// Files deleted that the table had removed before.
    pub n_files_deleted: usize,
    /// Files deleted that no version ever held.
    pub n_orphans_deleted: usize,
}

/// What became of one call of [`Lake::maintain`].
#[derive(Debug)]
pub struct Maintenance {
    /// By table: what was done, or why not all of it.
    pub tables: Vec<(String, Result<Maintained, LakeError>)>,
    /// The lease, renewed on the way; none when it has gone to another instance, which then goes on, or was given back because this
    /// machine's clock is wrong.
    pub lease: Option<Lease>,
}

/// Rounds of planning a call makes: each merges what the one before it left.
const ROUNDS_MAX: usize = 8;

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A call of [`Lake::maintain`] under way.
struct Run<'a> {
    lake: &'a Lake,
    upkeep: &'a Upkeep,
    started: Instant,
    lease: Option<Lease>,
}

impl Lake {
    /// Maintains tables, while the lease lasts: drops days beyond their retention, gives days beyond the late horizon their final form,
    /// merges small files of the others, deletes files that no version needs. Safe to kill, to repeat, and beside commits: a step that
    /// somebody else was faster than is left for the next call. A table's trouble does not keep the others waiting.
    pub async fn maintain(&self, tables: &[LakeTable], upkeep: &Upkeep, lease: Lease) -> Maintenance {
        if let Err(refused) = self.refuse_clock(lease.ahead_ms(upkeep.now_ms)) {
            warn!(error = %refused, "the lake is not maintained");
            if let Err(error) = self.release(&lease).await {
                warn!(%error, "the lease of the lake's maintenance was not given back: it ends by itself");
            }
            let tables = tables.iter().map(|table| (table.name().to_owned(), Err(refused.clone()))).collect();
            return Maintenance { tables, lease: None };
        }
        let mut run = Run { lake: self, upkeep, started: Instant::now(), lease: Some(lease) };
        let mut done = Vec::new();
        for table in tables {
            let mut maintained = Maintained::default();
            let result = Box::pin(run.table(table, &mut maintained)).await;
            if let Err(error) = &result {
                warn!(table = table.name(), %error, "a lake table is not maintained to the end");
            }
            done.push((table.name().to_owned(), result.map(|()| maintained)));
            if run.lease.is_none() {
                break;
            }
        }
        Maintenance { tables: done, lease: run.lease }
    }
}

impl Run<'_> {
    fn now_ms(&self) -> i64 {
        self.upkeep.now_ms.saturating_add(millis(self.started.elapsed()))
    }

    /// *Returns* whether the lease is still ours; renews it when less than half of it is left.
    async fn is_ours(&mut self) -> Result<bool, LakeError> {
        let now_ms = self.now_ms();
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.is_to_renew(now_ms)) {
            self.lease = self.lake.renew(lease, now_ms).await?;
        }
        Ok(self.lease.is_some())
    }

    async fn table(&mut self, table: &LakeTable, done: &mut Maintained) -> Result<(), LakeError> {
        let log = self.lake.log(table)?;
        let rules = Rules {
            now_ms: self.upkeep.now_ms,
            late_horizon_ms: millis(self.upkeep.late_horizon),
            retention_ms: self.upkeep.retention.get(table.name()).map(|retention| millis(*retention)),
            file_bytes_target: self.lake.inner.config.file_bytes_target,
        };
        for _ in 0..ROUNDS_MAX {
            let Some(version) = log.refresh().await? else { return Ok(()) };
            let tasks = plan(&infos(table, &version)?, &rules);
            if tasks.is_empty() {
                break;
            }
            drop(version);
            for task in tasks {
                if !self.is_ours().await? {
                    return Ok(());
                }
                self.task(table, &log, task, done).await?;
            }
        }
        if !self.is_ours().await? {
            return Ok(());
        }
        let vacuumed = vacuum::vacuum(self.lake, &log, self.upkeep.now_ms).await?;
        done.n_files_deleted = vacuumed.n_removed;
        done.n_orphans_deleted = vacuumed.n_orphans;
        Ok(())
    }

    async fn task(
        &self,
        table: &LakeTable,
        log: &TableLog,
        task: Task,
        done: &mut Maintained,
    ) -> Result<(), LakeError> {
        let (day, paths, is_final) = match task {
            Task::Drop { day, paths } => {
                if drop_day(log, &paths, self.upkeep.now_ms).await? {
                    done.n_days_dropped += 1;
                    info!(
                        table = table.name(),
                        day = crate::files::day_name(day),
                        n_files = paths.len(),
                        "dropped a day beyond its retention"
                    );
                }
                return Ok(());
            }
            Task::Merge { day, paths } => (day, paths, false),
            Task::Resolve { day, paths } => (day, paths, true),
        };
        let n_files_before = paths.len();
        let rewrite = Rewrite { lake: self.lake, table, log, day, paths, is_final, now_ms: self.upkeep.now_ms };
        let Some(rewritten) = Box::pin(rewrite.run()).await? else { return Ok(()) };
        match is_final {
            true => done.n_days_resolved += 1,
            false => done.n_files_merged += n_files_before,
        }
        done.n_files_written += rewritten.n_files;
        done.n_bytes_written += rewritten.n_bytes;
        let (n_files, n_bytes) = (rewritten.n_files, rewritten.n_bytes);
        info!(
            table = table.name(),
            day = crate::files::day_name(day),
            is_final,
            n_files_before,
            n_files,
            n_bytes,
            "compacted a day"
        );
        Ok(())
    }
}

/// Removes files for good. *Returns* false when somebody else has removed one of them.
async fn drop_day(log: &TableLog, paths: &[String], now_ms: i64) -> Result<bool, LakeError> {
    for n_attempts in 0..ATTEMPTS_MAX {
        pause(n_attempts).await;
        let _one_at_a_time = log.committing.lock().await;
        let Some(version) = log.refresh().await? else { return Ok(false) };
        let found = active(&version);
        if !paths.iter().all(|path| found.contains(path)) {
            // After an unknown outcome: all gone is what was wanted.
            return Ok(n_attempts > 0 && paths.iter().all(|path| !found.contains(path)));
        }
        let operation = DeltaOperation::Delete { predicate: None };
        match log.commit(Some(&version), removals(&version, paths, true, now_ms), operation).await {
            Ok(_) => return Ok(true),
            Err(CommitFailure::Refused(error)) => return Err(error),
            Err(CommitFailure::Conflict | CommitFailure::Unknown(_)) => {}
        }
    }
    Err(LakeError::Contended { table: log.name().to_owned(), n_attempts: ATTEMPTS_MAX })
}
