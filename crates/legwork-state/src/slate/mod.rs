//! The store on an object store: one SlateDB database a lane, under `lanes/<topic>/<partition>/`. A claim opens the database, which fences
//! whoever had it open; a checkpoint is one write batch and one flush, which is one object made if it is absent.

mod backlog;
mod lane;
mod look;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
mod url;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use legwork_types::LaneId;
use object_store_014::path::Path;
use object_store_014::{ListResult, ObjectStore};
use parking_lot::Mutex;
use slatedb::db_cache::DbCache;
use slatedb::db_cache::foyer::{FoyerCache, FoyerCacheOptions};
use slatedb::{CompactorBuilder, Db, ErrorKind};

use self::lane::SlateLane;
use crate::layout::{COLD, HEAD, HOT, ROWS};
use crate::{Claimed, Head, StateStore, StoreError};

/// Lanes whose heads are read at once.
const LISTED_AT_ONCE: usize = 64;
/// Deletions in one batch when a lane is removed.
const REMOVED_AT_ONCE: usize = 10_000;
/// Cache shards: few threads read at a time.
const CACHE_SHARDS: usize = 4;

/// Where lanes are stored, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct SlateConfig {
    /// `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`; a path is a local folder.
    pub url: String,
    /// object_store's own names and values; they win over the environment.
    pub options: BTreeMap<String, String>,
    /// Bytes of stored blocks kept in memory, over all lanes.
    pub cache_bytes: u64,
    /// How often owners make checkpoints, mostly: compaction keeps up with that.
    pub checkpoint_every: Duration,
    /// After so long the outcome of a checkpoint counts as unknown.
    pub commit_timeout: Duration,
    /// So long may a claim take, the reading of hot state included; and the removal of a lane.
    pub claim_timeout: Duration,
}

impl SlateConfig {
    /// With what else is usual.
    pub fn new(url: impl Into<String>) -> SlateConfig {
        SlateConfig {
            url: url.into(),
            options: BTreeMap::new(),
            cache_bytes: 64 << 20,
            checkpoint_every: Duration::from_secs(10),
            commit_timeout: Duration::from_secs(30),
            claim_timeout: Duration::from_secs(60),
        }
    }
}

/// Lanes on an object store.
pub struct SlateStore {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    /// The folder, where it is a local one.
    folder: Option<PathBuf>,
    config: SlateConfig,
    tuning: settings::Tuning,
    cache: Arc<dyn DbCache>,
    /// Each lane's part of the cache.
    cache_ids: Mutex<HashMap<LaneId, u64>>,
    compaction: Arc<Background>,
}

impl std::fmt::Debug for SlateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlateStore").field("url", &url::shown(&self.config.url)).finish_non_exhaustive()
    }
}

impl SlateStore {
    /// Opens the store; a local folder is made where it is missing. *Errors:* `Unavailable`, with the way out.
    pub async fn open(config: SlateConfig) -> Result<SlateStore, StoreError> {
        let (url, options) = (config.url.clone(), config.options.clone());
        let resolved = tokio::task::spawn_blocking(move || url::resolve(&url, &options)).await;
        let place = resolved.map_err(|error| unavailable(format_args!("store.url was not looked up: {error}")))??;
        SlateStore::over(place, config)
    }

    fn over(place: url::Place, config: SlateConfig) -> Result<SlateStore, StoreError> {
        let cache = FoyerCacheOptions { max_capacity: config.cache_bytes, shards: CACHE_SHARDS };
        let compaction = Arc::new(Background::start()?);
        Ok(SlateStore {
            tuning: settings::Tuning::new(place.folder.is_some(), config.checkpoint_every),
            objects: place.objects,
            root: place.root,
            folder: place.folder,
            config,
            cache: Arc::new(FoyerCache::new_with_opts(cache)),
            cache_ids: Mutex::default(),
            compaction,
        })
    }

    fn path(&self, lane: &LaneId) -> Path {
        self.root.clone().join("lanes").join(&*lane.topic).join(lane.partition.to_string())
    }

    fn cache_id(&self, lane: &LaneId) -> u64 {
        let mut ids = self.cache_ids.lock();
        let next = ids.len() as u64;
        *ids.entry(lane.clone()).or_insert(next)
    }

