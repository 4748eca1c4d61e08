//! Reading one partition.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use legwork_runtime::{BatchLimit, PartitionFacts, PartitionReader, ReadOutcome};
use legwork_types::{Message, MessageBatch};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::context::{Context, QueueGauge, Shared};
use crate::ffi::{Fetched, Item, Next, PartitionQueue};
use crate::topic::Topic;

/// librdkafka's own thread answers a seek, not a broker.
const SEEK_WITHIN: Duration = Duration::from_secs(1);
/// For a better message only.
const LOG_WITHIN: Duration = Duration::from_secs(1);

/// The queue of a partition, as long as this member holds it: the source takes it out when the partition goes. A reader that outlives
/// that finds nothing, even if the partition has come back meanwhile with another reader; what was fetched for it is gone with the queue.
pub(crate) type Slot = Arc<Mutex<Option<PartitionQueue>>>;

/// Reads a partition's own queue.
pub(crate) struct Reader {
    slot: Slot,
    facts: PartitionFacts,
    gauge: Option<Arc<QueueGauge>>,
    known: Arc<Topic>,
    /// The version of `known` that was looked at.
    known_version: Option<u32>,
    shared: Arc<Shared>,
    next_offset: i64,
    /// A seek that librdkafka has not begun yet; nothing is read until it has.
    seek_to: Option<i64>,
    /// It can never be read again.
    gone: Option<String>,
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
    is_troubled: bool,
}

impl Reader {
    pub(crate) fn new(slot: Slot, facts: PartitionFacts, offset: i64, shared: &Arc<Shared>) -> Reader {
        let mut reader = Reader::without_queue(facts, shared);
        reader.gauge = Some(shared.partition(&(reader.facts.topic.clone(), reader.facts.partition)));
        reader.next_offset = offset;
        reader.slot = slot;
        reader
    }

    /// A reader of a partition that is held and not read.
    pub(crate) fn halted(facts: PartitionFacts, why: String, shared: &Arc<Shared>) -> Reader {
        let mut reader = Reader::without_queue(facts, shared);
        reader.gone = Some(why);
        reader
    }

    fn without_queue(facts: PartitionFacts, shared: &Arc<Shared>) -> Reader {
        Reader {
            slot: Slot::default(),
            gauge: None,
            known: shared.topic(&facts.topic),
            known_version: None,
            shared: shared.clone(),
            next_offset: facts.begin_offset,
            seek_to: None,
            gone: None,
            wake: None,
            is_troubled: false,
            facts,
        }
    }

    fn hop(&self) -> String {
        format!("topic {} partition {}", self.facts.topic, self.facts.partition)
    }

    fn take_error(&mut self, code: RDKafkaErrorCode, offset: i64, text: &str, consumer: &BaseConsumer<Context>) {
        let (topic, partition) = (&self.facts.topic, self.facts.partition);
        match code {
            RDKafkaErrorCode::PartitionEOF => {}
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                let offset = if offset >= 0 { offset } else { self.next_offset };
                // Once in a partition's life: what librdkafka has heard of the log is from before it was cut.
                let log = consumer.fetch_watermarks(topic, partition, LOG_WITHIN).ok();
                self.gone = Some(lost_offset(topic, partition, offset, log));
            }
            // Told by the probe, which asks more than once before it believes it.
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition => {}
            code => {
                self.is_troubled = true;
                let message = format!("topic {topic} partition {partition}: {code}: {text}");
                self.shared.health.lock().trouble(&self.hop(), &message, Instant::now());
            }
        }
    }

    /// Looks at the topic where something about it has changed.
    fn check_topic(&mut self) {
        if self.gone.is_some() || self.known_version == Some(self.known.version()) {
            return;
        }
        let (seen, version) = self.known.seen();
        self.known_version = Some(version);
        let facts = &self.facts;
        self.gone = seen.why_gone(&facts.topic, facts.partition, facts.topic_id.as_deref(), facts.n_partitions);
    }

    /// Has librdkafka go on at the offset of a seek. *Returns* whether it does.
    fn seek_now(&mut self, queue: &mut PartitionQueue) -> bool {
        let Some(offset) = self.seek_to else { return true };
        // Refused while the partition is only being started: tried again with the next read.
        if let Err(why) = seek(queue, &self.facts, offset) {
            tracing::debug!(topic = &*self.facts.topic, partition = self.facts.partition, offset, why, "seek waits");
            return false;
        }
        // What librdkafka fetched before is marked as outdated by the seek and never comes out of the queue; what was taken out goes.
        queue.discard_taken();
        self.next_offset = offset;
        self.seek_to = None;
        true
    }
}

