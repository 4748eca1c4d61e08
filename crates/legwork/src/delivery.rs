//! Store and lake, as the configuration names them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use legwork_lake::{ErrorKind, Lake, LakeError, LakeTable, LaneCommit, LaneOutcome};
use legwork_query::{History, HistoryError, LakeDay, PinnedTable};
use legwork_runtime::{Delivery, DeliveryOptions, LakeRows, LakeSink, Landed, event_table_schema};
use legwork_state::StateStore;
use legwork_state::slate::{SlateConfig, SlateStore};
use legwork_types::{Kind, LaneId, Table};

use crate::config::{Config, ConfigError, without_password};
use crate::upkeep::lake_config;

/// The store's address that stands for none: state and tables live in memory and are rebuilt from the topics after a restart.
const MEMORY: &str = "memory:";
/// Rows that wait for the lake, over all lanes.
const WAITING_BYTES_MAX: usize = 384 << 20;
/// Messages since a lane's last checkpoint.
const LARGE_CHECKPOINT: i64 = 250_000;
/// Bytes of rejects and late events of a lane that a checkpoint is made for before its time.
const LOGGED_BYTES_MAX: u64 = 32 << 20;
/// Fewer raw events in a checkpoint than this make no file of their own: its footer would weigh more than they do.
const ENCODED_ROWS_MIN: usize = 8_192;

/// Where a service keeps what it must not lose.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) store: Arc<SlateStore>,
    pub(crate) tables: Arc<LakeTables>,
}

impl Kept {
    /// Opens store and lake. None where `store.url` is `memory:`.
    ///
    /// *Errors:* addresses that are wrong, folders that cannot be made, with the way out.
    pub(crate) async fn open(config: &Config) -> Result<Option<Kept>> {
        if !has_store(config) {
            return Ok(None);
        }
        let url = lake_url(config);
        // Either may be a folder, or in another cloud. What nobody knows goes to the store, which says so.
        let options = options(config);
        let of_lake = |name: &str| legwork_lake::knows_option(&url, name);
        let of_store = |name: &str| legwork_lake::knows_option(&config.store.url, name) || !of_lake(name);
        let chosen = |is_wanted: &dyn Fn(&str) -> bool| {
            let wanted = options.iter().filter(|(name, _)| is_wanted(name));
            wanted.map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>()
        };
        let store = SlateConfig {
            options: chosen(&of_store),
            checkpoint_every: config.store.checkpoint_every.duration(),
            ..SlateConfig::new(&config.store.url)
        };
        let store = SlateStore::open(store).await.map_err(|error| {
            let url = without_password(&config.store.url);
            ConfigError(format!("store.url {url}: {error}; memory: in its place keeps nothing"))
        })?;
        let lake = Lake::open(&url, &chosen(&of_lake).into_iter().collect(), lake_config(config))
            .map_err(|error| ConfigError(format!("lake.url {}: {error}", without_password(&url))))?;
        Ok(Some(Kept { store: Arc::new(store), tables: Arc::new(LakeTables::new(lake)) }))
    }

    /// Delivery to them, as lanes do it.
    pub(crate) fn delivery(&self, config: &Config) -> Arc<Delivery> {
        let store: Arc<dyn StateStore> = self.store.clone();
        Delivery::new(DeliveryOptions {
            store,
            lake: self.tables.clone(),
            checkpoint_every: config.store.checkpoint_every.duration().max(Duration::from_millis(100)),
            commit_every: config.lake.commit_every.duration().max(Duration::from_millis(100)),
            open_rows_every: config.lake.open_rows_every.duration(),
            waiting_bytes_max: WAITING_BYTES_MAX,
            logged_bytes_max: LOGGED_BYTES_MAX,
            encoded_rows_min: ENCODED_ROWS_MIN,
            large_checkpoint: LARGE_CHECKPOINT,
            runtime: tokio::runtime::Handle::current(),
        })
    }
}

