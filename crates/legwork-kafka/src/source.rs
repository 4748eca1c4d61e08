//! The consumer group as a source of partitions.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use legwork_runtime::{ClaimPartition, LogSource, PartitionReader, SourceEvent, Standing};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::claims::{Claims, Fate};
use crate::config::KafkaConfig;
use crate::context::{Context, PartitionId, Rebalance, Shared, let_go};
use crate::error::{KafkaError, reason};
use crate::ffi::PartitionQueue;
use crate::group::Orphans;
use crate::health::Seen;
use crate::probe::{Answer, Probe, Question, Start};
use crate::reader::{Reader, Slot};

/// How long lanes may take to let go of a partition. Members that wait longer are thrown out of their group anyway
/// (`max.poll.interval.ms`, 5 min).
const LET_GO_WITHIN: Duration = Duration::from_secs(60);
/// While something is about to happen that librdkafka does not wake us for.
const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_millis(100);
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Partitions go; their lanes are letting go.
struct LettingGo {
    partitions: Vec<PartitionId>,
    lost: bool,
    /// Those whose claims are under way.
    claims: HashSet<PartitionId>,
    /// Held by each `done` that was handed out.
    open: Arc<()>,
    since: Instant,
}

/// A member of a Kafka consumer group. Its thread is the one that calls [`LogSource::poll`], which never waits for a broker: another
/// thread asks them, and others yet claim partitions. The consumer is made once the brokers have answered, since its memory is divided by
/// the number of partitions.
///
/// What librdkafka is told: with the cooperative protocols, that an assignment is accepted at once, and each partition when its claim has
/// ended, so that neither the group nor the other partitions wait for a slow claim. With the eager protocol all have to start together.
pub struct KafkaSource {
    config: KafkaConfig,
    shared: Arc<Shared>,
    probe: Option<Probe>,
    consumer: Option<Arc<BaseConsumer<Context>>>,
    /// The consumer's context asks this.
    is_retired: Arc<AtomicBool>,
    claims: Claims,
    /// Questions that the probe had no room for.
    unasked: VecDeque<Question>,
    /// Claimed partitions that wait for the others of an eager assignment.
    eager: Option<Vec<Start>>,
    /// Partitions handed out and not taken away, with their queues; halted ones have none.
    held: HashMap<PartitionId, Slot>,
    letting_go: Option<LettingGo>,
    /// The group has said which partitions are this member's, and has not gone on without it since.
    is_assigned: bool,
    /// Partitions of all topics when the consumer was made.
    n_partitions: usize,
    /// Partitions for whose sake the group was made to share out anew: once is enough.
    adopted: BTreeSet<PartitionId>,
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("config", &self.config).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// A source; it connects when it is polled. *Errors*: `Option`, `Client` when librdkafka refuses the options.
    pub fn new(config: KafkaConfig) -> Result<KafkaSource, KafkaError> {
        KafkaSource::with_claims(config, None)
    }

    /// A source whose partitions are claimed before they are read, and may start at offsets of their own. *Errors*: as
    /// [`KafkaSource::new`].
    pub fn with_claims(config: KafkaConfig, claim: Option<ClaimPartition>) -> Result<KafkaSource, KafkaError> {
        // Wrong options show at once, not when the brokers have answered.
        config.consumer(1).create_native_config().map_err(KafkaError::from_creation)?;
        let shared = Arc::<Shared>::default();
        let probe = Probe::start(&config, shared.clone(), claim)?;
        Ok(KafkaSource {
            config,
            shared,
            probe: Some(probe),
            consumer: None,
            is_retired: Arc::default(),
            claims: Claims::default(),
            unasked: VecDeque::new(),
            eager: None,
            held: HashMap::new(),
            letting_go: None,
            is_assigned: false,
            n_partitions: 1,
            adopted: BTreeSet::new(),
        })
    }