impl PartitionReader for Reader {
    fn topic(&self) -> &Arc<str> {
        &self.facts.topic
    }

    fn partition(&self) -> i32 {
        self.facts.partition
    }

    fn n_partitions(&self) -> i32 {
        self.facts.n_partitions
    }

    fn topic_id(&self) -> Option<String> {
        self.facts.topic_id.clone()
    }

    fn confirm_topic(&self, since: Instant) -> bool {
        let Some(id) = &self.facts.topic_id else { return true };
        let is_confirmed = self.known.is_confirmed(id, since);
        if !is_confirmed {
            self.shared.check_now.store(true, Ordering::Release);
        }
        is_confirmed
    }

    fn begin_offset(&self) -> Option<i64> {
        let heard = self.slot.lock().as_ref().and_then(|queue| queue.watermarks().0);
        // The log's begin never goes back.
        Some(heard.map_or(self.facts.begin_offset, |heard| heard.max(self.facts.begin_offset)))
    }

    fn read(&mut self, into: &mut MessageBatch, limit: BatchLimit) -> ReadOutcome {
        self.check_topic();
        if self.gone.is_some() {
            return ReadOutcome::Gone;
        }
        let slot = self.slot.clone();
        let mut slot = slot.lock();
        let Some(queue) = slot.as_mut() else { return ReadOutcome::Messages(0) };
        if !self.seek_now(queue) {
            return ReadOutcome::Messages(0);
        }
        let mut fetched_us = now_us();
        let (mut n_messages, mut n_bytes) = (0, 0);
        let (mut next_offset, mut error) = (self.next_offset, None);
        queue.read(limit.n_messages_max, |item| match item {
            // Offsets only grow: librdkafka fetches again what it had fetched when it was interrupted.
            Item::Message(fetched) if fetched.offset < next_offset => Next::Take,
            Item::Message(fetched) => {
                let size = fetched.key.map_or(0, <[u8]>::len) + fetched.value.map_or(0, <[u8]>::len);
                if n_messages > 0 && n_bytes + size > limit.n_bytes_max {
                    return Next::Leave;
                }
                // The queue fills while it is read: no message may be told to have been fetched before it was sent.
                if fetched.timestamp_ms.is_some_and(|sent_ms| sent_ms.saturating_mul(1_000) > fetched_us) {
                    fetched_us = now_us();
                }
                into.push(message(&fetched, fetched_us));
                next_offset = fetched.offset + 1;
                n_messages += 1;
                n_bytes += size;
                Next::Take
            }
            // Messages before an error are handed over first.
            Item::Error { .. } if n_messages > 0 => Next::Leave,
            Item::Error { code, offset, text } => {
                error = Some((code, offset, text.to_owned()));
                Next::Take
            }
        });
        self.next_offset = next_offset;
        if let Some((code, offset, text)) = error {
            let consumer = queue.consumer().clone();
            drop(slot);
            self.take_error(code, offset, &text, &consumer);
        }
        if n_messages > 0 && self.is_troubled {
            self.is_troubled = false;
            self.shared.health.lock().well(&self.hop());
        }
        if n_messages == 0 && self.gone.is_some() { ReadOutcome::Gone } else { ReadOutcome::Messages(n_messages) }
    }

    fn seek(&mut self, offset: i64) {
        self.seek_to = Some(offset);
        let slot = self.slot.clone();
        if let Some(queue) = slot.lock().as_mut() {
            self.seek_now(queue);
        }
        // The queue may never have been empty, so that it would wake nobody.
        if let Some(wake) = &self.wake {
            wake();
        }
    }

