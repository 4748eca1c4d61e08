//! Reading one partition.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use legwork_runtime::{BatchLimit, PartitionReader, ReadOutcome};
use legwork_types::{Message, MessageBatch};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::context::{PartitionFacts, Shared, TopicFacts};
use crate::ffi::{Fetched, Item, Next, PartitionQueue};
use crate::probe::StartsAt;

/// Reads a partition's own queue.
pub(crate) struct Reader {
    queue: PartitionQueue,
    topic: Arc<str>,
    partition: i32,
    facts: Arc<PartitionFacts>,
    topic_facts: Arc<TopicFacts>,
    shared: Arc<Shared>,
    /// End of the partition when it was assigned, until librdkafka has heard a newer one.
    end_offset: i64,
    next_offset: i64,
    gone: Option<String>,
    is_troubled: bool,
}

impl Reader {
    pub(crate) fn new(queue: PartitionQueue, starts: &StartsAt, shared: &Arc<Shared>) -> Reader {
        Reader {
            queue,
            topic: starts.id.0.clone(),
            partition: starts.id.1,
            facts: shared.partition(&starts.id),
            topic_facts: shared.topic(&starts.id.0),
            shared: shared.clone(),
            end_offset: starts.end_offset,
            next_offset: starts.offset,
            gone: None,
            is_troubled: false,
        }
    }

    fn hop(&self) -> String {
        format!("topic {} partition {}", self.topic, self.partition)
    }

    fn take_error(&mut self, code: RDKafkaErrorCode, offset: i64, text: String) {
        let (topic, partition) = (&self.topic, self.partition);
        match code {
            RDKafkaErrorCode::PartitionEOF => {}
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                let offset = if offset >= 0 { offset } else { self.next_offset };
                let (low, high) = self.queue.watermarks();
                let holds = match (low, high) {
                    (Some(low), Some(high)) => format!("it holds {low} to {high}"),
                    _ => "it does not hold it".to_owned(),
                };
                self.gone = Some(format!(
                    "offset {offset} of topic {topic} partition {partition} is not in the log ({holds}): retention has passed it, or \
                     the topic was made anew; bring the messages back, or accept the loss by starting again with kafka.start"
                ));
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

    fn check_topic(&mut self) {
        if self.gone.is_none() && self.topic_facts.is_gone.load(Ordering::Acquire) {
            self.gone = Some(format!(
                "topic {} was deleted: create it and fill it again, or take it out of topics.*.names",
                self.topic
            ));
        }
    }
}

impl PartitionReader for Reader {
    fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    fn partition(&self) -> i32 {
        self.partition
    }

    fn n_partitions(&self) -> i32 {
        self.topic_facts.n_partitions.load(Ordering::Acquire)
    }

    fn read(&mut self, into: &mut MessageBatch, limit: BatchLimit) -> ReadOutcome {
        if self.gone.is_some() {
            return ReadOutcome::Gone;
        }
        let now_us = now_us();
        let (mut n_messages, mut n_bytes) = (0, 0);
        let (mut next_offset, mut error) = (self.next_offset, None);
        self.queue.read(limit.n_messages_max, |item| match item {
            Item::Message(fetched) => {
                let size = fetched.key.map_or(0, <[u8]>::len) + fetched.value.map_or(0, <[u8]>::len);
                if n_messages > 0 && n_bytes + size > limit.n_bytes_max {
                    return Next::Leave;
                }
                into.push(message(&fetched, now_us));
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
            self.take_error(code, offset, text);
        }
        if n_messages == 0 {
            self.check_topic();
        } else if self.is_troubled {
            self.is_troubled = false;
            self.shared.health.lock().well(&self.hop());
        }
        if n_messages == 0 && self.gone.is_some() { ReadOutcome::Gone } else { ReadOutcome::Messages(n_messages) }
    }

    fn gone_because(&self) -> Option<String> {
        self.gone.clone()
    }

    fn end_offset(&self) -> Option<i64> {
        let heard = self.queue.watermarks().1.unwrap_or(self.end_offset);
        // What was read lies before the end, however old the news of it.
        Some(heard.max(self.end_offset).max(self.next_offset))
    }

    fn queued_bytes(&self) -> usize {
        self.facts.queued_bytes.load(Ordering::Relaxed)
    }

    fn on_ready(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.queue.on_nonempty(wake.clone());
        // What came before the callback was set would wake nobody.
        wake();
    }

    fn set_paused(&mut self, paused: bool) {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, self.partition);
        let consumer = self.queue.consumer();
        let result = if paused { consumer.pause(&list) } else { consumer.resume(&list) };
        if let Err(error) = result {
            tracing::debug!(topic = &*self.topic, partition = self.partition, paused, %error, "pausing failed");
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
