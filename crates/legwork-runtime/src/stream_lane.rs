//! A lane fed by a partition: reads messages, decodes them, hands the events on, waits when it must.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod delivered;

use legwork_codec::{Blocked, Decoded, Decoder, Format};
use legwork_operators::Need;
use legwork_types::{EventBatch, LaneState, LaneStatus, MessageBatch};

use crate::lane::{Lane, LaneSpec, Origin, Tombstone};
use crate::{BatchLimit, LaneConfig, PartitionReader, ReadOutcome};
use delivered::Claim;

/// A batch is big enough to pay for what is done once a batch, and small enough that a reader of tables never waits long.
const LIMIT: BatchLimit = BatchLimit { n_messages_max: 32_768, n_bytes_max: 4 << 20 };
/// What an emptied batch may keep of its arena.
const ARENA_KEPT_BYTES: usize = 1 << 20;
/// A blocked lane asks again after this.
const BLOCKED_RETRY: Duration = Duration::from_millis(50);
/// A lane that was not woken looks by itself after this.
const UNWOKEN_READ: Duration = Duration::from_millis(200);
/// Gauges are brought up to date so often.
const GAUGES_EVERY: Duration = Duration::from_secs(1);
/// The size of the state is estimated so often: that goes over all keys.
const STATE_BYTES_EVERY: Duration = Duration::from_secs(15);

pub(crate) struct StreamLane {
    pub(crate) lane: Lane,
    spec: LaneSpec,
    claim: Claim,
    /// Since when it has no claim, if it has none.
    unclaimed_since: Instant,
    /// End of a topic of reference data, which is read anew each time, as it was when the lane began; none where there is nothing to read.
    read_until: Option<i64>,
    /// When another owner took its claim, until it has one again.
    fenced_since: Option<Instant>,
    /// How long it waits before it claims again.
    claim_again_after: Duration,
    /// Messages that it reads between two checkpoints: fewer after one that could not be made durable.
    n_messages_max: i64,
    /// A checkpoint that waits for word that the topic was still the same at its barrier.
    unconfirmed: Option<(Instant, tokio::sync::oneshot::Sender<()>)>,
    wake: Arc<dyn Fn() + Send + Sync>,
    reader: Box<dyn PartitionReader>,
    decoder: Decoder,
    config: Arc<LaneConfig>,
    batch: MessageBatch,
    /// Messages of the batch before this are accounted for.
    n_done: usize,
    next_offset: i64,
    /// Offset of the first message that it ever read: where it starts anew, should its claim die before its first checkpoint.
    first_offset: Option<i64>,
    state: LaneState,
    detail: String,
    is_ready: Arc<AtomicBool>,
    /// The registry has answered something since the lane was blocked.
    is_answered: Arc<AtomicBool>,
    /// Kept alive for the registry, which calls it.
    _on_answer: Option<Arc<dyn Fn() + Send + Sync>>,
    last_message: Instant,
    last_read: Instant,
    last_gauges: Instant,
    last_state_bytes: Instant,
    last_revision: Instant,
    retry_at: Option<Instant>,
}