    fn gone_because(&self) -> Option<String> {
        self.gone.clone()
    }

    fn end_offset(&self) -> Option<i64> {
        let heard = self.slot.lock().as_ref().and_then(|queue| queue.watermarks().1);
        let known = self.facts.end_offset;
        // What was read lies before the end, however old the news of it.
        Some(heard.unwrap_or(known).max(known).max(self.next_offset))
    }

    fn queued_bytes(&self) -> usize {
        self.gauge.as_ref().map_or(0, |gauge| gauge.queued_bytes.load(Ordering::Relaxed))
    }

    fn on_ready(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.wake = Some(wake.clone());
        if let Some(queue) = self.slot.lock().as_mut() {
            queue.on_nonempty(wake.clone());
        }
        // What came before the callback was set would wake nobody.
        wake();
    }

    fn set_paused(&mut self, paused: bool) {
        let slot = self.slot.lock();
        let Some(queue) = slot.as_ref() else { return };
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.facts.topic, self.facts.partition);
        let consumer = queue.consumer();
        let result = if paused { consumer.pause(&list) } else { consumer.resume(&list) };
        if let Err(error) = result {
            let (topic, partition) = (&*self.facts.topic, self.facts.partition);
            tracing::debug!(topic, partition, paused, %error, "pausing failed");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.is_troubled {
            self.shared.health.lock().well(&self.hop());
        }
    }
}

fn seek(queue: &PartitionQueue, facts: &PartitionFacts, offset: i64) -> Result<(), String> {
    let mut list = TopicPartitionList::with_capacity(1);
    let says = |error: rdkafka::error::KafkaError| error.to_string();
    list.add_partition_offset(&facts.topic, facts.partition, Offset::Offset(offset)).map_err(says)?;
    let list = queue.consumer().seek_partitions(list, SEEK_WITHIN).map_err(says)?;
    list.elements().iter().try_for_each(|element| element.error().map_err(says))
}

fn lost_offset(topic: &str, partition: i32, offset: i64, log: Option<(i64, i64)>) -> String {
    let cause = match log {
        Some((begin, _)) if offset < begin => {
            format!(
                "which begins with {begin} now: retention has deleted {} offsets before they were read",
                begin - offset
            )
        }
        Some((begin, end)) => {
            format!("which holds {begin} to before {end}: it was cut off, or the topic was made anew")
        }
        None => "retention has passed it, or the topic was made anew".to_owned(),
    };
    format!(
        "offset {offset} of topic {topic} partition {partition} is not in the log, {cause}; bring the messages back, or `legwork lanes \
         accept {topic}/{partition}` accepts the loss and starts this lane anew at kafka.start"
    )
}

/// Arrival time: the record's timestamp where the broker set it, else the earlier of the record's and now.
#[inline]
fn arrival_us(timestamp_ms: Option<i64>, is_append_time: bool, now_us: i64) -> i64 {
    match timestamp_ms.map(|timestamp_ms| timestamp_ms.saturating_mul(1_000)) {
        Some(timestamp_us) if is_append_time => timestamp_us,
        Some(timestamp_us) => timestamp_us.min(now_us),
        None => now_us,
    }
}

#[inline]
fn message<'a>(fetched: &Fetched<'a>, now_us: i64) -> Message<'a> {
    Message {
        offset: fetched.offset,
        arrival_us: arrival_us(fetched.timestamp_ms, fetched.is_append_time, now_us),
        key: fetched.key,
        value: fetched.value,
    }
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrival_is_the_brokers_time_or_the_earlier_of_two() {
        assert_eq!(arrival_us(Some(5), true, 1_000), 5_000);
        assert_eq!(arrival_us(Some(5), false, 1_000), 1_000);
        assert_eq!(arrival_us(Some(5), false, 9_000), 5_000);
        assert_eq!(arrival_us(None, false, 9_000), 9_000);
    }
}
