//! What librdkafka tells its clients: log lines, errors, statistics, rebalances.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use serde::Deserialize;

use crate::health::{BrokerSeen, BrokerState, Health, Seen};
use crate::topic::Topic;

/// A partition.
pub(crate) type PartitionId = (Arc<str>, i32);

/// What the group decided about this member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rebalance {
    Assign(Vec<PartitionId>),
    Revoke {
        partitions: Vec<PartitionId>,
        /// Others may read them already: the group has gone on without this member.
        lost: bool,
    },
}

/// The fetch queue of a partition that is read.
#[derive(Debug, Default)]
pub(crate) struct QueueGauge {
    /// Bytes fetched and not read, a second ago at most.
    pub(crate) queued_bytes: AtomicUsize,
}

/// What the clients' callbacks leave for the source to find.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) health: Mutex<Health>,
    pub(crate) rebalances: Mutex<VecDeque<Rebalance>>,
    pub(crate) topics: Mutex<HashMap<Arc<str>, Arc<Topic>>>,
    /// Partitions that librdkafka fetches, and no others.
    pub(crate) partitions: Mutex<HashMap<PartitionId, Arc<QueueGauge>>>,
    pub(crate) queued_bytes: Arc<AtomicUsize>,
    /// The group has fenced the consumer: somebody wants to know who has its instance id.
    pub(crate) is_fenced: AtomicBool,
    /// The consumer has not heard from the group for longer than its session lasts, and the group has given it nothing since. librdkafka
    /// forgets that an assignment was lost when a partition is assigned before the loss was told.
    is_session_over: AtomicBool,
    /// Somebody waits for news of the topics.
    pub(crate) check_now: AtomicBool,
    /// The source is closing: partitions are let go without asking.
    pub(crate) is_closing: AtomicBool,
    commit_warned: Mutex<Option<Instant>>,
}

impl Shared {
    pub(crate) fn topic(&self, topic: &Arc<str>) -> Arc<Topic> {
        self.topics.lock().entry(topic.clone()).or_default().clone()
    }

    pub(crate) fn partition(&self, id: &PartitionId) -> Arc<QueueGauge> {
        self.partitions.lock().entry(id.clone()).or_default().clone()
    }
}

/// Context of the consumer and of the client that only asks.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) seen: Seen,
    /// Another consumer is in its place: what it still holds it lets go by itself.
    pub(crate) is_retired: Arc<AtomicBool>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "SESSTMOUT" && !self.is_retired.load(Ordering::Acquire) {
            self.shared.is_session_over.store(true, Ordering::Release);
        }
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
        if let Some(code) = error.rdkafka_error_code() {
            self.shared.health.lock().client_error(self.seen, code, reason, Instant::now());
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) => self.take_statistics(&statistics),
            Err(error) => tracing::debug!(%error, "librdkafka's statistics cannot be read"),
        }
    }
}

impl ConsumerContext for Context {
    /// Takes note; the source calls (un)assign once the lanes are ready for it. librdkafka waits for that call, and serves heartbeats
    /// meanwhile.
    fn rebalance(&self, consumer: &BaseConsumer<Context>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let is_assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.is_retired.load(Ordering::Acquire) {
            if !is_assign {
                unassign(consumer, list);
            }
            return;
        }
        if self.shared.is_closing.load(Ordering::Acquire) {
            if !is_assign {
                let_go(consumer, &self.shared, &ids(list));
            }
            return;
        }
        let is_session_over = self.shared.is_session_over.swap(false, Ordering::AcqRel);
        let rebalance = if is_assign {
            Rebalance::Assign(ids(list))
        } else {
            Rebalance::Revoke { partitions: ids(list), lost: is_session_over || consumer.assignment_lost() }
        };
        self.shared.rebalances.lock().push_back(rebalance);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        const EVERY: Duration = Duration::from_secs(30);
        let Err(error) = result else { return };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) {
            return;
        }
        let mut warned = self.shared.commit_warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(%error, "offsets were not committed to the consumer group; it serves monitoring only");
        }
    }
}

fn ids(list: &TopicPartitionList) -> Vec<PartitionId> {
    list.elements().iter().map(|element| (Arc::from(element.topic()), element.partition())).collect()
}

/// Gives partitions back to the group. Those that are not fetched were never assigned as librdkafka understands it, which refuses a list
/// that names them.
pub(crate) fn let_go(consumer: &BaseConsumer<Context>, shared: &Shared, partitions: &[PartitionId]) {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    let mut fetched = shared.partitions.lock();
    for id in partitions.iter().filter(|id| fetched.remove(id).is_some()) {
        list.add_partition(&id.0, id.1);
    }
    drop(fetched);
    unassign(consumer, &list);
}

fn unassign(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) {
    let result = match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        _ => consumer.unassign(),
    };
    if let Err(error) = result {
        tracing::warn!(%error, "partitions could not be given back to the consumer group");
    }
}

/// librdkafka's log lines as ours. Lost connections are told as troubles of their hop, so here they are detail.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let is_detail = matches!(facility, "FAIL" | "ERROR" | "CONFWARN" | "MOCK");
    match level {
        _ if is_detail => tracing::debug!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

// The few of librdkafka's statistics that are used (its STATISTICS.md).
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, BrokerStatistics>,
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    nodename: String,
    nodeid: i32,
    state: String,
    source: String,
}

#[derive(Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    fetchq_size: usize,
}

impl Context {
    fn take_statistics(&self, statistics: &Statistics) {
        let brokers: Vec<BrokerSeen> = statistics
            .brokers
            .values()
            // The coordinator's own entry has no name until it is known.
            .filter(|broker| !broker.nodename.is_empty() && broker.source != "internal")
            .map(|broker| BrokerSeen {
                address: broker.nodename.clone(),
                state: match broker.state.as_str() {
                    "UP" | "REAUTH" => BrokerState::Up,
                    "INIT" => BrokerState::Idle,
                    _ => BrokerState::Down,
                },
                is_bootstrap: broker.nodeid < 0 && broker.source == "configured",
            })
            .collect();
        self.shared.health.lock().brokers(self.seen, &brokers, Instant::now());
        if self.seen == Seen::Consumer {
            self.take_queues(statistics);
        }
    }

    fn take_queues(&self, statistics: &Statistics) {
        let mut total_bytes = 0;
        let partitions = self.shared.partitions.lock();
        for ((topic, partition), facts) in partitions.iter() {
            let queued_bytes = statistics
                .topics
                .get(&**topic)
                .and_then(|topic| topic.partitions.get(&partition.to_string()))
                .map_or(0, |statistics| statistics.fetchq_size);
            facts.queued_bytes.store(queued_bytes, Ordering::Relaxed);
            total_bytes += queued_bytes;
        }
        self.shared.queued_bytes.store(total_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn statistics_give_the_bytes_of_assigned_partitions() {
        let context = Context { shared: Arc::default(), seen: Seen::Consumer, is_retired: Arc::default() };
        let facts = context.shared.partition(&("a".into(), 1));
        context.stats_raw(
            br#"{"brokers":{"x":{"nodename":"h:1","nodeid":1,"state":"UP","source":"learned"}},"topics":{"a":{"partitions":
            {"0":{"partition":0,"fetchq_size":5},"1":{"partition":1,"fetchq_size":7,"hi_offset":3}}}}}"#,
        );
        assert_eq!(facts.queued_bytes.load(Ordering::Relaxed), 7);
        assert_eq!(context.shared.queued_bytes.load(Ordering::Relaxed), 7);
    }
}