impl StreamLane {
    pub(crate) fn new(
        spec: LaneSpec,
        mut reader: Box<dyn PartitionReader>,
        (decoder, format): (Decoder, &Format),
        config: Arc<LaneConfig>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> StreamLane {
        let is_answered = Arc::new(AtomicBool::new(false));
        let on_answer = on_answer(format, is_answered.clone(), wake.clone());
        let is_ready = Arc::new(AtomicBool::new(true));
        let (flag, wake_up) = (is_ready.clone(), wake.clone());
        reader.on_ready(Arc::new(move || {
            flag.store(true, Ordering::Release);
            wake_up();
        }));
        let now = Instant::now();
        let lane = Lane::new(&spec);
        let read_until =
            reader.end_offset().filter(|end_offset| reader.begin_offset().is_some_and(|begin| begin < *end_offset));
        let read_until = read_until.filter(|_| lane.kind.is_reference());
        let mut stream_lane = StreamLane {
            batch: MessageBatch::new(lane.topic.clone(), lane.partition),
            lane,
            claim: Claim::Unneeded,
            unclaimed_since: now,
            read_until,
            fenced_since: None,
            claim_again_after: delivered::CLAIM_AGAIN,
            n_messages_max: i64::MAX,
            unconfirmed: None,
            spec,
            wake,
            reader,
            decoder,
            config,
            n_done: 0,
            next_offset: 0,
            first_offset: None,
            state: LaneState::Running,
            detail: String::new(),
            is_ready,
            is_answered,
            _on_answer: on_answer,
            last_message: now,
            last_read: now,
            last_gauges: now,
            last_state_bytes: now,
            last_revision: now,
            retry_at: None,
        };
        stream_lane.claim();
        stream_lane
    }

    /// Processes one batch, if there is one. *Returns* whether there may be more at once.
    pub(crate) fn step(&mut self, now: Instant) -> bool {
        if now.duration_since(self.last_gauges) >= GAUGES_EVERY {
            self.last_gauges = now;
            let status = self.status();
            self.lane.report_gauges(&status, self.reader.queued_bytes());
            if now.duration_since(self.last_state_bytes) >= STATE_BYTES_EVERY {
                self.last_state_bytes = now;
                self.lane.report_state_bytes();
            }
        }
        if matches!(self.claim, Claim::Unneeded) && now.duration_since(self.last_revision) >= self.config.revision_every
        {
            self.last_revision = now;
            self.lane.advance_revision();
        }
        if !self.tend(now) || self.state == LaneState::Halted {
            return false;
        }
        if self.n_done == self.batch.len() {
            if !self.read(now) {
                return false;
            }
        } else if self.retry_at.is_some_and(|retry_at| now < retry_at) && !self.is_answered.load(Ordering::Acquire) {
            return false;
        }
        self.is_answered.store(false, Ordering::Release);
        self.process(now);
        self.retry_at.is_none()
    }

    /// Fills the batch. *Returns* whether it holds any message.
    fn read(&mut self, now: Instant) -> bool {
        self.batch.clear(ARENA_KEPT_BYTES);
        self.n_done = 0;
        let was_woken = self.is_ready.swap(false, Ordering::AcqRel);
        if !was_woken && now.duration_since(self.last_read) < UNWOKEN_READ {
            return false;
        }
        self.last_read = now;
        match self.reader.read(&mut self.batch, LIMIT) {
            ReadOutcome::Messages(0) => {
                // A lane that has caught up needs no room for a large batch.
                self.batch.clear(0);
                false
            }
            ReadOutcome::Messages(_) => {
                // More may be there: the queue wakes only when it was empty.
                self.is_ready.store(true, Ordering::Release);
                self.last_message = now;
                self.first_offset = self.first_offset.or_else(|| Some(self.batch.get(0).offset));
                true
            }
            ReadOutcome::Gone => {
                self.state = LaneState::Halted;
                self.detail =
                    self.reader.gone_because().unwrap_or_else(|| "the partition cannot be read any more".to_owned());
                tracing::error!(topic = %self.lane.topic, partition = self.lane.partition, detail = %self.detail, "lane halts");
                !self.batch.is_empty()
            }
        }
    }

    fn process(&mut self, now: Instant) {
        let decoded = self.decoder.decode(&self.batch, self.n_done);
        let n_consumed = decoded.n_consumed;
        self.set_blocked(decoded.blocked.as_ref(), now);
        if n_consumed == 0 {
            return;
        }
        if let Err(error) = self.settle(Need::Batch(&decoded.events)) {
            // The messages are read again once the lane has its state again.
            return self.lose(&error, now);
        }
        let arrival_us = decoded.events.arrival_us.clone();
        let strays = self.strays(&decoded);
        let Decoded { events, message_rows, rejects, tombstones, .. } = decoded;
        let tombstones = tombstones.iter().map(|&idx| Tombstone {
            key: self.batch.get(idx as usize).key.unwrap_or_default(),
            n_rows_before: message_rows.partition_point(|&row| row < idx),
        });
        let tombstones: Vec<Tombstone<'_>> = tombstones.collect();
        let origin = Messages { batch: &self.batch, message_rows: &message_rows };
        self.lane.ingest(events, rejects, &tombstones, &origin, &strays);
        self.n_done += n_consumed;
        self.next_offset = self.batch.get(self.n_done - 1).offset + 1;
        self.lane.report(&arrival_us, wall_clock_us());
    }

    fn set_blocked(&mut self, blocked: Option<&Blocked>, now: Instant) {
        let Some(blocked) = blocked else {
            if self.state == LaneState::Paused {
                self.state = LaneState::Running;
                self.detail.clear();
                tracing::info!(topic = %self.lane.topic, partition = self.lane.partition, "lane goes on");
            }
            self.retry_at = None;
            return;
        };
        self.retry_at = Some(now + BLOCKED_RETRY);
        // A schema that is only being fetched is no trouble yet.
        let Blocked::Unavailable { detail, .. } = blocked else { return };
        if self.state == LaneState::Halted {
            return;
        }
        if self.state != LaneState::Paused {
            tracing::warn!(topic = %self.lane.topic, partition = self.lane.partition, "lane waits: {detail}");
        }
        self.state = LaneState::Paused;
        self.detail.clone_from(detail);
    }

    /// Offsets of events whose key belongs to another partition.
    fn strays(&self, decoded: &Decoded) -> Vec<i64> {
        let Some(partition_of) = self.config.partition_of else { return Vec::new() };
        let n_partitions = self.reader.n_partitions();
        if self.lane.kind.is_reference() || n_partitions <= 1 {
            return Vec::new();
        }
        let is_stray = |&&idx: &&u32| match self.batch.get(idx as usize).key {
            Some(key) => partition_of(key, n_partitions).is_some_and(|partition| partition != self.lane.partition),
            None => true,
        };
        decoded.message_rows.iter().filter(is_stray).map(|&idx| self.batch.get(idx as usize).offset).collect()
    }

    /// A row of `pipeline_lanes`.
    pub(crate) fn status(&self) -> LaneStatus {
        let is_idle = self.state == LaneState::Running && self.last_message.elapsed() >= self.config.lane_idle_after;
        let status = self.lane.status(self.state, &self.detail, self.next_offset, self.reader.end_offset(), is_idle);
        LaneStatus { checkpoint_seq: self.checkpoint_seq(), ..status }
    }

    /// Offset of the next message, once one was read.
    pub(crate) fn next_offset(&self) -> Option<i64> {
        (self.next_offset > 0).then_some(self.next_offset)
    }

    /// When a blocked lane wants to be tried again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

/// What the registry is to call when it has answered.
fn on_answer(
    format: &Format,
    is_answered: Arc<AtomicBool>,
    wake: Arc<dyn Fn() + Send + Sync>,
) -> Option<Arc<dyn Fn() + Send + Sync>> {
    let Format::Avro(registry) = format else { return None };
    let on_answer: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        is_answered.store(true, Ordering::Release);
        wake();
    });
    registry.on_ready(&on_answer);
    Some(on_answer)
}

/// The system's clock, microseconds since 1970-01-01 UTC.
pub(crate) fn wall_clock_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

struct Messages<'a> {
    batch: &'a MessageBatch,
    message_rows: &'a [u32],
}

impl Origin for Messages<'_> {
    fn message(&self, _events: &EventBatch, row: usize) -> (Vec<u8>, Option<Vec<u8>>, Option<u32>) {
        let message = self.batch.get(self.message_rows[row] as usize);
        let value = message.value.unwrap_or_default();
        let schema_id = match value {
            [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
            _ => None,
        };
        (value.to_vec(), message.key.map(<[u8]>::to_vec), schema_id)
    }
}
