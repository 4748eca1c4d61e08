//! The log of one Delta table: its newest version, and the next one.
//!
//! A version is committed against the one that was read and no other: when somebody was faster, the caller reads again and decides again.
//! So what is removed is there, and what a transaction says was not said before. (delta-rs would check for conflicts and go on; its check
//! lets two compactions remove the same file.)

use std::sync::Arc;
use std::time::Duration;

use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, PROTOCOL, TransactionError};
use deltalake::kernel::{Action, Transaction};
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake::protocol::DeltaOperation;
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTable, DeltaTableError, checkpoints};
use legwork_types::LaneId;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use parking_lot::Mutex;
use std::sync::Weak;
use tracing::{debug, warn};
use url::Url;

use crate::pin::LastPin;
use crate::transactions::{self, Transactions};
use crate::{LakeError, LakeTable, layout};

/// A version of a table.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) delta: DeltaTableState,
    pub(crate) transactions: Transactions,
}

impl Version {
    pub(crate) fn number(&self) -> u64 {
        self.delta.version()
    }
}

/// How an attempt to commit ended, if not well.
#[derive(Debug)]
pub(crate) enum CommitFailure {
    /// Somebody was faster: nothing was written.
    Conflict,
    /// It may have been written or not.
    Unknown(String),
    /// Trying again cannot help.
    Refused(LakeError),
}

/// The log of a table.
#[derive(Debug)]
pub(crate) struct TableLog {
    name: Arc<str>,
    url: Url,
    log: LogStoreRef,
    timeout: Duration,
    newest: Mutex<Option<Arc<Version>>>,
    pub(crate) last_pin: Mutex<Option<LastPin>>,
    /// Versions that somebody may still read.
    pinned: Mutex<Vec<Weak<Version>>>,
    /// One commit of this process at a time.
    pub(crate) committing: tokio::sync::Mutex<()>,
}

const READ: &str = "read";
const COMMITTED: &str = "committed to";
const CHECKPOINTED: &str = "checkpointed";

