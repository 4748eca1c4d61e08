//! A lake: the tables below one address.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use legwork_types::LaneId;
use object_store::ObjectStore;
use parking_lot::Mutex;
use url::Url;

use crate::log::TableLog;
use crate::{LakeError, LakeTable, store};

/// Settings of a lake.
#[derive(Clone, Debug)]
pub struct LakeConfig {
    /// Bytes that a compacted file has, about.
    pub file_bytes_target: u64,
    /// How long a step may take at the object store before its outcome counts as unknown.
    pub request_timeout: Duration,
    /// How long a commit may take, all its attempts together. Files that it staged are not used after that, so that vacuum may take them.
    pub commit_timeout: Duration,
    /// Files that no version holds any more stay this long, for readers of older versions. Not below the longest query.
    pub removed_files_kept: Duration,
    /// Files that no version ever held count as left behind by a crash after this long. Must be above `commit_timeout`.
    pub orphans_kept: Duration,
    /// Memory that sorting takes in compaction, the rest goes to the local disk; a file under way comes on top.
    pub compaction_memory_bytes: usize,
    /// How far the clock of whoever maintains may be ahead of the object store's. Beyond it nothing is done: days would be dropped, and
    /// files of commits under way deleted, before their time.
    pub clock_ahead_max: Duration,
    /// A pinned version that is not older than this is not looked up again.
    pub pin_age_max: Duration,
}

impl Default for LakeConfig {
    fn default() -> LakeConfig {
        LakeConfig {
            file_bytes_target: 128 << 20,
            request_timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(600),
            removed_files_kept: Duration::from_secs(3_600),
            orphans_kept: Duration::from_secs(24 * 3_600),
            compaction_memory_bytes: 128 << 20,
            clock_ahead_max: Duration::from_secs(3_600),
            pin_age_max: Duration::from_secs(1),
        }
    }
}

/// The tables below one address. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lake {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) url: Url,
    pub(crate) root: Arc<dyn ObjectStore>,
    pub(crate) config: LakeConfig,
    logs: Mutex<HashMap<Arc<str>, Arc<TableLog>>>,
}

impl Lake {
    /// Opens the lake at `url`: `file:///path`, `s3://bucket/path`, `gs://`, `az://`, or `memory:///` for tests. `options` are named as
    /// `object_store` names them (`aws_access_key_id`, ...); what they leave open the environment says. Nothing is written yet.
    /// *Errors:* `Address`.
    pub fn open(url: &str, options: &HashMap<String, String>, config: LakeConfig) -> Result<Lake, LakeError> {
        let mut parsed =
            Url::parse(url).map_err(|error| LakeError::Address { url: url.to_owned(), detail: error.to_string() })?;
        if !parsed.path().ends_with('/') {
            parsed.set_path(&format!("{}/", parsed.path()));
        }
        let root = store::open(&parsed, options)?;
        Ok(Lake::on(parsed, root, config))
    }

    /// On a store at the root of the address, which ends in a slash.
    pub(crate) fn on(url: Url, root: Arc<dyn ObjectStore>, config: LakeConfig) -> Lake {
        Lake { inner: Arc::new(Inner { url, root, config, logs: Mutex::default() }) }
    }

    /// Where it is.
    pub fn url(&self) -> &Url {
        &self.inner.url
    }

    /// Its settings.
    pub fn config(&self) -> &LakeConfig {
        &self.inner.config
    }

    pub(crate) fn log(&self, table: &LakeTable) -> Result<Arc<TableLog>, LakeError> {
        table.check()?;
        let mut logs = self.inner.logs.lock();
        if let Some(log) = logs.get(table.name()) {
            return Ok(log.clone());
        }
        let name: Arc<str> = table.name().into();
        let url = self.inner.url.join(&format!("{name}/"));
        let url =
            url.map_err(|error| LakeError::Address { url: store::shown(&self.inner.url), detail: error.to_string() })?;
        let log = TableLog::new(name.clone(), url, self.inner.root.clone(), self.inner.config.request_timeout)?;
        let log = Arc::new(log);
        logs.insert(name, log.clone());
        Ok(log)
    }

    /// The newest checkpoint of each lane that the newest version of a table holds; none for a table that does not exist.
    /// *Errors:* `Unavailable`, `Newer`, `Damaged`.
    pub async fn transactions(&self, table: &LakeTable) -> Result<Option<HashMap<LaneId, u32>>, LakeError> {
        let version = self.log(table)?.refresh().await?;
        Ok(version.map(|version| version.transactions.as_ref().clone()))
    }
}
