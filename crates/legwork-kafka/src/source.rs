//! The consumer group as a source of partitions.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use legwork_runtime::{LogSource, PartitionReader, SourceEvent};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config::KafkaConfig;
use crate::context::{Context, PartitionId, Rebalance, Shared, let_go};
use crate::error::{KafkaError, reason};
use crate::ffi::PartitionQueue;
use crate::health::Seen;
use crate::probe::{Answer, Probe, Question, StartsAt};
use crate::reader::Reader;

/// Where a partition starts instead of at [`KafkaConfig::start`]: (topic, partition) to next offset, from a checkpoint. Called on a
/// thread of its own that may wait.
pub type StartOffset = Arc<dyn Fn(&str, i32) -> Option<i64> + Send + Sync>;

/// How long lanes may take to let go of a partition. Members that wait longer are thrown out of their group anyway
/// (`max.poll.interval.ms`, 5 min).
const LET_GO_WITHIN: Duration = Duration::from_secs(60);
/// While something is about to happen that librdkafka does not wake us for.
const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_millis(100);
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// What the group waits for us to do.
enum Pending {
    Nothing,
    /// Partitions are assigned; where they start is asked.
    Starting {
        assignment: u64,
        partitions: Vec<PartitionId>,
        is_asked: bool,
    },
    /// Partitions go; their lanes are letting go.
    LettingGo {
        partitions: Vec<PartitionId>,
        is_done: Arc<AtomicBool>,
        since: Instant,
    },
}

/// A member of a Kafka consumer group. Its thread is the one that calls [`LogSource::poll`], which never waits for a broker: another
/// thread asks them. The consumer is made once the brokers have answered, since its memory is divided by the number of partitions.
pub struct KafkaSource {
    config: KafkaConfig,
    shared: Arc<Shared>,
    probe: Option<Probe>,
    consumer: Option<Arc<BaseConsumer<Context>>>,
    pending: Pending,
    n_assignments: u64,
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("config", &self.config).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// A source; it connects when it is polled. *Errors*: `Option`, `Client` when librdkafka refuses the options.
    pub fn new(config: KafkaConfig) -> Result<KafkaSource, KafkaError> {
        KafkaSource::with_start_offsets(config, None)
    }

    /// A source whose partitions may start at offsets of their own. *Errors*: as [`KafkaSource::new`].
    pub fn with_start_offsets(
        config: KafkaConfig,
        start_offset: Option<StartOffset>,
    ) -> Result<KafkaSource, KafkaError> {
        // Wrong options show at once, not when the brokers have answered.
        config.consumer(1).create_native_config().map_err(KafkaError::from_creation)?;
        let shared = Arc::<Shared>::default();
        let probe = Probe::start(&config, shared.clone(), start_offset)?;
        Ok(KafkaSource {
            config,
            shared,
            probe: Some(probe),
            consumer: None,
            pending: Pending::Nothing,
            n_assignments: 0,
        })
    }

    /// Bytes fetched and not yet read over all partitions, a second old at most; goes on being updated while the source lives.
    pub fn queued_bytes_total(&self) -> Arc<AtomicUsize> {
        self.shared.queued_bytes.clone()
    }

    fn take_answers(&mut self, events: &mut Vec<SourceEvent>) {
        while let Some(answer) = self.probe.as_ref().and_then(Probe::answer) {
            match answer {
                Answer::Ready { n_partitions } => self.connect(n_partitions),
                Answer::Starts { assignment, starts } => self.assign(assignment, starts, events),
            }
        }
    }

    fn connect(&mut self, n_partitions: usize) {
        if self.consumer.is_some() {
            return;
        }
        let context = Context { shared: self.shared.clone(), seen: Seen::Consumer };
        let made: Result<BaseConsumer<Context>, ClientError> =
            self.config.consumer(n_partitions).create_with_context(context);
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        let subscribed = made.and_then(|consumer| consumer.subscribe(&topics).map(|()| consumer));
        match subscribed {
            Ok(consumer) => self.consumer = Some(Arc::new(consumer)),
            Err(error) => self.shared.health.lock().fatal(KafkaError::from_creation(error).to_string()),
        }
    }