/// Whether anything is kept.
pub(crate) fn has_store(config: &Config) -> bool {
    config.store.url.trim_end_matches('/') != MEMORY
}

/// Options of the object store, as text.
fn options(config: &Config) -> BTreeMap<String, String> {
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    config.store.options.0.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// Where the lake lies.
pub(crate) fn lake_url(config: &Config) -> String {
    config.lake.url.clone().unwrap_or_else(|| format!("{}/lake", config.store.url.trim_end_matches('/')))
}

/// The lake by the names of its tables.
#[derive(Debug)]
pub(crate) struct LakeTables {
    lake: Lake,
    tables: HashMap<String, LakeTable>,
}

impl LakeTables {
    pub(crate) fn new(lake: Lake) -> LakeTables {
        let versions = Table::ALL.iter().filter_map(|table| LakeTable::versions(*table));
        let events = Kind::ALL.into_iter().filter(|kind| !kind.is_reference());
        let events = events.map(|kind| LakeTable::events(kind, &event_table_schema(kind)));
        LakeTables { lake, tables: versions.chain(events).map(|table| (table.name().to_owned(), table)).collect() }
    }

    /// The lake itself.
    pub(crate) fn lake(&self) -> &Lake {
        &self.lake
    }

    /// Every table that it may hold.
    pub(crate) fn all(&self) -> Vec<LakeTable> {
        let mut tables: Vec<LakeTable> = self.tables.values().cloned().collect();
        tables.sort_by(|a, b| a.name().cmp(b.name()));
        tables
    }

    /// The table of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&LakeTable> {
        self.tables.get(name)
    }

    fn table(&self, name: &str) -> Result<&LakeTable, String> {
        self.tables.get(name).ok_or_else(|| format!("the lake has no table called {name}"))
    }
}

#[async_trait]
impl LakeSink for LakeTables {
    async fn commit(&self, table: &str, lanes: Vec<LakeRows>) -> Result<Vec<(LaneId, Landed)>, String> {
        let table = self.table(table)?;
        let lane = |LakeRows { lane, through, rows, files }| LaneCommit { lane, through, rows, files };
        let lanes = lanes.into_iter().map(lane);
        let committed = self.lake.commit(table, lanes.collect()).await.map_err(|error| error.to_string())?;
        let landed = |outcome| match outcome {
            LaneOutcome::Done => Landed::Done,
            LaneOutcome::AlreadyThere => Landed::AlreadyThere,
            LaneOutcome::Ahead { at } => Landed::Ahead { at },
        };
        Ok(committed.lanes.into_iter().map(|(lane, outcome)| (lane, landed(outcome))).collect())
    }

    async fn transactions(&self, table: &str) -> Result<Option<HashMap<LaneId, u32>>, String> {
        self.lake.transactions(self.table(table)?).await.map_err(|error| error.to_string())
    }

    fn encode(&self, table: &str, lane: &LaneId, rows: &[RecordBatch]) -> Result<Vec<Bytes>, String> {
        self.lake.encode(self.table(table)?, lane, rows).map_err(|error| error.to_string())
    }
}

impl History for LakeTables {
    fn pin<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<Option<PinnedTable>, HistoryError>> {
        async move {
            let Some(known) = self.tables.get(table) else { return Ok(None) };
            let pinned = self.lake.pin(known).await.map_err(|error| history_error(table, &error))?;
            Ok(pinned.map(|pinned| PinnedTable {
                provider: pinned.provider,
                version: pinned.version as i64,
                through: pinned.transactions.as_ref().clone(),
                days: pinned
                    .days
                    .iter()
                    .map(|(day, files)| (*day, LakeDay { n_rows: files.n_rows, is_resolved: files.is_resolved }))
                    .collect(),
            }))
        }
        .boxed()
    }
}

fn history_error(table: &str, error: &LakeError) -> HistoryError {
    let (table, detail) = (table.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::Retry => HistoryError::Unavailable { table, detail },
        _ => HistoryError::Refused { table, detail },
    }
}
