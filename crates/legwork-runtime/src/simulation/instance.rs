//! One process of a simulated world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use legwork_codec::{Decoder, Format};
use legwork_operators::{DedupConfig, OperatorConfig, TrackConfig};
use legwork_state::MemoryStore;
use legwork_types::time::{DAY_US, HOUR_US, TimeConfig};
use legwork_types::{FreshRows, Kind, LaneId, LaneState, LaneStatus};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::faults::Dice;
use super::lake::Lake;
use super::log::Log;
use crate::delivery::{Covered, commit, lake_tables};
use crate::lane::LaneSpec;
use crate::record_log::Space;
use crate::stream_lane::StreamLane;
use crate::{Delivery, DeliveryOptions, LaneConfig, RawEvents, SpillConfig};

type Fresh = BTreeMap<&'static str, FreshRows>;

pub(super) struct Instance {
    runtime: tokio::runtime::Runtime,
    delivery: Arc<Delivery>,
    dice: Dice,
    lake: Lake,
    lanes: BTreeMap<LaneId, StreamLane>,
    committing: Option<oneshot::Receiver<BTreeMap<LaneId, Covered>>>,
    pub(super) folder: TempDir,
}

/// What a lane is made of, in an instance or without one. `folder`: for what leaves memory.
pub(super) fn spec(lane: &LaneId, kind: Kind, delivery: Option<Arc<Delivery>>, folder: &TempDir) -> LaneSpec {
    let time = TimeConfig { late_horizon_us: 8 * HOUR_US, ..TimeConfig::default() };
    let has_store = delivery.is_some();
    // So little that chunks leave memory as soon as they are durable.
    let track = TrackConfig { has_store, memory_bytes_max: 1_000, ..TrackConfig::default() };
    // Beyond its horizon a duplicate may be counted again, depending on when memory was swept.
    let dedup = DedupConfig { horizon_us: 400 * DAY_US, ..DedupConfig::default() };
    let spill = SpillConfig { dir: folder.path().to_owned(), memory_bytes_max: usize::MAX, disk_bytes_max: u64::MAX };
    let config = LaneConfig {
        operators: OperatorConfig { time, track, dedup, has_store, n_entities_min: 4 },
        future_skew_us_max: 300_000_000,
        lane_idle_after: Duration::from_secs(60),
        revision_every: Duration::from_secs(10),
        message_bytes_max: 1 << 20,
        owner: Arc::from("sim"),
        partition_of: None,
        raw_events: RawEvents::All,
        spill: spill.clone(),
        dead_letters: None,
        delivery,
    };
    LaneSpec {
        kind,
        topic: lane.topic.clone(),
        partition: lane.partition,
        past_us_max: None,
        config: Arc::new(config),
        space: Space::open(&spill, true),
        metrics: None,
    }
}

impl Instance {
    pub(super) fn new(dice: &Dice, store: &MemoryStore, lake: &Lake) -> Instance {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let delivery = Delivery::new(DeliveryOptions {
            store: Arc::new(store.with_faults(Arc::new(dice.clone()))),
            lake: Arc::new(lake.clone()),
            checkpoint_every: Duration::from_secs(5),
            commit_every: Duration::from_secs(20),
            open_rows_every: Duration::from_secs(60),
            waiting_bytes_max: 150 << 10,
            logged_bytes_max: 64 << 10,
            encoded_rows_min: 20,
            large_checkpoint: 20,
            runtime: runtime.handle().clone(),
        });
        let folder = tempfile::tempdir().unwrap();
        let (lanes, committing) = (BTreeMap::new(), None);
        Instance { runtime, delivery, dice: dice.clone(), lake: lake.clone(), lanes, committing, folder }
    }

    pub(super) fn add(&mut self, lane: &LaneId, kind: Kind, log: &Log) {
        let spec = spec(lane, kind, Some(self.delivery.clone()), &self.folder);
        let config = spec.config.clone();
        let decoder = Decoder::new(kind, Format::Json, config.message_bytes_max);
        let reader = log.reader(lane, 1 + self.dice.below(30));
        let added = StreamLane::new(spec, reader, (decoder, &Format::Json), config, Arc::new(|| {}));
        self.lanes.insert(lane.clone(), added);
    }

    pub(super) fn step(&mut self, lane: &LaneId, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.step(now);
        }
    }

    /// Lets what waits for stores go on for a while.
    pub(super) fn drive(&mut self) {
        let n_turns = 1 + self.dice.below(12);
        self.runtime.block_on(async {
            for _ in 0..n_turns {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Starts a commit into the lake, or takes up the one that has ended.
    pub(super) fn commit(&mut self, with_open: bool, now: Instant) {
        if let Some(committing) = &mut self.committing {
            if let Ok(covered) = committing.try_recv() {
                self.committing = None;
                for (lane, covered) in covered {
                    if let Some(lane) = self.lanes.get_mut(&lane) {
                        lane.cover(covered, now);
                    }
                }
            }
            return;
        }
        let pending: Vec<_> = self.lanes.values().filter_map(|lane| lane.pending(with_open)).collect();
        let (lake, (send, receive)) = (self.lake.clone(), oneshot::channel());
        let encoded_rows_min = self.delivery.encoded_rows_min;
        self.runtime.spawn(async move {
            let (covered, _failures) = commit(&lake, pending, (with_open, encoded_rows_min)).await;
            let _ = send.send(covered);
        });
        self.committing = Some(receive);
    }

    pub(super) fn revoke(&mut self, lane: &LaneId, is_lost: bool, now: Instant) {
        let Some(lane) = self.lanes.remove(lane) else { return };
        if let Some(closing) = lane.close(is_lost, now) {
            // It goes on as long as it is driven, or dies with the process.
            self.runtime.spawn(closing);
        }
    }

    pub(super) fn status(&self, lane: &LaneId) -> Option<LaneStatus> {
        self.lanes.get(lane).map(StreamLane::status)
    }

    /// Status and rows of a lane, when it answers.
    pub(super) fn shows(&mut self, id: &LaneId, kind: Kind) -> Option<(LaneStatus, Fresh)> {
        let lane = self.lanes.get_mut(id)?;
        if lane.status().state != LaneState::Running {
            return None;
        }
        let mut fresh = Fresh::new();
        for table in lake_tables(kind) {
            if let Some(rows) = lane.fresh(table).ok()? {
                fresh.insert(table, rows);
            }
        }
        Some((lane.status(), fresh))
    }

    /// Whether a lane has read everything and has nothing more to deliver.
    pub(super) fn is_at_rest(&self, lane: &LaneId, end_offset: i64) -> bool {
        let Some(lane) = self.lanes.get(lane) else { return false };
        lane.durable_offset() == Some(end_offset) && lane.pending(true).is_none()
    }

    /// Rows of a table that wait for the lake.
    pub(super) fn waits_for_lake(&self, lane: &LaneId, table: &str) -> usize {
        let pending = self.lanes.get(lane).and_then(|lane| lane.pending(true));
        let parts = pending.into_iter().flat_map(|pending| pending.tables).filter(|(name, _)| name == table);
        parts.flat_map(|(_, parts)| parts).map(|part| part.rows.n_rows()).sum()
    }
}
