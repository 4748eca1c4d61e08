//! Files that no version needs any more.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use deltalake::checkpoints::cleanup_expired_logs_for;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use tracing::info;

use super::rewrite::active;
use crate::log::TableLog;
use crate::table::DAY;
use crate::{Lake, LakeError, local};

/// Commits of a log that a checkpoint covers stay this long.
const LOG_KEPT_MS: i64 = 7 * 86_400_000;

/// What was deleted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vacuumed {
    pub(super) n_removed: usize,
    pub(super) n_orphans: usize,
    pub(super) n_commits: usize,
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Deletes files that were removed from the table longer ago than readers may take, and files that no version ever held and that are
/// older than any commit under way.
pub(super) async fn vacuum(lake: &Lake, log: &TableLog, now_ms: i64) -> Result<Vacuumed, LakeError> {
    let failed = |error: object_store::Error| LakeError::store(log.name(), "vacuumed", &error);
    let store = log.store();
    // Listed first: what is committed between the two is then active.
    let listed: Vec<_> = store.list(None).try_collect().await.map_err(failed)?;
    let Some(version) = log.refresh().await? else { return Ok(Vacuumed::default()) };
    let mut kept: HashSet<String> = active(&version);
    // The one that is kept at hand for the next query pins nothing by itself.
    log.last_pin.lock().take();
    for pinned in log.pinned() {
        kept.extend(active(&pinned));
    }
    let tombstones = version.delta.all_tombstones(log.log_store().as_ref());
    let tombstones =
        tombstones.map_ok(|file| (file.path().into_owned(), file.deletion_timestamp().unwrap_or_default()));
    let removed: HashMap<String, i64> =
        tombstones.try_collect().await.map_err(|error| LakeError::delta(log.name(), "vacuumed", error))?;
    let config = &lake.inner.config;
    let removed_before_ms = now_ms.saturating_sub(millis(config.removed_files_kept));
    let orphaned_before_ms = now_ms.saturating_sub(millis(config.orphans_kept.max(2 * config.commit_timeout)));
    let (mut vacuumed, mut doomed) = (Vacuumed::default(), Vec::new());
    let is_data = |path: &Path| path.as_ref().starts_with(&format!("{DAY}=")) && path.as_ref().ends_with(".parquet");
    for object in
        listed.into_iter().filter(|object| is_data(&object.location) && !kept.contains(object.location.as_ref()))
    {
        match removed.get(object.location.as_ref()) {
            Some(removed_ms) if *removed_ms <= removed_before_ms => vacuumed.n_removed += 1,
            None if object.last_modified.timestamp_millis() <= orphaned_before_ms => vacuumed.n_orphans += 1,
            _ => continue,
        }
        doomed.push(Ok(object.location));
    }
    let deleted = store.delete_stream(futures::stream::iter(doomed).boxed());
    let missing = |done: object_store::Result<Path>| match done {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        done => done.map(|_| ()),
    };
    deleted.map(missing).try_collect::<()>().await.map_err(failed)?;
    if let Ok(folder) =
        lake.inner.url.join(&format!("{}/", log.name())).map_err(|_| ()).and_then(|url| url.to_file_path())
    {
        let before = UNIX_EPOCH + Duration::from_millis(u64::try_from(orphaned_before_ms).unwrap_or_default());
        let swept = tokio::task::spawn_blocking(move || local::sweep(&folder, before)).await;
        let swept = swept.map_err(std::io::Error::other).flatten();
        vacuumed.n_orphans += swept.map_err(|error| LakeError::unavailable(log.name(), "vacuumed", error))?;
    }
    let cutoff_ms = now_ms.saturating_sub(LOG_KEPT_MS);
    let cleaned = cleanup_expired_logs_for(version.number(), log.log_store().as_ref(), cutoff_ms, None).await;
    vacuumed.n_commits = cleaned.map_err(|error| LakeError::delta(log.name(), "vacuumed", error))?;
    if vacuumed.n_removed + vacuumed.n_orphans + vacuumed.n_commits > 0 {
        let Vacuumed { n_removed, n_orphans, n_commits } = vacuumed;
        info!(table = log.name(), n_removed, n_orphans, n_commits, "vacuumed a lake table");
    }
    Ok(vacuumed)
}