    /// Bytes fetched and not yet read over all partitions, a second old at most; goes on being updated while the source lives.
    pub fn queued_bytes_total(&self) -> Arc<AtomicUsize> {
        self.shared.queued_bytes.clone()
    }

    fn take_answers(&mut self, events: &mut Vec<SourceEvent>) {
        let mut starts = Vec::new();
        while let Some(answer) = self.probe.as_ref().and_then(Probe::answer) {
            match answer {
                Answer::Ready { n_partitions } => {
                    self.n_partitions = n_partitions;
                    self.connect();
                }
                Answer::Orphans(orphans) => self.adopt(&orphans),
                Answer::Fenced { by_another: false } => self.join_again(events),
                Answer::Fenced { by_another: true } => {
                    let message = format!(
                        "group {}: another process runs with the same instance.id: give each its own, or stop one, then start this one again",
                        self.config.group
                    );
                    self.shared.health.lock().fatal(message);
                }
                Answer::Dropped(id) => self.claim_ended(&id, None, &mut starts, events),
                Answer::Claimed(start) => {
                    let id = (start.facts.topic.clone(), start.facts.partition);
                    self.claim_ended(&id, Some(start), &mut starts, events);
                }
            }
        }
        if let Some(eager) = &mut self.eager {
            eager.append(&mut starts);
            if !self.claims.is_empty() {
                return;
            }
            starts = self.eager.take().unwrap_or_default();
        } else if starts.is_empty() {
            return;
        }
        self.start(starts, events);
    }

    /// A claim has ended; `start` where the partition is claimed.
    fn claim_ended(
        &mut self,
        id: &PartitionId,
        start: Option<Start>,
        starts: &mut Vec<Start>,
        events: &mut Vec<SourceEvent>,
    ) {
        let fate = self.claims.ended(id);
        if fate == Fate::Take {
            starts.extend(start);
            return;
        }
        let letting_go = self
            .letting_go
            .as_mut()
            .and_then(|letting_go| letting_go.claims.remove(id).then(|| (letting_go.lost, letting_go.open.clone())));
        if start.is_some() {
            let (lost, open) = letting_go.unzip();
            events.push(revoked(vec![id.clone()], lost.unwrap_or(false), open));
        }
        if fate == Fate::GiveBackAndClaim {
            self.claim(id);
        }
    }

    fn claim(&mut self, id: &PartitionId) {
        if let Some(is_dropped) = self.claims.want(id) {
            self.unasked.push_back(Question { id: id.clone(), is_dropped });
        }
    }

    fn ask(&mut self) {
        let Some(probe) = &self.probe else { return };
        while let Some(question) = self.unasked.pop_front() {
            if let Err(question) = probe.ask(question) {
                self.unasked.push_front(question);
                return;
            }
        }
    }

    fn connect(&mut self) {
        if self.consumer.is_some() {
            return;
        }
        self.is_retired = Arc::default();
        let is_retired = self.is_retired.clone();
        let context = Context { shared: self.shared.clone(), seen: Seen::Consumer, is_retired };
        let made: Result<BaseConsumer<Context>, ClientError> =
            self.config.consumer(self.n_partitions).create_with_context(context);
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        let subscribed = made.and_then(|consumer| consumer.subscribe(&topics).map(|()| consumer));
        match subscribed {
            Ok(consumer) => self.consumer = Some(Arc::new(consumer)),
            Err(error) => self.shared.health.lock().fatal(KafkaError::from_creation(error).to_string()),
        }
    }

