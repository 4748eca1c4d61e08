//! Whether a topic's keys lie in the partitions they belong to, by a sample of its newest messages.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::admin::PartitionOffsets;
use crate::config::{apply, client_config};
use crate::error::KafkaError;
use crate::partitioner::Partitioner;

/// Messages of all partitions together.
const N_SAMPLED_MAX: i64 = 20_000;
/// A partition's newest ones, at most and at least.
const N_OF_PARTITION_MAX: i64 = 1_000;
const N_OF_PARTITION_MIN: i64 = 20;
const WITHIN: Duration = Duration::from_secs(15);

/// What a sample of a topic's newest messages says about its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// Messages looked at.
    pub n_sampled: usize,
    /// Those without a key.
    pub n_without_key: usize,
    /// Those whose key belongs to another partition.
    pub n_misrouted: usize,
    /// One of these: where it lies, and where it belongs.
    pub example: Option<(i32, i32)>,
    /// Another partitioner that all keys fit.
    pub fits: Option<Partitioner>,
}

/// Counts while it reads.
struct Count {
    routing: Routing,
    partitioner: Partitioner,
    n_partitions: i32,
    /// The others, as long as every key fits them.
    others: Vec<Partitioner>,
}

impl Count {
    fn new(partitioner: Partitioner, n_partitions: i32) -> Count {
        let others = [Partitioner::Murmur2, Partitioner::Crc32];
        let others = others.into_iter().filter(|other| *other != partitioner).collect();
        Count { routing: Routing::default(), partitioner, n_partitions, others }
    }

    fn add(&mut self, partition: i32, key: Option<&[u8]>) {
        self.routing.n_sampled += 1;
        let Some(key) = key else {
            self.routing.n_without_key += 1;
            return;
        };
        let n_partitions = self.n_partitions;
        let belongs = |partitioner: Partitioner| partitioner.partition(key, n_partitions).filter(|to| *to != partition);
        if let Some(to) = belongs(self.partitioner) {
            self.routing.n_misrouted += 1;
            self.routing.example.get_or_insert((partition, to));
        }
        self.others.retain(|other| belongs(*other).is_none());
    }

    fn end(mut self) -> Routing {
        if self.routing.n_misrouted > 0 {
            self.routing.fits = self.others.first().copied();
        }
        self.routing
    }
}

/// Reads a sample. *Errors*: `Option`, `Client`, `Unreachable` when no broker answers in time, `Refused`.
pub(crate) fn sample(
    bootstrap: &str,
    options: &[(String, String)],
    topic: &str,
    offsets: &[PartitionOffsets],
    partitioner: Partitioner,
) -> Result<Routing, KafkaError> {
    let n_partitions = i32::try_from(offsets.len()).unwrap_or(i32::MAX);
    let mut count = Count::new(partitioner, n_partitions);
    let n_of_partition = (N_SAMPLED_MAX / i64::from(n_partitions.max(1))).clamp(N_OF_PARTITION_MIN, N_OF_PARTITION_MAX);
    let request = "to read a sample of a topic";
    let failed = |error: &ClientError| KafkaError::from_request(bootstrap, request, error);
    let mut list = TopicPartitionList::new();
    for of in offsets.iter().filter(|of| of.high > of.low) {
        let from = Offset::Offset(of.low.max(of.high - n_of_partition));
        list.add_partition_offset(topic, of.partition, from).map_err(|error| failed(&error))?;
    }
    let mut open: HashSet<i32> = list.elements().iter().map(|element| element.partition()).collect();
    if open.is_empty() {
        return Ok(count.end());
    }
    let consumer: BaseConsumer = config(bootstrap, options).create().map_err(KafkaError::from_creation)?;
    consumer.assign(&list).map_err(|error| failed(&error))?;
    let deadline = Instant::now() + WITHIN;
    let mut last = ClientError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
    while !open.is_empty() {
        if Instant::now() >= deadline {
            return Err(failed(&last));
        }
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            // What comes while the sample is read is not part of it, so that a busy topic has an end.
            Some(Ok(message)) => {
                let end = offsets.iter().find(|of| of.partition == message.partition()).map_or(0, |of| of.high);
                if message.offset() < end {
                    count.add(message.partition(), message.key());
                }
                if message.offset() == end - 1 {
                    open.remove(&message.partition());
                    let mut read = TopicPartitionList::new();
                    read.add_partition(topic, message.partition());
                    consumer.pause(&read).map_err(|error| failed(&error))?;
                }
            }
            // The last offsets may hold no message (transactions, compaction).
            Some(Err(ClientError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => last = error,
        }
    }
    Ok(count.end())
}

fn config(bootstrap: &str, options: &[(String, String)]) -> ClientConfig {
    let mut config = client_config(bootstrap, None);
    apply(&mut config, options);
    // librdkafka wants a group even where partitions are taken by hand; it is never joined, and nothing is stored in it.
    for name in ["group.instance.id", "group.protocol", "group.remote.assignor", "partition.assignment.strategy"] {
        config.remove(name);
    }
    config
        .set("group.id", "legwork-check")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", "16384");
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed_by(partitioner: Partitioner, n_strays: usize) -> Routing {
        let mut count = Count::new(Partitioner::Murmur2, 7);
        for number in 0..200 {
            let key = format!("key-{number}");
            let partition = partitioner.partition(key.as_bytes(), 7).unwrap_or(0);
            count.add(if number < n_strays { (partition + 1) % 7 } else { partition }, Some(key.as_bytes()));
        }
        count.add(0, None);
        count.end()
    }

    #[test]
    fn keys_are_counted_where_they_do_not_belong() {
        let well = routed_by(Partitioner::Murmur2, 0);
        assert_eq!(well, Routing { n_sampled: 201, n_without_key: 1, ..Routing::default() });
        let strays = routed_by(Partitioner::Murmur2, 3);
        assert_eq!((strays.n_misrouted, strays.fits), (3, None));
        assert!(strays.example.is_some_and(|(lies, belongs)| lies == (belongs + 1) % 7), "{strays:?}");
        let other = routed_by(Partitioner::Crc32, 0);
        assert!(other.n_misrouted > 100 && other.fits == Some(Partitioner::Crc32), "{other:?}");
    }
}