impl TableLog {
    /// Of the table at `url` on the store at the root of that address.
    pub(crate) fn new(
        name: Arc<str>,
        url: Url,
        root: Arc<dyn ObjectStore>,
        timeout: Duration,
    ) -> Result<TableLog, LakeError> {
        let path = Path::from_url_path(url.path());
        let path =
            path.map_err(|error| LakeError::Address { url: crate::store::shown(&url), detail: error.to_string() })?;
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(root.clone(), path));
        let log = default_logstore(prefixed, root, &url, &StorageConfig::default());
        Ok(TableLog {
            name,
            url,
            log,
            timeout,
            newest: Mutex::default(),
            last_pin: Mutex::default(),
            pinned: Mutex::default(),
            committing: tokio::sync::Mutex::new(()),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        self.log.object_store(None)
    }

    pub(crate) fn log_store(&self) -> &LogStoreRef {
        &self.log
    }

    /// Ends what takes longer than the deadline: no call of a store has one of its own that one can rely on.
    pub(crate) async fn within<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, LakeError>>,
    ) -> Result<T, LakeError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(LakeError::unavailable(&self.name, action, format!("no answer within {:?}", self.timeout))),
        }
    }

    /// The newest version; none for a table that does not exist.
    pub(crate) async fn refresh(&self) -> Result<Option<Arc<Version>>, LakeError> {
        let known = self.newest.lock().clone();
        let found = self.within(READ, self.load(known.clone())).await?;
        if let Some(found) = &found {
            let mut newest = self.newest.lock();
            if newest.as_ref().is_none_or(|newest| newest.number() < found.number()) {
                *newest = Some(found.clone());
            }
        }
        Ok(found)
    }

    async fn load(&self, known: Option<Arc<Version>>) -> Result<Option<Arc<Version>>, LakeError> {
        let refused = |error| LakeError::delta(&self.name, READ, error);
        let delta = match &known {
            Some(known) => {
                let mut delta = known.delta.clone();
                delta.update(self.log.as_ref(), None).await.map_err(refused)?;
                delta
            }
            None if self.log.is_delta_table_location().await.map_err(refused)? => {
                DeltaTableState::try_new(self.log.as_ref(), None).await.map_err(refused)?
            }
            None => return Ok(None),
        };
        if let Some(known) = known.as_ref().filter(|known| known.number() == delta.version()) {
            return Ok(Some(known.clone()));
        }
        self.check(&delta)?;
        let known = known.map(|known| (known.number(), known.transactions.clone()));
        let transactions = transactions::read(&self.name, self.log.as_ref(), delta.version(), known).await?;
        Ok(Some(Arc::new(Version { delta, transactions })))
    }

    /// Refuses what a newer writer, or somebody's hand, made of the table.
    fn check(&self, delta: &DeltaTableState) -> Result<(), LakeError> {
        let refused = |error: TransactionError| LakeError::delta(&self.name, READ, error.into());
        PROTOCOL.can_write_to(delta).map_err(refused)?;
        let configuration = delta.metadata().configuration();
        if configuration.contains_key("delta.setTransactionRetentionDuration") {
            return Err(LakeError::Layout {
                table: self.name.to_string(),
                detail: "delta.setTransactionRetentionDuration is set, and what a lane has delivered would be forgotten: unset that property"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// The newest version of a table that has the columns of `table`: made, or given its new columns, where that is missing.
    pub(crate) async fn ready(&self, table: &LakeTable) -> Result<Arc<Version>, LakeError> {
        for n_attempts in 0..ATTEMPTS_MAX {
            pause(n_attempts).await;
            let version = self.refresh().await?;
            let (actions, operation) = match &version {
                None => layout::creation(table, &self.url)?,
                Some(version) => match layout::evolution(table, &version.delta)? {
                    None => return Ok(version.clone()),
                    Some(evolution) => evolution,
                },
            };
            match self.commit(version.as_deref(), actions, operation).await {
                Ok(number) => debug!(table = self.name(), number, "table made or given new columns"),
                Err(CommitFailure::Refused(error)) => return Err(error),
                // The next round sees what became of it.
                Err(failure) => debug!(table = self.name(), ?failure, "table not made"),
            }
        }
        Err(LakeError::Contended { table: self.name.to_string(), n_attempts: ATTEMPTS_MAX })
    }

    /// Commits the version after `base`, or version 0.
    pub(crate) async fn commit(
        &self,
        base: Option<&Version>,
        actions: Vec<Action>,
        operation: DeltaOperation,
    ) -> Result<u64, CommitFailure> {
        self.commit_as(&uuid::Uuid::new_v4().simple().to_string(), base, actions, operation, Vec::new()).await
    }

    /// Commits the version after `base`, or version 0, under an id by which [`TableLog::lanes_committed`] tells it from others.
    pub(crate) async fn commit_as(
        &self,
        id: &str,
        base: Option<&Version>,
        actions: Vec<Action>,
        operation: DeltaOperation,
        lanes: Vec<(LaneId, u32)>,
    ) -> Result<u64, CommitFailure> {
        let now_ms = chrono::Utc::now().timestamp_millis();
        let transaction = |(lane, number): (LaneId, u32)| {
            Transaction::new_with_last_update(transactions::app_id(&lane), i64::from(number), Some(now_ms))
        };
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_metadata([(transactions::COMMIT_ID.to_owned(), id.into())])
            .with_application_transactions(lanes.into_iter().map(transaction).collect());
        let commit = CommitBuilder::from(properties).with_actions(actions).build(
            base.map(|base| &base.delta as _),
            self.log.clone(),
            operation,
        );
        // Without delta-rs's work after a commit: it reads the table again, and when that fails says that the commit did.
        let commit = async { commit.into_prepared_commit_future().await?.await };
        let done = match tokio::time::timeout(self.timeout, commit).await {
            Ok(done) => done,
            Err(_) => return Err(CommitFailure::Unknown(format!("no answer within {:?}", self.timeout))),
        };
        match done {
            Ok(done) => Ok(done.version),
            Err(DeltaTableError::VersionAlreadyExists(_)) => Err(CommitFailure::Conflict),
            Err(DeltaTableError::Transaction { source }) => Err(match source {
                TransactionError::VersionAlreadyExists(_)
                | TransactionError::MaxCommitAttempts(_)
                | TransactionError::CommitConflict(_) => CommitFailure::Conflict,
                source @ (TransactionError::UnsupportedTableFeatures(_)
                | TransactionError::TableFeaturesRequired(_)
                | TransactionError::DeltaTableAppendOnly) => {
                    CommitFailure::Refused(LakeError::delta(&self.name, COMMITTED, source.into()))
                }
                source => CommitFailure::Unknown(source.to_string()),
            }),
            Err(error) => Err(CommitFailure::Unknown(error.to_string())),
        }
    }

    /// Lanes of a version's commit, if it was made under this id.
    pub(crate) async fn lanes_committed(&self, id: &str, version: u64) -> Result<Vec<LaneId>, LakeError> {
        let read = async {
            let commit = self.log.read_commit_entry(version).await;
            commit.map_err(|error| LakeError::delta(&self.name, READ, error))
        };
        match self.within(READ, read).await? {
            Some(commit) => transactions::lanes_under(&self.name, id, &commit),
            None => Ok(Vec::new()),
        }
    }

    /// Writes a checkpoint of the log when `number` is one of those that get one. A log without reads as well, only slower.
    pub(crate) async fn checkpoint(&self, number: u64, every: u64) {
        if number == 0 || !number.is_multiple_of(every) {
            return;
        }
        let work = async {
            let Some(version) = self.refresh().await? else { return Ok(()) };
            let mut table = DeltaTable::new(self.log.clone());
            table.state = Some(version.delta.clone());
            // The kernel writes it on the calling thread.
            let runtime = tokio::runtime::Handle::current();
            let done =
                tokio::task::spawn_blocking(move || runtime.block_on(checkpoints::create_checkpoint(&table, None)));
            let done = self.within(CHECKPOINTED, async {
                done.await.map_err(|error| LakeError::unavailable(&self.name, CHECKPOINTED, error))
            });
            done.await?.map_err(|error| LakeError::delta(&self.name, CHECKPOINTED, error))
        };
        if let Err(error) = work.await {
            warn!(table = self.name(), number, %error, "the log of a lake table has no new checkpoint");
        }
    }

    /// Keeps the files of a version while the guard lives.
    pub(crate) fn pin(&self, version: &Arc<Version>) {
        let mut pinned = self.pinned.lock();
        pinned.retain(|version| version.strong_count() > 0);
        pinned.push(Arc::downgrade(version));
    }

    /// Versions that somebody still reads.
    pub(crate) fn pinned(&self) -> Vec<Arc<Version>> {
        self.pinned.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// How often a commit is tried before the caller hears of it.
pub(crate) const ATTEMPTS_MAX: usize = 12;

/// Waits before another attempt: 0, then from 20 ms doubling to 5 s, half of it by chance so that writers part.
pub(crate) async fn pause(n_attempts: usize) {
    if n_attempts > 0 {
        let longest_ms = (20_u64 << n_attempts.min(8)).min(5_000) / 2;
        let chance = uuid::Uuid::new_v4().as_u128() as u64 % (longest_ms + 1);
        tokio::time::sleep(Duration::from_millis(longest_ms + chance)).await;
    }
}