    /// Opens a lane's database, which makes the caller its owner.
    async fn own(&self, lane: &LaneId) -> Result<Db, StoreError> {
        self.sweep(lane).await;
        self.work_off(lane).await;
        let compactor = CompactorBuilder::new(self.path(lane), self.objects.clone())
            .with_options(self.tuning.compactor())
            .with_runtime(self.compaction.handle());
        let opening = Db::builder(self.path(lane), self.objects.clone())
            .with_settings(self.tuning.database())
            .with_db_cache(self.cache.clone(), self.cache_id(lane))
            .with_compactor_builder(compactor)
            .build();
        match tokio::time::timeout(self.config.claim_timeout, Box::pin(opening)).await {
            Ok(opened) => opened.map_err(|error| refused(lane, &error)),
            Err(_) => Err(unavailable(format_args!(
                "lane {lane} could not be claimed within {:?}: is store.url ({}) reachable?",
                self.config.claim_timeout,
                url::shown(&self.config.url)
            ))),
        }
    }

    /// Takes away what writers that were killed have left half-written in a local folder.
    async fn sweep(&self, lane: &LaneId) {
        let Some(folder) = &self.folder else { return };
        let folder = folder.join("lanes").join(&*lane.topic).join(lane.partition.to_string());
        let swept = tokio::task::spawn_blocking(move || url::sweep_staged(&folder)).await;
        match swept {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(n_files)) => {
                tracing::info!(%lane, n_files, "half-written files of a writer that was killed are gone")
            }
            Ok(Err(error)) => tracing::warn!(%lane, %error, "half-written files could not be looked for"),
        }
    }

    async fn read_head(&self, lane: &LaneId) -> Result<Option<Head>, StoreError> {
        // Whoever was killed while making a database may have left folders.
        if !self.has_database(lane).await? {
            return Ok(None);
        }
        match self.head(lane).await {
            // Nothing holds what is read: compaction may take it away in between, so a second look is worth it.
            Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. }) => self.head(lane).await,
            read => read,
        }
    }

    /// Lanes that have folders.
    async fn list(&self) -> Result<Vec<LaneId>, StoreError> {
        let mut lanes = Vec::new();
        for topic in self.folders(&self.root.clone().join("lanes")).await? {
            let name = topic.filename().unwrap_or_default();
            for partition in self.folders(&topic).await? {
                match LaneId::parse(&format!("{name}/{}", partition.filename().unwrap_or_default())) {
                    Some(lane) => lanes.push(lane),
                    None => tracing::warn!(folder = %partition, "the store holds what is no lane"),
                }
            }
        }
        lanes.sort();
        Ok(lanes)
    }

    async fn has_database(&self, lane: &LaneId) -> Result<bool, StoreError> {
        Ok(!self.look(&self.path(lane).join("manifest")).await?.objects.is_empty())
    }

    async fn folders(&self, path: &Path) -> Result<Vec<Path>, StoreError> {
        Ok(self.look(path).await?.common_prefixes)
    }

    async fn look(&self, path: &Path) -> Result<ListResult, StoreError> {
        let listed = self.objects.list_with_delimiter(Some(path)).await;
        listed.map_err(|error| unavailable(format_args!("store.url {} cannot be listed: {error}", self.config.url)))
    }

    /// Deletes every value, the head first: should this stop half-way, the next claim goes on with it.
    /// Objects are left to the garbage collection: to delete them would delete the fences between owners, too.
    async fn clear(&self, lane: &LaneId, db: &Db) -> Result<(), StoreError> {
        let mut keys = vec![HEAD.to_vec()];
        for prefix in [ROWS, HOT, COLD] {
            let mut scan = db.scan_prefix(prefix, ..).await.map_err(|error| refused(lane, &error))?;
            while let Some(entry) = scan.next().await.map_err(|error| refused(lane, &error))? {
                keys.push(entry.key.to_vec());
                if keys.len() >= REMOVED_AT_ONCE {
                    lane::delete(lane, db, &keys).await?;
                    keys.clear();
                }
            }
        }
        if !keys.is_empty() {
            lane::delete(lane, db, &keys).await?;
        }
        Ok(())
    }

    /// Whether values stand there without a head: a removal that stopped half-way.
    async fn is_half_removed(lane: &LaneId, db: &Db) -> Result<bool, StoreError> {
        for prefix in [ROWS, HOT, COLD] {
            let mut scan = db.scan_prefix(prefix, ..).await.map_err(|error| refused(lane, &error))?;
            if scan.next().await.map_err(|error| refused(lane, &error))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn load(&self, lane: &LaneId, db: &Db) -> Result<crate::layout::Loaded, StoreError> {
        if db.manifest().writer_epoch().is_multiple_of(settings::LIGHT_CLAIMS) {
            lane::shorten_log(lane, db).await?;
        }
        let loaded = lane::load(lane, db).await?;
        if loaded.head.is_none() && SlateStore::is_half_removed(lane, db).await? {
            self.clear(lane, db).await?;
        }
        Ok(loaded)
    }
}

#[async_trait]
impl StateStore for SlateStore {
    async fn claim(&self, lane: &LaneId) -> Result<Claimed, StoreError> {
        let db = self.own(lane).await?;
        let loading = tokio::time::timeout(self.config.claim_timeout, self.load(lane, &db)).await;
        let loaded = loading.unwrap_or_else(|_| {
            Err(unavailable(format_args!(
                "the state of lane {lane} was not read within {:?}",
                self.config.claim_timeout
            )))
        });
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                lane::abandon(lane, &db);
                return Err(error);
            }
        };
        let claim =
            SlateLane::new(lane.clone(), db, loaded.written, self.config.commit_timeout, self.compaction.clone());
        Ok(Claimed { lane: Arc::new(claim), head: loaded.head, pending: loaded.pending, hot: loaded.hot })
    }

    async fn lanes(&self) -> Result<Vec<(LaneId, Result<Head, StoreError>)>, StoreError> {
        let reads = self.list().await?.into_iter().map(|lane| async move {
            let head = self.read_head(&lane).await;
            head.transpose().map(|head| (lane, head))
        });
        Ok(stream::iter(reads).buffered(LISTED_AT_ONCE).filter_map(std::future::ready).collect().await)
    }

    async fn remove(&self, lane: &LaneId) -> Result<(), StoreError> {
        if !self.has_database(lane).await? {
            return Ok(());
        }
        let db = self.own(lane).await?;
        let clearing = tokio::time::timeout(self.config.claim_timeout, self.clear(lane, &db)).await;
        let cleared = clearing.unwrap_or_else(|_| {
            Err(unavailable(format_args!("lane {lane} is not wholly removed yet: run the same command again")))
        });
        if cleared.is_err() {
            lane::abandon(lane, &db);
            return cleared;
        }
        db.close().await.map_err(|error| refused(lane, &error))
    }
}

