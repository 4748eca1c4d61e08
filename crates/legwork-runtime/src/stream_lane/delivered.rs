//! The lane's side of delivery: claiming, checkpoints, what waits for the lake.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use legwork_operators::Need;
use legwork_state::{Head, LaneStore, StoreError};
use legwork_types::{FreshRows, LaneState, LiveError, Lookup, MissingLane, TableSnapshot};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::StreamLane;
use crate::PartitionFacts;
use crate::delivery::{
    Covered, Delivery, Durable, Keeper, LanePending, Outcome, Recovered, Refused, recover, settings,
};
use crate::lane::Lane;

/// A claim that failed is tried again after this, then after twice as long each time, up to the most: every claim leaves traces in the store.
pub(super) const CLAIM_AGAIN: Duration = Duration::from_secs(1);
const CLAIM_AGAIN_MAX: Duration = Duration::from_secs(15);
/// A lane that was fenced, and is still its group's after so long, was fenced by one that has no right to it.
const FENCED_AGAIN: Duration = Duration::from_secs(60);
/// A lane whose checkpoints cannot be made durable reads at least so many messages for the next one.
const MESSAGES_MIN: i64 = 10_000;
/// A checkpoint waits so long for word that its topic is still the same.
const CONFIRM_WAIT_MAX: Duration = Duration::from_secs(30);

/// A topic that gives nothing for so long has nothing more: what its log ends with may be no messages (marks of transactions).
const SILENT_AT_END: Duration = Duration::from_secs(5);

/// The last checkpoint of a lane that goes waits so long for word that its topic is still the same.
const CONFIRM_MAX: Duration = Duration::from_secs(2);
const CONFIRM_EVERY: Duration = Duration::from_millis(20);

/// Whether a lane may read.
pub(super) enum Claim {
    /// There is no delivery: always.
    Unneeded,
    /// Not yet: what it goes on with is there.
    Ready(Box<Recovered>),
    /// Not yet.
    Awaited(Asked),
    /// Not yet: it was refused.
    Again(Instant),
    /// As long as the claim lasts.
    Held(Box<Keeper>),
    /// No more.
    Lost,
}

/// A claim that was asked for; nobody claims for a lane that has gone.
pub(super) struct Asked {
    answer: oneshot::Receiver<Result<Recovered, Refused>>,
    claiming: AbortHandle,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.claiming.abort();
    }
}

impl StreamLane {
    /// Asks for the claim. The lane reads nothing before it has one.
    pub(super) fn claim(&mut self) {
        let Some(delivery) = self.delivery() else { return };
        let (lane, kind, wake) = (self.lane.id(), self.lane.kind, self.wake.clone());
        self.state = LaneState::Paused;
        // While it tries again, why it has to is worth more.
        if !matches!(self.claim, Claim::Again(_)) {
            self.detail = "takes up its state".to_owned();
        }
        if let Some(recovered) = delivery.take_claimed(&lane) {
            self.claim = Claim::Ready(Box::new(recovered));
            return;
        }
        let facts = PartitionFacts {
            topic: self.lane.topic.clone(),
            partition: self.lane.partition,
            topic_id: self.reader.topic_id(),
            begin_offset: self.reader.begin_offset().unwrap_or(0),
            end_offset: self.reader.end_offset().unwrap_or(i64::MAX),
            n_partitions: self.reader.n_partitions(),
        };
        let settings = settings(self.lane.kind, &self.config.operators);
        let (send, answer) = oneshot::channel();
        let runtime = delivery.runtime.clone();
        let claiming = runtime.spawn(async move {
            let recovered = recover(&delivery, (&lane, kind), &facts, &settings).await;
            // The lane may have gone meanwhile.
            let _ = send.send(recovered);
            wake();
        });
        self.claim = Claim::Awaited(Asked { answer, claiming: claiming.abort_handle() });
    }

    /// Lanes of reference data read their compacted topics anew each time.
    fn delivery(&self) -> Option<Arc<Delivery>> {
        self.config.delivery.clone().filter(|_| !self.lane.kind.is_reference())
    }