    /// Puts another consumer in the place of one that the group has fenced for a ghost of its own. Its lanes let go: others may have read
    /// their partitions meanwhile.
    fn join_again(&mut self, events: &mut Vec<SourceEvent>) {
        let Some(consumer) = self.consumer.take() else { return };
        let n_partitions = self.held.len();
        tracing::warn!(
            group = self.config.group,
            n_partitions,
            "the group took this process for two: its partitions are let go, and it joins again"
        );
        self.is_retired.store(true, Ordering::Release);
        self.answer_rebalances(&consumer);
        let claiming: Vec<PartitionId> = self.claims.ids().cloned().collect();
        for id in &claiming {
            self.claims.unwant(id);
        }
        let held: Vec<PartitionId> = self.held.keys().cloned().collect();
        if !held.is_empty() {
            events.push(revoked(held.clone(), true, None));
        }
        self.fence(&held);
        self.shared.partitions.lock().clear();
        self.is_assigned = false;
        close_behind(consumer);
        self.connect();
    }

    /// Makes the group share out partitions that are nobody's: this member unsubscribes from their topics and subscribes again. Their other
    /// lanes let go meanwhile; lanes of other topics read on.
    fn adopt(&mut self, Orphans { partitions, first_held }: &Orphans) {
        let is_this_one = first_held.as_ref().is_none_or(|first| self.held.contains_key(first));
        let Some(consumer) = self.consumer.as_ref().filter(|_| is_this_one && !partitions.is_subset(&self.adopted))
        else {
            return;
        };
        tracing::warn!(?partitions, "partitions that were added belong to no member of the group: it shares out anew");
        let all: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        let others: Vec<&str> =
            all.iter().copied().filter(|topic| partitions.iter().all(|(of, _)| **of != **topic)).collect();
        let unsubscribed = match others.is_empty() {
            true => {
                consumer.unsubscribe();
                Ok(())
            }
            false => consumer.subscribe(&others),
        };
        // Where the first round is still under way, librdkafka starts the second one after it.
        if let Err(error) = unsubscribed.and_then(|()| consumer.subscribe(&all)) {
            let message = format!("group {}: topics cannot be subscribed to again: {error}", self.config.group);
            self.shared.health.lock().fatal(message);
        }
        self.adopted.extend(partitions.iter().cloned());
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
                if *code == RDKafkaErrorCode::FencedInstanceId {
                    let message = format!("{hop} has another member with this instance.id: looking who it is");
                    health.trouble(&hop, &message, Instant::now());
                    self.shared.is_fenced.store(true, Ordering::Release);
                    return;
                }
                let detail = self.consumer.as_ref().and_then(|consumer| consumer.client().fatal_error());
                let detail = detail.map_or_else(String::new, |(_, text)| format!(" ({text})"));
                health.fatal(format!("{hop}: {code}{detail}"));
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
        while self.letting_go.is_none() {
            let Some(rebalance) = self.shared.rebalances.lock().pop_front() else { return };
            match rebalance {
                Rebalance::Assign(partitions) => self.assigned(&partitions, events),
                Rebalance::Revoke { partitions, lost } => self.revoke(partitions, lost, events),
            }
        }
    }

    fn assigned(&mut self, partitions: &[PartitionId], events: &mut Vec<SourceEvent>) {
        let Some(consumer) = &self.consumer else { return };
        let is_eager = !matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        self.is_assigned = true;
        for id in partitions {
            self.claim(id);
        }
        if is_eager {
            self.eager = Some(Vec::new());
        } else {
            // The group goes on, and so do the partitions that are being read.
            self.start(Vec::new(), events);
        }
    }

    fn revoke(&mut self, partitions: Vec<PartitionId>, lost: bool, events: &mut Vec<SourceEvent>) {
        self.is_assigned &= !lost;
        if lost && !partitions.is_empty() {
            self.tell_lost(partitions.len());
            // Others may read them already.
            for id in &partitions {
                if let Some(slot) = self.held.get(id) {
                    slot.lock().take();
                }
            }
        }
        let claims = partitions.iter().filter(|id| self.claims.unwant(id)).cloned().collect();
        let open = Arc::new(());
        // Claimed, and waiting for the others of an eager assignment.
        let waiting = self.eager.take().into_iter().flatten().map(|start| (start.facts.topic, start.facts.partition));
        let waiting: HashSet<PartitionId> = waiting.collect();
        let is_out = |id: &&PartitionId| self.held.contains_key(*id) || waiting.contains(*id);
        let handed_out: Vec<PartitionId> = partitions.iter().filter(is_out).cloned().collect();
        if !handed_out.is_empty() {
            events.push(revoked(handed_out, lost, Some(open.clone())));
        }
        self.letting_go = Some(LettingGo { partitions, lost, claims, open, since: Instant::now() });
        self.release_if_done();
    }