    /// Serves librdkafka: rebalances, errors, statistics, log lines.
    fn serve(&self, wait: Duration) {
        let Some(consumer) = &self.consumer else {
            std::thread::sleep(wait.min(SHORT));
            return;
        };
        match consumer.poll(wait) {
            None => {}
            Some(Err(error)) => self.take_error(&error),
            // Every partition is split off before it is assigned.
            Some(Ok(_)) => tracing::error!("a message came outside of its partition's queue: its lane will miss it"),
        }
    }

    fn take_error(&self, error: &ClientError) {
        let hop = format!("group {}", self.config.group);
        let mut health = self.shared.health.lock();
        match error {
            ClientError::MessageConsumptionFatal(code) => {
                let detail = self.consumer.as_ref().and_then(|consumer| consumer.client().fatal_error());
                let detail = detail.map_or_else(String::new, |(_, text)| format!(" ({text})"));
                let advice = match code {
                    RDKafkaErrorCode::FencedInstanceId => ": another process runs with the same instance.id",
                    _ => "",
                };
                health.fatal(format!("{hop}: {code}{detail}{advice}"));
            }
            ClientError::MessageConsumption(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                health.trouble(
                    &hop,
                    &format!("{hop} may not be joined: grant READ on it to this user"),
                    Instant::now(),
                );
            }
            ClientError::MessageConsumption(RDKafkaErrorCode::PollExceeded) => {
                let message =
                    format!("{hop}: this process stood still for longer than max.poll.interval.ms and was thrown out");
                health.trouble(&hop, &message, Instant::now());
            }
            // Brokers and topics are told as hops of their own, by the error callback and by the probe.
            error => tracing::debug!(%error, "kafka consumer error"),
        }
    }

    fn take_rebalances(&mut self, events: &mut Vec<SourceEvent>) {
        while matches!(self.pending, Pending::Nothing) {
            let Some(rebalance) = self.shared.rebalances.lock().pop_front() else { return };
            match rebalance {
                Rebalance::Assign(partitions) => {
                    self.n_assignments += 1;
                    self.pending = Pending::Starting { assignment: self.n_assignments, partitions, is_asked: false };
                }
                Rebalance::Revoke(partitions) if partitions.is_empty() => self.release(&partitions),
                Rebalance::Revoke(partitions) => {
                    let is_done = Arc::new(AtomicBool::new(false));
                    let done = Done(is_done.clone());
                    events.push(SourceEvent::Revoked {
                        partitions: partitions.clone(),
                        done: Box::new(move || drop(done)),
                    });
                    self.pending = Pending::LettingGo { partitions, is_done, since: Instant::now() };
                }
            }
        }
    }

    /// Goes on with what is pending, where it can.
    fn go_on(&mut self, events: &mut Vec<SourceEvent>) {
        match &mut self.pending {
            Pending::Nothing => {}
            Pending::Starting { assignment, partitions, is_asked } => {
                let assignment = *assignment;
                if partitions.is_empty() {
                    self.assign(assignment, Vec::new(), events);
                } else if !*is_asked {
                    let question = Question { assignment, partitions: partitions.clone() };
                    *is_asked = self.probe.as_ref().is_some_and(|probe| probe.ask(question));
                }
            }
            Pending::LettingGo { partitions, is_done, since } => {
                let is_late = since.elapsed() >= LET_GO_WITHIN;
                if is_late {
                    tracing::warn!(
                        ?partitions,
                        "lanes did not let go in time; their partitions are given back all the same"
                    );
                }
                if is_late || is_done.load(Ordering::Acquire) {
                    let partitions = std::mem::take(partitions);
                    self.release(&partitions);
                }
            }
        }
    }

