//! A log of partitions in memory, and readers of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use legwork_types::{LaneId, Message, MessageBatch};
use parking_lot::Mutex;

use crate::{BatchLimit, PartitionReader, ReadOutcome};

/// A message as a broker keeps it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) arrival_us: i64,
}

/// The log that all instances read.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<BTreeMap<LaneId, Vec<Record>>>>);

impl Log {
    pub(super) fn append(&self, lane: &LaneId, record: Record) {
        self.0.lock().entry(lane.clone()).or_default().push(record);
    }

    pub(super) fn end(&self, lane: &LaneId) -> i64 {
        self.0.lock().get(lane).map_or(0, Vec::len) as i64
    }

    /// The records before an offset.
    pub(super) fn until(&self, lane: &LaneId, offset: i64) -> MessageBatch {
        let mut batch = MessageBatch::new(lane.topic.clone(), lane.partition);
        self.read(lane, 0, offset as usize, &mut batch);
        batch
    }

    fn read(&self, lane: &LaneId, from: usize, n_max: usize, into: &mut MessageBatch) -> usize {
        let log = self.0.lock();
        let records = log.get(lane).map_or(&[][..], Vec::as_slice);
        let records = &records[from.min(records.len())..];
        let records = &records[..n_max.min(records.len())];
        for (idx, record) in records.iter().enumerate() {
            into.push(Message {
                offset: (from + idx) as i64,
                arrival_us: record.arrival_us,
                key: Some(&record.key),
                value: record.value.as_deref(),
            });
        }
        records.len()
    }

    pub(super) fn reader(&self, lane: &LaneId, batch_max: usize) -> Box<dyn PartitionReader> {
        Box::new(Reader { log: self.clone(), lane: lane.clone(), next: 0, batch_max })
    }
}

struct Reader {
    log: Log,
    lane: LaneId,
    next: usize,
    batch_max: usize,
}

impl PartitionReader for Reader {
    fn topic(&self) -> &Arc<str> {
        &self.lane.topic
    }

    fn partition(&self) -> i32 {
        self.lane.partition
    }

    fn n_partitions(&self) -> i32 {
        1
    }

    fn topic_id(&self) -> Option<String> {
        Some("simulated".to_owned())
    }

    fn confirm_topic(&self, _since: std::time::Instant) -> bool {
        true
    }

    fn begin_offset(&self) -> Option<i64> {
        Some(0)
    }

    fn read(&mut self, into: &mut MessageBatch, limit: BatchLimit) -> ReadOutcome {
        let n_messages = self.log.read(&self.lane, self.next, limit.n_messages_max.min(self.batch_max), into);
        self.next += n_messages;
        ReadOutcome::Messages(n_messages)
    }

    fn seek(&mut self, offset: i64) {
        self.next = offset as usize;
    }

    fn gone_because(&self) -> Option<String> {
        None
    }

    fn end_offset(&self) -> Option<i64> {
        Some(self.log.end(&self.lane))
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn on_ready(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        wake();
    }

    fn set_paused(&mut self, _paused: bool) {}
}