    fn tell_lost(&self, n_partitions: usize) {
        let hop = format!("group {}", self.config.group);
        let message = format!(
            "{hop} has gone on without this process, which stood still or was cut off from the brokers for longer than \
             session.timeout.ms, or another one took its place: {n_partitions} partitions were lost and may be read by others; it joins \
             again by itself"
        );
        self.shared.health.lock().trouble(&hop, &message, Instant::now());
    }

    fn release_if_done(&mut self) {
        let Some(letting_go) = &mut self.letting_go else { return };
        let is_late = letting_go.since.elapsed() >= LET_GO_WITHIN;
        // What the lanes did before they let go has happened before this.
        let is_done = letting_go.claims.is_empty() && Arc::get_mut(&mut letting_go.open).is_some();
        if is_late && !is_done {
            let partitions = &letting_go.partitions;
            tracing::warn!(?partitions, "lanes did not let go in time; their partitions are given back all the same");
        }
        if !is_late && !is_done {
            return;
        }
        if let Some(LettingGo { partitions, .. }) = self.letting_go.take() {
            self.release(&partitions);
        }
    }

    /// Starts fetching, each partition into its own queue.
    fn start(&mut self, starts: Vec<Start>, events: &mut Vec<SourceEvent>) {
        let Some(consumer) = self.consumer.clone() else { return };
        let hop = format!("group {}", self.config.group);
        let ids: Vec<PartitionId> =
            starts.iter().map(|start| (start.facts.topic.clone(), start.facts.partition)).collect();
        let mut list = TopicPartitionList::with_capacity(starts.len());
        let mut readers: Vec<Box<dyn PartitionReader>> = Vec::with_capacity(starts.len());
        for Start { facts, start } in starts {
            let id = (facts.topic.clone(), facts.partition);
            let reader = match start {
                Err(why) => Reader::halted(facts, why, &self.shared),
                Ok(offset) => match split(&consumer, &id, offset, &mut list) {
                    Ok(queue) => {
                        let slot = Slot::default();
                        *slot.lock() = Some(queue);
                        self.held.insert(id.clone(), slot.clone());
                        Reader::new(slot, facts, offset, &self.shared)
                    }
                    Err(why) => Reader::halted(facts, why, &self.shared),
                },
            };
            self.held.entry(id).or_default();
            readers.push(Box::new(reader));
        }
        let assigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&list),
            _ => consumer.assign(&list),
        };
        match assigned {
            Ok(()) => {
                self.shared.health.lock().well(&hop);
                if !readers.is_empty() {
                    events.push(SourceEvent::Assigned(readers));
                }
            }
            Err(error) => {
                let message = format!("{hop}: partitions cannot be assigned: {error}");
                self.shared.health.lock().trouble(&hop, &message, Instant::now());
                self.fence(&ids);
                self.shared.partitions.lock().retain(|id, _| !ids.contains(id));
                if !ids.is_empty() {
                    events.push(revoked(ids, true, None));
                }
            }
        }
    }

    /// Takes the queues from readers: from now on they give nothing.
    fn fence(&mut self, partitions: &[PartitionId]) {
        for id in partitions {
            if let Some(slot) = self.held.remove(id) {
                slot.lock().take();
            }
        }
    }

    /// Answers every rebalance that is open: librdkafka waits for that before it closes.
    fn answer_rebalances(&mut self, consumer: &BaseConsumer<Context>) {
        let letting_go = self.letting_go.take();
        let letting_go = letting_go.map(|open| Rebalance::Revoke { partitions: open.partitions, lost: open.lost });
        let eager = self.eager.take().map(|_| Rebalance::Assign(Vec::new()));
        let rebalances = std::mem::take(&mut *self.shared.rebalances.lock());
        for rebalance in eager.into_iter().chain(letting_go).chain(rebalances) {
            match rebalance {
                Rebalance::Revoke { partitions, .. } => let_go(consumer, &self.shared, &partitions),
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
        self.fence(partitions);
        if let Some(consumer) = &self.consumer {
            let_go(consumer, &self.shared, partitions);
        }
    }
}

/// Closes a consumer on a thread of its own: leaving may wait for brokers that do not answer. *Returns* what tells when it is done.
fn close_behind(consumer: Arc<BaseConsumer<Context>>) -> Receiver<()> {
    let (closed, is_closed) = sync_channel(1);
    let closing = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || {
        drop(consumer);
        let _nobody_waits = closed.send(());
    });
    if let Err(error) = closing {
        tracing::warn!(%error, "no thread could be started to leave the consumer group");
    }
    is_closed
}