/// An error of an operation that wrote nothing that counts.
fn refused(lane: &LaneId, error: &slatedb::Error) -> StoreError {
    use slatedb::CloseReason::Fenced;
    match error.kind() {
        ErrorKind::Closed(Fenced) => StoreError::Fenced { lane: lane.clone() },
        // An owner that sees an older state than its compactor: nothing is damaged, a new claim sees the newest.
        ErrorKind::Data if is_not_found(error) => unavailable(format_args!("lane {lane}: {error}: claim it again")),
        ErrorKind::Data => StoreError::Damaged { lane: lane.clone(), detail: error.to_string() },
        _ => unavailable(format_args!("lane {lane}: {error}")),
    }
}

fn is_not_found(error: &slatedb::Error) -> bool {
    use object_store_014::Error;
    let is = |error: &Error| matches!(error, Error::NotFound { .. });
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let shared = error.downcast_ref::<Arc<Error>>().map(|error| &**error);
        if error.downcast_ref::<Error>().or(shared).is_some_and(is) {
            return true;
        }
        source = error.source();
    }
    false
}

fn unavailable(detail: std::fmt::Arguments<'_>) -> StoreError {
    StoreError::Unavailable { detail: detail.to_string() }
}

/// The runtime of compactions: one thread beside those that lanes wait for.
pub(super) struct Background(Option<tokio::runtime::Runtime>);

impl Background {
    fn start() -> Result<Background, StoreError> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .thread_name("legwork-compaction")
            .enable_all()
            .build()
            .map(|runtime| Background(Some(runtime)))
            .map_err(|error| unavailable(format_args!("no thread for compactions: {error}")))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().expect("it is taken when dropped only").handle().clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A store may be dropped inside another runtime, where waiting is not allowed.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
