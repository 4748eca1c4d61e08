//! Looking at a lane without claiming it.

use futures::FutureExt;
use futures::future::BoxFuture;
use legwork_types::LaneId;
use slatedb::config::DbReaderOptions;
use slatedb::{DbReader, DbReaderMode};

use super::{SlateStore, refused, settings, unavailable};
use crate::layout::{HEAD, Loaded, ROWS};
use crate::{Head, Peeked, StoreError, format};

/// Looks at a lane whose owner makes checkpoints meanwhile, before it is given up.
const LOOKS_MAX: usize = 10;

impl SlateStore {
    /// The newest checkpoint of a lane with its pending rows; none for a lane without one. Nothing is claimed: the owner is not disturbed, and
    /// what it does from then on is not seen. *Errors:* `Unavailable`, `NewerFormat`, `Damaged`.
    pub async fn peek(&self, lane: &LaneId) -> Result<Option<Peeked>, StoreError> {
        if !self.has_database(lane).await? {
            return Ok(None);
        }
        let mut last = None;
        // Nothing holds what is read, and it is read in several steps: an owner may change it in between.
        for _ in 0..LOOKS_MAX {
            match self.read(lane, |lane, reader| load(lane, reader).boxed()).await {
                Ok(Some(loaded)) => {
                    return Ok(loaded.head.map(|head| Peeked { head, pending: loaded.pending }));
                }
                Ok(None) => last = None,
                Err(error @ StoreError::NewerFormat { .. }) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            unavailable(format_args!("lane {lane} changed while it was read, {LOOKS_MAX} times over: try again"))
        }))
    }

    /// The head of a lane's newest checkpoint.
    pub(super) async fn head(&self, lane: &LaneId) -> Result<Option<Head>, StoreError> {
        self.read(lane, |lane, reader| {
            let head = async move {
                let value = reader.get(HEAD).await.map_err(|error| refused(lane, &error))?;
                value.map(|value| format::open_head(lane, HEAD, &value)).transpose()
            };
            head.boxed()
        })
        .await
    }

    /// Reads a lane without claiming it, for as long as a claim may take.
    async fn read<T>(
        &self,
        lane: &LaneId,
        read: for<'a> fn(&'a LaneId, &'a DbReader) -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let options =
            DbReaderOptions { object_store_max_retries: Some(settings::RETRIES), ..DbReaderOptions::default() };
        let read = async {
            let reader = DbReader::builder(self.path(lane), self.objects.clone())
                .with_reader_mode(DbReaderMode::FollowLatest)
                .with_options(options)
                .with_db_cache_disabled()
                .build();
            let reader = Box::pin(reader).await.map_err(|error| refused(lane, &error))?;
            let read = read(lane, &reader).await;
            if let Err(error) = reader.close().await {
                tracing::debug!(%lane, %error, "a reader did not close");
            }
            read
        };
        tokio::time::timeout(self.config.claim_timeout, read)
            .await
            .map_err(|_| unavailable(format_args!("lane {lane} does not answer; store.url is {}", self.config.url)))?
    }
}

/// None when the lane changed meanwhile.
async fn load(lane: &LaneId, reader: &DbReader) -> Result<Option<Loaded>, StoreError> {
    let failed = |error: slatedb::Error| refused(lane, &error);
    let head = reader.get(HEAD).await.map_err(failed)?;
    if head.is_none() {
        return Ok(Some(Loaded::default()));
    }
    let mut rows = Vec::new();
    let mut scan = reader.scan_prefix(ROWS, ..).await.map_err(failed)?;
    while let Some(entry) = scan.next().await.map_err(failed)? {
        rows.push((entry.key, entry.value));
    }
    if reader.get(HEAD).await.map_err(failed)? != head {
        return Ok(None);
    }
    let rows = rows.iter().map(|(key, value)| (&**key, &**value));
    Loaded::read(lane, head.as_deref(), rows, []).map(Some)
}