/// Splits off a partition's queue, and adds the partition to those to be fetched.
fn split(
    consumer: &Arc<BaseConsumer<Context>>,
    (topic, partition): &PartitionId,
    offset: i64,
    list: &mut TopicPartitionList,
) -> Result<PartitionQueue, String> {
    let queue = PartitionQueue::split(consumer, topic, *partition)
        .ok_or_else(|| format!("librdkafka has no queue for topic {topic} partition {partition}: start again"))?;
    list.add_partition_offset(topic, *partition, Offset::Offset(offset)).map_err(|error| {
        format!("offset {offset} of topic {topic} partition {partition} cannot be read from: {error}")
    })?;
    Ok(queue)
}

/// Partitions that go. `done` lets go of `open` when it is called, or dropped by a caller that never calls it.
fn revoked(partitions: Vec<PartitionId>, lost: bool, open: Option<Arc<()>>) -> SourceEvent {
    SourceEvent::Revoked { partitions, lost, done: Box::new(move || drop(open)) }
}

impl LogSource for KafkaSource {
    fn poll(&mut self, timeout: Duration) -> Vec<SourceEvent> {
        let deadline = Instant::now() + timeout;
        let mut events = Vec::new();
        loop {
            self.take_answers(&mut events);
            self.release_if_done();
            self.ask();
            let left = deadline.saturating_duration_since(Instant::now());
            let is_quiet = self.letting_go.is_none() && self.claims.is_empty();
            let slice = if is_quiet { LONG } else { SHORT };
            self.serve(if events.is_empty() { left.min(slice) } else { Duration::ZERO });
            self.take_rebalances(&mut events);
            self.ask();
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

    fn standing(&self) -> Standing {
        let waiting = self.eager.iter().flatten().map(|start| (start.facts.topic.clone(), start.facts.partition));
        let topics = self.shared.topics.lock();
        let found = topics.iter().map(|(topic, facts)| (topic.clone(), facts.seen().0.n_partitions));
        Standing {
            n_partitions: found.filter(|(_, n_partitions)| *n_partitions > 0).collect(),
            claiming: self.claims.ids().cloned().chain(waiting).collect(),
            is_assigned: self.is_assigned,
        }
    }

    fn close(&mut self) {
        self.probe = None;
        self.shared.is_closing.store(true, Ordering::Release);
        let Some(consumer) = self.consumer.take() else { return };
        self.answer_rebalances(&consumer);
        self.held.drain().for_each(|(_, slot)| drop(slot.lock().take()));
        // A process that ends must not wait for brokers that do not answer.
        if close_behind(consumer).recv_timeout(CLOSE_WITHIN) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the consumer group was not left in time; the brokers will notice by themselves");
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.close();
    }
}
