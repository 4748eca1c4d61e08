//! Objects that pile up where no owner of a lane lives until its compactor looks, as when a process is killed again and again. At
//! `settings::L0_MAX` of them a database takes no more, not even the log that an opening reads again: the lane could be claimed by nobody.

use std::time::Duration;

use legwork_types::LaneId;
use slatedb::admin::Admin;
use slatedb::config::{CompactionWorkerOptions, CompactorOptions};
use tokio_util::sync::CancellationToken;

use super::{SlateStore, refused};
use crate::StoreError;

/// How often a compactor looks that others wait for.
const POLL: Duration = Duration::from_millis(50);

impl SlateStore {
    /// Compacts what has piled up in a lane before it is opened: whoever owns it still is about to lose it. Where that fails, or takes
    /// too long, the lane is opened as it is; a compactor that goes on is fenced by the database's own.
    pub(super) async fn work_off(&self, lane: &LaneId) {
        match tokio::time::timeout(self.config.claim_timeout / 2, Box::pin(self.compact_backlog(lane))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%lane, %error, "what has piled up could not be compacted"),
            Err(_) => tracing::warn!(%lane, "what has piled up takes long to compact: the lane is opened as it is"),
        }
    }

    async fn compact_backlog(&self, lane: &LaneId) -> Result<(), StoreError> {
        let admin = Admin::builder(self.path(lane), self.objects.clone()).build();
        let n_piled = || async {
            let manifest = admin.read_manifest(None).await.map_err(|error| refused(lane, &error))?;
            Ok(manifest.map_or(0, |manifest| manifest.l0().len()))
        };
        let n_objects = n_piled().await?;
        if n_objects < self.tuning.backlog_min {
            return Ok(());
        }
        tracing::info!(%lane, n_objects, "owners of this lane did not live until it was compacted: that is done first");
        let usual = self.tuning.compactor();
        let worker = usual.worker.map(|worker| CompactionWorkerOptions { compactions_poll_interval: POLL, ..worker });
        let options = CompactorOptions { poll_interval: POLL, worker, ..usual };
        let is_done = CancellationToken::new();
        let compacting = admin.run_compactor_with_options(is_done.clone(), options);
        let watching = async {
            while n_piled().await? >= self.tuning.backlog_min {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        let watching = async {
            let watched = watching.await;
            is_done.cancel();
            watched
        };
        let (compacted, watched) = futures::join!(Box::pin(compacting), watching);
        compacted.map_err(|error| refused(lane, &error)).and(watched)
    }
}
