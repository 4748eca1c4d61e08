//! Store and lake of a folder, without a running pipeline.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use futures::{StreamExt, TryStreamExt, stream};
use legwork_lake::ErrorKind;
use legwork_runtime::{LakeSink, ReferenceDir, ReferenceTables, StoredLane, StoredLanes};
use legwork_state::{Peeked, StateStore, StoreError};
use legwork_types::LaneId;

use crate::config::{Config, ConfigError};
use crate::delivery::{Kept, lake_url};
use crate::exit::Failure;
use crate::service::wall_clock_us;

/// Lanes whose rows are read at once.
const READ_AT_ONCE: usize = 16;

/// Prefix of the lanes of files; no Kafka topic may be called so.
pub(crate) const FILES: &str = "files:";
/// Topic of the lane that repair writes under; no Kafka topic may be called so.
pub(crate) const REPAIR: &str = "repair:";

/// Puts store and lake at `data`: a folder or an address.
pub(crate) fn place(config: &mut Config, data: Option<&str>) -> Result<()> {
    let Some(data) = data else { return Ok(()) };
    config.lake.url = None;
    config.store.url = match data.contains("://") {
        true => data.to_owned(),
        false => {
            let folder = std::path::absolute(data).with_context(|| format!("finding the folder {data}"))?;
            format!("file://{}", folder.display())
        }
    };
    Ok(())
}

/// Opens store and lake where they are to exist already. *Errors:* a folder that is not there, or that somebody else's files are in.
pub(crate) async fn open_existing(config: &Config) -> Result<Kept> {
    let urls = [config.store.url.clone(), lake_url(config)];
    let folder = |url: &str| match url.strip_prefix("file://") {
        Some(path) => Some(path.to_owned()),
        None => (!url.contains(':')).then(|| url.to_owned()),
    };
    if let [Some(store), Some(lake)] = urls.each_ref().map(|url| folder(url)) {
        let is_there = |path: &str, below: &str| Path::new(path).join(below).exists();
        if !is_there(&store, "lanes") && !is_there(&lake, "") {
            bail!(Failure::Usage(format!(
                "{store} holds no lanes and no lake: give the folder that store.url names, as --data or in the configuration"
            )));
        }
    }
    open(config).await
}

/// Opens store and lake; folders are made.
pub(crate) async fn open(config: &Config) -> Result<Kept> {
    let kept = Kept::open(config).await?;
    kept.ok_or_else(|| {
        ConfigError("store.url is memory:, so nothing is kept: give --data DIR, or set store.url".to_owned()).into()
    })
}

/// An error of the store as the commands end with it.
pub(crate) fn store_error(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Unavailable { .. } | StoreError::Unknown { .. } => Failure::Temporary(error.to_string()).into(),
        error => anyhow!(error),
    }
}

/// An error of the lake as the commands end with it.
pub(crate) fn lake_error(error: legwork_lake::LakeError) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Retry => Failure::Temporary(error.to_string()).into(),
        _ => anyhow!(error),
    }
}

/// A lane of the store, or why it cannot be read.
pub(crate) type ReadLane = (LaneId, Result<StoredLane, StoreError>);

/// Every lane of the store as it is now; nothing is claimed.
pub(crate) async fn read_lanes(kept: &Kept) -> Result<Vec<ReadLane>> {
    let heads = kept.store.lanes().await.map_err(store_error)?;
    // What repair keeps for itself holds no rows.
    let lanes = heads.into_iter().filter(|(lane, _)| !lane.topic.starts_with(REPAIR));
    let reads = lanes.map(|(lane, head)| async move {
        let peeked = match head {
            Ok(_) => kept.store.peek(&lane).await,
            Err(error) => Err(error),
        };
        let stored = peeked.transpose()?.map(|peeked| {
            let Peeked { head, pending } = peeked;
            StoredLane { lane: lane.clone(), head, pending }
        });
        Some((lane, stored))
    });
    let lanes: Vec<_> = stream::iter(reads).buffered(READ_AT_ONCE).collect().await;
    Ok(lanes.into_iter().flatten().collect())
}

/// The lanes of the store that are needed, as live tables. The lake is to be pinned after this.
/// *Errors:* one of them cannot be read: its rows would be missing without a word.
pub(crate) async fn stored_lanes(
    kept: &Kept,
    config: &Config,
    is_needed: impl Fn(&LaneId) -> bool,
) -> Result<Arc<StoredLanes>> {
    let needed = read_lanes(kept).await?.into_iter().filter(|(lane, _)| is_needed(lane));
    let lanes = needed.map(|(_, stored)| stored.map_err(store_error)).collect::<Result<_>>()?;
    live(lanes, config)
}

/// Lanes as live tables.
pub(crate) fn live(lanes: Vec<StoredLane>, config: &Config) -> Result<Arc<StoredLanes>> {
    let stored =
        StoredLanes::new(lanes, reference(config), config.time.reorder_bound.0).map_err(|error| anyhow!(error))?;
    Ok(Arc::new(stored))
}

/// Reference data from the folder of the configuration.
pub(crate) fn reference(config: &Config) -> ReferenceTables {
    let (tables, errors) = ReferenceDir::new(config.reference.dir.clone()).refresh(wall_clock_us());
    for error in errors {
        tracing::warn!("{error}");
    }
    tables.unwrap_or_default()
}

/// The newest checkpoint of each lane by table of the lake; tables that are not there are left out.
pub(crate) async fn transactions(kept: &Kept) -> Result<Vec<(String, HashMap<LaneId, u32>)>> {
    let tables = kept.tables.all();
    let reads = tables.iter().map(|table| async {
        let known = kept.tables.transactions(table.name()).await;
        known.map(|known| known.map(|known| (table.name().to_owned(), known)))
    });
    let found: Result<Vec<_>, String> = stream::iter(reads).buffered(READ_AT_ONCE).try_collect().await;
    Ok(found.map_err(Failure::Temporary)?.into_iter().flatten().collect())
}