    /// What runs the waiting for stores.
    pub(crate) fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.config.delivery.as_ref().map(|delivery| delivery.runtime.clone())
    }

    /// Looks after claim and checkpoints. *Returns* whether the lane may read.
    pub(super) fn tend(&mut self, now: Instant) -> bool {
        match &mut self.claim {
            Claim::Unneeded => true,
            Claim::Lost => false,
            Claim::Ready(_) => {
                if let Claim::Ready(recovered) = std::mem::replace(&mut self.claim, Claim::Lost) {
                    self.take_over(*recovered, now);
                }
                matches!(self.claim, Claim::Held(_))
            }
            Claim::Again(at) => {
                // Whoever hears nothing from the broker does not know whether the partition is still its own.
                if now >= *at && self.fenced_since.is_none_or(|since| self.reader.confirm_topic(since)) {
                    self.claim();
                }
                false
            }
            Claim::Awaited(asked) => {
                match asked.answer.try_recv() {
                    Err(oneshot::error::TryRecvError::Empty) => return false,
                    Ok(Ok(recovered)) => self.take_over(recovered, now),
                    Ok(Err(Refused::Halt(detail))) => self.halt(detail),
                    Ok(Err(Refused::Retry(detail))) => self.claim_again(detail, now),
                    Err(oneshot::error::TryRecvError::Closed) => {
                        self.claim_again("claiming ended without an answer".to_owned(), now);
                    }
                }
                matches!(self.claim, Claim::Held(_))
            }
            Claim::Held(keeper) => {
                keeper.expire(now);
                if self.unconfirmed.as_ref().is_some_and(|(since, _)| self.reader.confirm_topic(*since))
                    && let Some((_, confirm)) = self.unconfirmed.take()
                {
                    // A checkpoint that is not waited for any more needs no word.
                    let _ = confirm.send(());
                }
                // Others wait for a large checkpoint to be over: it is given up.
                self.unconfirmed.take_if(|(since, _)| since.elapsed() > CONFIRM_WAIT_MAX);
                match keeper.poll(now) {
                    Ok(None) => {}
                    Ok(Some(Durable { number, took })) => {
                        self.lane.committed(number, took.as_secs_f64());
                        self.claim_again_after = CLAIM_AGAIN;
                        self.n_messages_max = self.n_messages_max.saturating_mul(2);
                    }
                    Err(error) => {
                        self.lose(&error, now);
                        return false;
                    }
                }
                self.checkpoint_if_due(now);
                matches!(&self.claim, Claim::Held(keeper) if !keeper.is_full()) && !self.has_enough()
            }
        }
    }

    fn take_over(&mut self, recovered: Recovered, now: Instant) {
        let Some(delivery) = self.delivery() else { return };
        let Recovered { store, head, hot, pending } = recovered;
        if let Some(head) = &head {
            if let Err(error) = self.lane.restore(head, hot) {
                return self.halt(error.to_string());
            }
            self.next_offset = head.next_offset;
            self.reader.seek(head.next_offset);
            tracing::info!(
                topic = %self.lane.topic,
                partition = self.lane.partition,
                checkpoint = head.number,
                offset = head.next_offset,
                "lane goes on from its checkpoint"
            );
        } else if let Some(first_offset) = self.first_offset {
            self.next_offset = first_offset;
            self.reader.seek(first_offset);
        }
        let keeper = Keeper::new(self.lane.id(), delivery, store, head.unwrap_or_default(), pending, now);
        self.claim = Claim::Held(Box::new(keeper));
        self.fenced_since = None;
        self.state = LaneState::Running;
        self.detail.clear();
    }

    fn halt(&mut self, detail: String) {
        tracing::error!(topic = %self.lane.topic, partition = self.lane.partition, %detail, "lane halts");
        self.claim = Claim::Lost;
        self.unconfirmed = None;
        self.state = LaneState::Halted;
        self.detail = detail;
    }

    fn claim_again(&mut self, detail: String, now: Instant) {
        if self.detail != detail {
            tracing::warn!(topic = %self.lane.topic, partition = self.lane.partition, %detail, "lane waits for its store");
        }
        self.claim = Claim::Again(now + self.claim_again_after);
        self.claim_again_after = (2 * self.claim_again_after).min(CLAIM_AGAIN_MAX);
        self.state = LaneState::Paused;
        self.detail = detail;
    }

    /// Whether what came since the last checkpoint is as much as the next one should hold.
    fn has_enough(&self) -> bool {
        let (Claim::Held(keeper), Some(delivery)) = (&self.claim, &self.config.delivery) else { return false };
        let n_messages = self.next_offset.saturating_sub(keeper.head().next_offset);
        n_messages >= self.n_messages_max || self.lane.logged_bytes() > delivery.logged_bytes_max
    }

    /// The claim is dead. What the lane holds may be ahead of its store, so it is dropped; the store knows the truth.
    pub(super) fn lose(&mut self, error: &StoreError, now: Instant) {
        self.lane = Lane::new(&self.spec);
        self.unclaimed_since = now;
        self.unconfirmed = None;
        self.batch.clear(0);
        self.n_done = 0;
        self.retry_at = None;
        if let (Claim::Held(keeper), StoreError::Unknown { .. }) = (&self.claim, error) {
            let n_messages = self.next_offset.saturating_sub(keeper.head().next_offset);
            self.n_messages_max = (n_messages / 2).max(MESSAGES_MIN);
        }
        match error {
            StoreError::Fenced { .. } => {
                let wait_s = FENCED_AGAIN.as_secs();
                let detail = format!(
                    "{error}: this one has let go and writes nothing more, and claims it again if it is still its own in {wait_s} s"
                );
                self.claim_again(detail, now);
                (self.claim, self.fenced_since) = (Claim::Again(now + FENCED_AGAIN), Some(now));
            }
            StoreError::NewerFormat { .. } | StoreError::Damaged { .. } => self.halt(error.to_string()),
            error => self.claim_again(error.to_string(), now),
        }
    }

    fn checkpoint_if_due(&mut self, now: Instant) {
        let has_enough = self.has_enough();
        let Claim::Held(keeper) = &mut self.claim else { return };
        let is_crowded = has_enough || keeper.is_crowded(self.lane.n_events());
        let is_due = keeper.is_due(now, self.next_offset) || (is_crowded && !keeper.is_in_flight());
        if is_due && keeper.has_turn(self.next_offset) {
            self.checkpoint(now);
        }
    }

    /// Takes up everything that changed and starts making it durable.
    fn checkpoint(&mut self, now: Instant) {
        let started = Instant::now();
        if let Err(error) = self.settle(Need::Tables) {
            return self.lose(&error, now);
        }
        let topic_id = self.reader.topic_id();
        let (Claim::Held(keeper), Some(delivery)) = (&mut self.claim, &self.config.delivery) else { return };
        let head = Head {
            topic_id: topic_id.or_else(|| keeper.head().topic_id.clone()),
            next_offset: self.next_offset,
            n_partitions: self.reader.n_partitions(),
            settings: settings(self.lane.kind, &self.config.operators),
            ..Head::default()
        };
        let (head, taken) = match self.lane.take(head, delivery) {
            Ok(taken) => taken,
            Err(error) => {
                let detail =
                    format!("rows in the cache folder cannot be read, so its messages are read again: {error}");
                let error = StoreError::Unknown { lane: self.lane.id(), detail };
                return self.lose(&error, now);
            }
        };
        let letters = self.config.dead_letters.as_ref().map(|letters| letters.flushed());
        // A lane that goes meanwhile drops the sender: then nothing is made durable.
        let (confirm, is_confirmed) = oneshot::channel();
        let before = async move {
            if let Some(letters) = letters {
                letters.await;
            }
            is_confirmed.await.is_ok()
        };
        keeper.begin(head, taken, Box::pin(before), self.wake.clone(), now);
        self.unconfirmed = Some((Instant::now(), confirm));
        self.lane.report_pause(started.elapsed().as_secs_f64());
    }

    /// Puts what came late in its place, with state read back from the store.
    pub(super) fn settle(&mut self, need: Need<'_>) -> Result<(), StoreError> {
        let (store, runtime) = match (&self.claim, &self.config.delivery) {
            (Claim::Held(keeper), Some(delivery)) => (Some(keeper.store().clone()), Some(delivery.runtime.clone())),
            _ => (None, None),
        };
        let read = |keys: Vec<Vec<u8>>| match (&store, &runtime) {
            (Some(store), Some(runtime)) => read_cold(store.as_ref(), runtime, keys),
            _ => Err("the lane has no store".to_owned()),
        };
        let lane = self.lane.id();
        self.lane.settle(need, &read).map_err(|detail| StoreError::Unknown { lane, detail })
    }

    /// A lane that holds no claim may hold rows that the store never gets.
    fn is_trusted(&self) -> bool {
        matches!(self.claim, Claim::Unneeded | Claim::Held(_))
    }

    /// Why what it answers lacks rows; none when it does not.
    pub(crate) fn missing(&self, now: Instant) -> Option<MissingLane> {
        let coming_for = Some(now.duration_since(self.unclaimed_since));
        let (reason, coming_for) = match self.state {
            LaneState::Halted => (format!("halted: {}", self.detail), None),
            _ if !self.is_trusted() => (format!("not there yet: {}", self.detail), coming_for),
            _ if self.is_reading_anew(now) => ("not there yet: reads its topic from the start".to_owned(), coming_for),
            _ => return None,
        };
        Some(MissingLane { topic: self.lane.topic.clone(), partition: Some(self.lane.partition), reason, coming_for })
    }

    /// Whether reference data that was there when the lane began is still to be read.
    fn is_reading_anew(&self, now: Instant) -> bool {
        let is_before = |end_offset: i64| self.next_offset < end_offset;
        self.read_until.is_some_and(is_before) && now.duration_since(self.last_message) < SILENT_AT_END
    }

    /// A snapshot of a table; none for a table that it does not fill.
    pub(crate) fn snapshot(&mut self, table: &str) -> Result<Option<Arc<dyn TableSnapshot>>, LiveError> {
        if !self.is_trusted() {
            return Ok(None);
        }
        self.settle(Need::Tables).map_err(|error| LiveError::Unavailable { detail: error.to_string() })?;
        Ok(self.lane.snapshot(table))
    }

    /// Rows of a table that the lake may not hold yet.
    pub(crate) fn fresh(&mut self, table: &str) -> Result<Option<FreshRows>, LiveError> {
        if !self.is_trusted() {
            return Ok(None);
        }
        self.settle(Need::Tables).map_err(|error| LiveError::Unavailable { detail: error.to_string() })?;
        let Claim::Held(keeper) = &self.claim else { return Ok(None) };
        let mut rows: Vec<(u32, RecordBatch)> = Vec::new();
        for part in keeper.pending.fresh(table) {
            let batches = part.batches().filter(|batch| batch.num_rows() > 0);
            rows.extend(batches.map(|batch| (part.number, batch)));
        }
        if let Some((number, batches)) = self.lane.fresh(table) {
            rows.extend(batches.into_iter().map(|batch| (number, batch)));
        }
        let (after, durable) = (keeper.pending.after(table), keeper.head().number);
        Ok((after > 0 || !rows.is_empty()).then(|| FreshRows { lane: self.lane.id(), rows, after, durable }))
    }

    /// Answers a question about one key; none when it is not for this lane's operator.
    pub(crate) fn lookup(&mut self, lookup: &Lookup) -> Result<Option<RecordBatch>, LiveError> {
        if !self.is_trusted() {
            return Ok(None);
        }
        self.settle(Need::Lookup(lookup)).map_err(|error| LiveError::Unavailable { detail: error.to_string() })?;
        Ok(self.lane.lookup(lookup))
    }

    /// What it has for the lake.
    pub(crate) fn pending(&self, with_open: bool) -> Option<LanePending> {
        let Claim::Held(keeper) = &self.claim else { return None };
        let through = keeper.head().number;
        let tables = keeper.pending.until(through, with_open);
        (!tables.is_empty()).then(|| LanePending { lane: self.lane.id(), through, tables })
    }

    /// Whether the lake should take its rows soon.
    pub(crate) fn is_heavy(&self) -> bool {
        matches!(&self.claim, Claim::Held(keeper) if keeper.is_heavy())
    }

    /// The lake has taken rows.
    pub(crate) fn cover(&mut self, covered: Covered, now: Instant) {
        let Claim::Held(keeper) = &mut self.claim else { return };
        if keeper.is_of_former_claim(covered.through) {
            return;
        }
        let (mut is_whole, through) = (true, covered.through);
        for (table, outcome) in covered.tables {
            match outcome {
                Outcome::Covered { carried, is_numbered } => {
                    keeper.cover(&table, (through, is_numbered), carried, now);
                    if is_numbered {
                        keeper.number_table(table, through);
                    }
                }
                Outcome::Failed => is_whole = false,
                Outcome::Ahead { at } => {
                    let lane = &keeper.lane;
                    let detail = format!(
                        "the lake's table {table} holds checkpoint {at} of lane {lane}, its store only {through}: another instance writes with \
                         another store, or state was lost; see legwork lanes list"
                    );
                    return self.halt(detail);
                }
            }
        }
        if is_whole {
            keeper.settle(through);
        }
        self.lane.report_waiting_rows(keeper.pending.n_rows());
    }

    /// Starts a checkpoint whether it is due or not. *Returns* whether all there is is durable, or never will be.
    pub(crate) fn flush(&mut self, now: Instant) -> bool {
        self.tend(now);
        let Claim::Held(keeper) = &self.claim else { return true };
        if keeper.is_in_flight() {
            return false;
        }
        // Also what the lake has taken is noted: open rows that it left out then get a number that it does not have yet.
        if !keeper.has_news(self.next_offset) {
            return true;
        }
        self.checkpoint(now);
        false
    }

    /// Makes a last checkpoint, unless the partition is lost already, and lets the claim go.
    pub(crate) fn close(mut self, is_lost: bool, now: Instant) -> Option<BoxFuture<'static, Result<(), StoreError>>> {
        if !is_lost
            && let Claim::Held(keeper) = &self.claim
            && !keeper.is_in_flight()
            && keeper.has_news(self.next_offset)
        {
            self.checkpoint(now);
        }
        // In a lock because readers are used by one thread at a time.
        let (reader, unconfirmed) = (Mutex::new(self.reader), self.unconfirmed);
        match self.claim {
            Claim::Held(keeper) => Some(Box::pin(async move {
                if let Some((since, confirm)) = unconfirmed {
                    let confirmed = async {
                        while !reader.lock().confirm_topic(since) {
                            tokio::time::sleep(CONFIRM_EVERY).await;
                        }
                    };
                    if reader.lock().confirm_topic(since) || tokio::time::timeout(CONFIRM_MAX, confirmed).await.is_ok()
                    {
                        let _ = confirm.send(());
                    } else {
                        drop(confirm);
                    }
                }
                drop(reader);
                keeper.close().await
            })),
            _ => None,
        }
    }

    /// Offset up to which everything is durable, once there is one.
    pub(crate) fn durable_offset(&self) -> Option<i64> {
        match &self.claim {
            Claim::Unneeded => self.next_offset(),
            Claim::Held(keeper) => (keeper.head().number > 0).then_some(keeper.head().next_offset),
            _ => None,
        }
    }

    /// Number of the newest durable checkpoint.
    pub(super) fn checkpoint_seq(&self) -> Option<i64> {
        match &self.claim {
            Claim::Held(keeper) => (keeper.head().number > 0).then_some(i64::from(keeper.head().number)),
            _ => None,
        }
    }
}

/// Reads cold state from a thread that is not the runtime's.
fn read_cold(
    store: &dyn LaneStore,
    runtime: &tokio::runtime::Handle,
    keys: Vec<Vec<u8>>,
) -> Result<Vec<Option<Vec<u8>>>, String> {
    let _entered = runtime.enter();
    futures::executor::block_on(store.read(keys)).map_err(|error| error.to_string())
}
