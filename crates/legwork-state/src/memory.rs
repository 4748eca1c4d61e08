//! The store in memory: for simulation and tests. It fences, orders and encodes as the one on an object store does; time and faults come from
//! a hook. A process dies when its claims are dropped: the store lives on, as a bucket does.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use legwork_types::LaneId;
use parking_lot::Mutex;

use crate::layout::{self, COLD, Changes, HEAD, HOT, Loaded, ROWS, Written};
use crate::liveness::Liveness;
use crate::{Checkpoint, Claimed, Head, LaneStore, StateStore, StoreError, format};

/// What is asked of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`StateStore::claim`].
    Claim,
    /// [`StateStore::remove`].
    Remove,
    /// [`LaneStore::commit`] of this number.
    Commit {
        /// Number of the checkpoint.
        number: u32,
    },
    /// [`LaneStore::read`].
    Read,
    /// [`LaneStore::release`].
    Release,
}

/// Faults on demand. A hook may wait as long as it likes, whichever clock it goes by.
#[async_trait]
pub trait Faults: Send + Sync + Debug {
    /// Asked before an operation takes effect. *Errors:* handed to the caller; the operation has no effect.
    async fn before(&self, _lane: &LaneId, _operation: &Operation) -> Result<(), StoreError> {
        Ok(())
    }

    /// Asked after an operation took effect, before the caller hears of it. *Errors:* handed to the caller, the answer is lost:
    /// for a commit [`StoreError::Unknown`].
    async fn after(&self, _lane: &LaneId, _operation: &Operation) -> Result<(), StoreError> {
        Ok(())
    }
}

/// No faults.
#[derive(Debug)]
struct NoFaults;

impl Faults for NoFaults {}

/// A store in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    lanes: Lanes,
    faults: Arc<dyn Faults>,
}

type Lanes = Arc<Mutex<BTreeMap<LaneId, Values>>>;

/// A lane's values under their keys.
#[derive(Debug, Default)]
struct Values {
    /// Counts claims: the newest owns the lane.
    epoch: u64,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> MemoryStore {
        MemoryStore { lanes: Lanes::default(), faults: Arc::new(NoFaults) }
    }

    /// The same store, seen through faults.
    pub fn with_faults(&self, faults: Arc<dyn Faults>) -> MemoryStore {
        MemoryStore { lanes: self.lanes.clone(), faults }
    }

    /// Every byte that a lane's store holds, by key: for tests that compare or damage them.
    pub fn values(&self, lane: &LaneId) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.lanes.lock().get(lane).map(|lane| lane.values.clone()).unwrap_or_default()
    }

    /// Replaces a value of a lane, or takes it away: for tests that damage them.
    pub fn set_value(&self, lane: &LaneId, key: &[u8], value: Option<Vec<u8>>) {
        self.lanes.lock().entry(lane.clone()).or_default().apply([(key.to_vec(), value)].into());
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn claim(&self, lane: &LaneId) -> Result<Claimed, StoreError> {
        self.faults.before(lane, &Operation::Claim).await?;
        let (epoch, loaded) = {
            let mut lanes = self.lanes.lock();
            let values = lanes.entry(lane.clone()).or_default();
            values.epoch += 1;
            (values.epoch, values.load(lane)?)
        };
        self.faults.after(lane, &Operation::Claim).await?;
        let Loaded { head, pending, hot, written } = loaded;
        let claim = MemoryLane {
            id: lane.clone(),
            epoch,
            store: self.clone(),
            liveness: Liveness::new(lane.clone()),
            written: tokio::sync::Mutex::new(written),
        };
        Ok(Claimed { lane: Arc::new(claim), head, pending, hot })
    }

    async fn lanes(&self) -> Result<Vec<(LaneId, Result<Head, StoreError>)>, StoreError> {
        let lanes = self.lanes.lock();
        let heads = lanes
            .iter()
            .filter_map(|(id, lane)| Some((id.clone(), format::open_head(id, HEAD, lane.values.get(HEAD)?))));
        Ok(heads.collect())
    }

    async fn remove(&self, lane: &LaneId) -> Result<(), StoreError> {
        self.faults.before(lane, &Operation::Remove).await?;
        if let Some(values) = self.lanes.lock().get_mut(lane) {
            // The count of claims stays, so that an owner from before cannot write.
            *values = Values { epoch: values.epoch + 1, values: BTreeMap::new() };
        }
        self.faults.after(lane, &Operation::Remove).await
    }
}

impl Values {
    fn load(&self, lane: &LaneId) -> Result<Loaded, StoreError> {
        Loaded::read(lane, self.values.get(HEAD).map(Vec::as_slice), self.prefix(ROWS), self.prefix(HOT))
    }

    fn prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.values
            .range(prefix.to_vec()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    fn apply(&mut self, changes: Changes) {
        for (key, value) in changes {
            match value {
                Some(value) => self.values.insert(key, value),
                None => self.values.remove(&key),
            };
        }
    }
}

/// A lane claimed in memory.
#[derive(Debug)]
struct MemoryLane {
    id: LaneId,
    epoch: u64,
    store: MemoryStore,
    liveness: Liveness,
    written: tokio::sync::Mutex<Written>,
}

impl MemoryLane {
    /// The lane's values, as long as nobody else has claimed it.
    fn owned<T>(&self, with: impl FnOnce(&mut Values) -> T) -> Result<T, StoreError> {
        match self.store.lanes.lock().get_mut(&self.id) {
            Some(values) if values.epoch == self.epoch => Ok(with(values)),
            _ => Err(StoreError::Fenced { lane: self.id.clone() }),
        }
    }

    async fn write(&self, written: &mut Written, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let operation = Operation::Commit { number: checkpoint.head.number };
        let changes = written.changes(checkpoint)?;
        self.store.faults.before(&self.id, &operation).await?;
        self.owned(|values| values.apply(changes))?;
        self.store.faults.after(&self.id, &operation).await
    }

    async fn get(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.store.faults.before(&self.id, &Operation::Read).await?;
        let found = self.owned(|values| {
            let find = |key: Vec<u8>| {
                let key = layout::prefixed(COLD, &key);
                let value = values.values.get(&key).map(|value| format::open(&self.id, &key, value));
                Ok(value.transpose()?.map(<[u8]>::to_vec))
            };
            keys.into_iter().map(find).collect::<Result<Vec<_>, StoreError>>()
        })??;
        self.store.faults.after(&self.id, &Operation::Read).await?;
        Ok(found)
    }
}

#[async_trait]
impl LaneStore for MemoryLane {
    async fn commit(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let mut written = self.written.lock().await;
        let writing = self.liveness.write()?;
        writing.decide(self.write(&mut written, checkpoint).await)
    }

    async fn read(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.liveness.check()?;
        self.liveness.judge(self.get(keys).await)
    }

    async fn release(&self) -> Result<(), StoreError> {
        let _written = self.written.lock().await;
        let writing = self.liveness.write()?;
        let result = self.store.faults.before(&self.id, &Operation::Release).await;
        let result = result.and_then(|()| self.owned(|_| ()));
        writing.decide(result)?;
        self.liveness.release();
        self.store.faults.after(&self.id, &Operation::Release).await
    }
}