    /// Starts fetching, each partition into its own queue.
    fn assign(&mut self, assignment: u64, starts: Vec<StartsAt>, events: &mut Vec<SourceEvent>) {
        let Some(consumer) = self.consumer.clone() else { return };
        if !matches!(self.pending, Pending::Starting { assignment: current, .. } if current == assignment) {
            return;
        }
        self.pending = Pending::Nothing;
        let hop = format!("group {}", self.config.group);
        let mut list = TopicPartitionList::with_capacity(starts.len());
        let mut readers: Vec<Box<dyn PartitionReader>> = Vec::with_capacity(starts.len());
        for start in &starts {
            let (topic, partition) = (&*start.id.0, start.id.1);
            match PartitionQueue::split(&consumer, topic, partition) {
                Some(queue) => readers.push(Box::new(Reader::new(queue, start, &self.shared))),
                None => tracing::error!(topic, partition, "an assigned partition has no queue"),
            }
            if let Err(error) = list.add_partition_offset(topic, partition, Offset::Offset(start.offset)) {
                tracing::error!(topic, partition, %error, "an offset cannot be expressed");
            }
        }
        let assigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&list),
            _ => consumer.assign(&list),
        };
        let mut health = self.shared.health.lock();
        match assigned {
            Ok(()) => {
                health.well(&hop);
                if !readers.is_empty() {
                    events.push(SourceEvent::Assigned(readers));
                }
            }
            Err(error) => {
                health.trouble(&hop, &format!("{hop}: partitions cannot be assigned: {error}"), Instant::now());
            }
        }
    }

    /// Answers every rebalance that is open: librdkafka waits for that before it closes.
    fn answer_rebalances(&mut self, consumer: &BaseConsumer<Context>) {
        let pending = match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => None,
            Pending::Starting { partitions, .. } => Some(Rebalance::Assign(partitions)),
            Pending::LettingGo { partitions, .. } => Some(Rebalance::Revoke(partitions)),
        };
        let open: Vec<Rebalance> = pending.into_iter().chain(self.shared.rebalances.lock().drain(..)).collect();
        for rebalance in open {
            match rebalance {
                Rebalance::Revoke(partitions) => release(consumer, &partitions),
                // Nothing is taken; what is not assigned need not be let go.
                Rebalance::Assign(_) => match consumer.rebalance_protocol() {
                    RebalanceProtocol::Cooperative => drop(consumer.incremental_assign(&TopicPartitionList::new())),
                    _ => drop(consumer.assign(&TopicPartitionList::new())),
                },
            }
        }
    }

    /// Gives partitions back to the group.
    fn release(&mut self, partitions: &[PartitionId]) {
        self.pending = Pending::Nothing;
        if let Some(consumer) = &self.consumer {
            release(consumer, partitions);
        }
        let gone: HashSet<&PartitionId> = partitions.iter().collect();
        self.shared.partitions.lock().retain(|id, _| !gone.contains(id));
    }
}

fn release(consumer: &BaseConsumer<Context>, partitions: &[PartitionId]) {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    let_go(consumer, &list);
}

/// Tells the source that a partition's lanes have let go, when dropped: also by a caller that never calls `done`.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl LogSource for KafkaSource {
    fn poll(&mut self, timeout: Duration) -> Vec<SourceEvent> {
        let deadline = Instant::now() + timeout;
        let mut events = Vec::new();
        loop {
            self.take_answers(&mut events);
            self.go_on(&mut events);
            let left = deadline.saturating_duration_since(Instant::now());
            let slice = if matches!(self.pending, Pending::Nothing) { LONG } else { SHORT };
            self.serve(if events.is_empty() { left.min(slice) } else { Duration::ZERO });
            self.take_rebalances(&mut events);
            self.shared.health.lock().drain(&mut events);
            if !events.is_empty() || Instant::now() >= deadline {
                return events;
            }
        }
    }

    fn commit(&mut self, offsets: &[(Arc<str>, i32, i64)]) {
        let Some(consumer) = self.consumer.as_ref().filter(|_| !offsets.is_empty()) else { return };
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (topic, partition, next_offset) in offsets {
            if let Err(error) = list.add_partition_offset(topic, *partition, Offset::Offset(*next_offset)) {
                tracing::debug!(%error, "an offset cannot be expressed");
            }
        }
        if let Err(error) = consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(reason = reason(&error), "offsets were not handed to librdkafka");
        }
    }

    fn close(&mut self) {
        self.probe = None;
        self.shared.is_closing.store(true, Ordering::Release);
        let Some(consumer) = self.consumer.take() else { return };
        self.answer_rebalances(&consumer);
        // Leaving may wait for brokers that do not answer; a process that ends must not.
        let (closed, is_closed) = sync_channel(1);
        let closing = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || {
            drop(consumer);
            let _nobody_waits = closed.send(());
        });
        if closing.is_ok() && is_closed.recv_timeout(CLOSE_WITHIN).is_err() {
            tracing::warn!("the consumer group was not left in time; the brokers will notice by themselves");
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.close();
    }
}
