//! The thread that asks the brokers: whether they answer, which topics there are, at which offsets partitions start. Questions may take
//! seconds, and the thread that polls the consumer must never wait.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use legwork_runtime::{ClaimPartition, PartitionFacts};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::claimer::{Claimer, Job};
use crate::config::{self, KafkaConfig};
use crate::context::{Context, PartitionId, Shared};
use crate::error::{KafkaError, is_local_outage, reason};
use crate::ffi;
use crate::group::{Looks, Orphans, assignment, is_another};
use crate::health::Seen;

const TICK: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Topics are looked at so often: until then a topic made anew is not known from the old one by its id.
const CHECK_EVERY: Duration = Duration::from_secs(3);
const CHECK_AGAIN: Duration = Duration::from_millis(500);
/// The group is looked at so often while this member does not hold every partition there is.
const GROUP_EVERY: Duration = Duration::from_secs(10);
/// Questions and answers under way.
const N_QUEUED_MAX: usize = 256;

/// A partition that is to be claimed.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) id: PartitionId,
    /// It was taken away before it was claimed.
    pub(crate) is_dropped: Arc<AtomicBool>,
}

/// How a partition starts: at an offset, or, with a cause and a way out, not at all.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) facts: PartitionFacts,
    pub(crate) start: Result<i64, String>,
}

#[derive(Debug)]
pub(crate) enum Answer {
    /// The brokers answer; the topics have so many partitions.
    Ready { n_partitions: usize },
    /// A partition is claimed.
    Claimed(Start),
    /// A partition that was taken away was not claimed.
    Dropped(PartitionId),
    /// Nobody in the group holds them.
    Orphans(Orphans),
    /// The consumer was fenced: by another process with the same instance id, or by a ghost of its own.
    Fenced { by_another: bool },
}

/// The asking thread.
#[derive(Debug)]
pub(crate) struct Probe {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    pub(crate) fn start(
        config: &KafkaConfig,
        shared: Arc<Shared>,
        claim: Option<ClaimPartition>,
    ) -> Result<Probe, KafkaError> {
        let context = Context { shared: shared.clone(), seen: Seen::Probe, is_retired: Arc::default() };
        let client: BaseConsumer<Context> =
            config.asking().create_with_context(context).map_err(KafkaError::from_creation)?;
        let (questions, asked) = sync_channel(N_QUEUED_MAX);
        let (answer, answers) = sync_channel(N_QUEUED_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let topics = config.topics.iter().map(|topic| Topic { name: topic.as_str().into(), seen: None, n_missing: 0 });
        let asking = Asking {
            topics: topics.collect(),
            start: config.start,
            group: config.group.clone(),
            identity: config.identity(),
            group_hop: format!("group {}", config.group),
            group_at: Instant::now() + GROUP_EVERY,
            looks: Looks::default(),
            claimer: Claimer::new(claim, shared.clone(), answer.clone()),
            client,
            shared,
            asked,
            open: Vec::new(),
            answer,
            broker_id: -1,
            n_asked: 0,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("kafka-probe".to_owned())
            .spawn(move || asking.run())
            .map_err(|error| KafkaError::Client { reason: format!("no thread could be started: {error}") })?;
        Ok(Probe { questions, answers, stop, thread: Some(thread) })
    }

    /// Asks for a partition to be claimed. Gives the question back when there are many already: ask again.
    pub(crate) fn ask(&self, question: Question) -> Result<(), Question> {
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(question) | TrySendError::Disconnected(question) => question,
        })
    }

    /// The next answer, if there is one.
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // It ends by itself after at most one question's time-out; nothing of it is needed any more.
        drop(self.thread.take());
    }
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    /// Partitions when last seen.
    seen: Option<i32>,
    /// How often in a row the brokers said that it is not there.
    n_missing: u32,
}

struct Asking {
    topics: Vec<Topic>,
    start: config::Start,
    group: String,
    /// Instance id and client id.
    identity: (String, String),
    group_hop: String,
    /// When the group is looked at next.
    group_at: Instant,
    looks: Looks,
    claimer: Claimer,
    client: BaseConsumer<Context>,
    shared: Arc<Shared>,
    asked: Receiver<Question>,
    /// Asked and not answered.
    open: Vec<Question>,
    answer: SyncSender<Answer>,
    /// The broker that answered last.
    broker_id: i32,
    n_asked: usize,
    stop: Arc<AtomicBool>,
}

impl Asking {
    fn run(mut self) {
        let mut check_at = Instant::now();
        let mut is_ready = false;
        while !self.stopped() {
            self.serve();
            if self.shared.check_now.swap(false, Ordering::AcqRel) || Instant::now() >= check_at {
                let all_answered = self.check_topics();
                if all_answered && !is_ready {
                    is_ready = true;
                    self.tell(Answer::Ready { n_partitions: self.n_partitions() });
                }
                let is_complete = self.topics.iter().all(|topic| topic.n_missing == 0);
                let well = all_answered && is_complete && !self.shared.health.lock().has_trouble();
                check_at = Instant::now() + if well { CHECK_EVERY } else { CHECK_AGAIN };
            }
            if self.shared.is_fenced.load(Ordering::Acquire) {
                self.look_who_fenced();
            }
            if is_ready && Instant::now() >= self.group_at {
                self.group_at = Instant::now() + GROUP_EVERY;
                self.look_for_orphans();
            }
            let wait = if self.open.is_empty() { TICK } else { CHECK_AGAIN };
            match self.asked.recv_timeout(wait) {
                Ok(question) => self.open.push(question),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.open.extend(self.asked.try_iter());
            if !self.open.is_empty() {
                self.answer_questions();
            }
            if self.shared.health.lock().has_trouble() {
                check_at = check_at.min(Instant::now() + CHECK_AGAIN);
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Serves the client's callbacks.
    fn serve(&self) {
        for _ in 0..64 {
            if self.client.poll(Duration::ZERO).is_none() {
                return;
            }
        }
    }

    /// Waits while the channel is full; gives up when the source is gone.
    fn tell(&self, answer: Answer) {
        let _source_is_gone = self.answer.send(answer);
    }

    /// A missing topic may come with any number of partitions; few are assumed.
    fn n_partitions(&self) -> usize {
        const ASSUMED: i32 = 4;
        self.topics.iter().map(|topic| topic.seen.unwrap_or(ASSUMED).max(0) as usize).sum()
    }

    /// Looks at every topic. *Returns* whether the brokers answered for all.
    fn check_topics(&mut self) -> bool {
        let asked_at = Instant::now();
        let mut found = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            if self.stopped() {
                return false;
            }
            let metadata = match self.client.fetch_metadata(Some(&topic.name), ANSWER_WITHIN) {
                Ok(metadata) => metadata,
                Err(error) => {
                    tracing::debug!(topic = &*topic.name, %error, "no metadata");
                    self.serve();
                    return false;
                }
            };
            self.n_asked = self.n_asked.wrapping_add(1);
            let brokers = metadata.brokers();
            self.broker_id = match metadata.orig_broker_id() {
                // A connection by an address of the configuration has no id yet; any broker that is there will do.
                id if id < 0 && !brokers.is_empty() => brokers[self.n_asked % brokers.len()].id(),
                id => id,
            };
            let Some(topic) = metadata.topics().first() else { return false };
            found.push((topic.partitions().len() as i32, topic.error().map(RDKafkaErrorCode::from)));
        }
        let names = self.topics.iter().map(|topic| topic.name.clone()).collect();
        let Ok(ids) = self.topic_ids(&names) else {
            self.serve();
            return false;
        };
        for (topic_idx, (n_partitions, error)) in found.into_iter().enumerate() {
            match error {
                None => self.topic_is_well(topic_idx, n_partitions, &ids, asked_at),
                Some(code) => self.topic_has_trouble(topic_idx, code),
            }
        }
        true
    }

    /// The ids of topics that have one.
    fn topic_ids(&self, names: &BTreeSet<Arc<str>>) -> Result<HashMap<String, String>, RDKafkaErrorCode> {
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        match ffi::topic_ids(self.client.client(), self.broker_id, &names, ANSWER_WITHIN) {
            Err(code) if is_local_outage(code) => Err(code),
            Err(code) => {
                tracing::debug!(%code, "the brokers do not tell topics' ids");
                Ok(HashMap::new())
            }
            Ok(ids) => Ok(ids),
        }
    }

    fn topic_is_well(&mut self, topic_idx: usize, n_partitions: i32, ids: &HashMap<String, String>, asked_at: Instant) {
        let topic = &mut self.topics[topic_idx];
        topic.n_missing = 0;
        topic.seen = Some(n_partitions);
        let id = ids.get(&*topic.name).map(String::as_str);
        self.shared.topic(&topic.name).is_there(n_partitions, id, asked_at);
        self.shared.health.lock().well(&format!("topic {}", topic.name));
    }

    fn topic_has_trouble(&mut self, topic_idx: usize, code: RDKafkaErrorCode) {
        let topic = &mut self.topics[topic_idx];
        let name = &topic.name;
        let message = match code {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                topic.n_missing += 1;
                // A broker that has just started may not know its topics yet.
                if topic.seen.is_some() && topic.n_missing < 3 {
                    return;
                }
                if topic.seen.is_some() {
                    self.shared.topic(name).is_deleted();
                }
                format!(
                    "topic {name} does not exist: create it or change topics.*.names; it is read as soon as it is there"
                )
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                format!("topic {name} may not be read: grant READ and DESCRIBE on it to this user")
            }
            // A leader is being elected: the brokers' trouble, over in a moment, and told as theirs when it lasts.
            code if is_local_outage(code) => return,
            code => format!("topic {name}: {code}"),
        };
        self.shared.health.lock().trouble(&format!("topic {name}"), &message, Instant::now());
    }

    /// Finds out about the partitions that are asked for, and has them claimed; what the brokers do not answer stays open.
    fn answer_questions(&mut self) {
        let (dropped, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|question| question.is_dropped.load(Ordering::Acquire));
        self.open = open;
        let dropped: Vec<Question> = dropped;
        for question in dropped {
            self.tell(Answer::Dropped(question.id));
        }
        self.serve();
        if self.open.is_empty() || !self.check_topics() {
            return;
        }
        match self.find_jobs() {
            Ok(jobs) => {
                self.shared.health.lock().well(&self.group_hop);
                jobs.into_iter().for_each(|job| self.claimer.claim(job));
            }
            Err(error) => {
                let why = reason(&error);
                if !error.rdkafka_error_code().is_some_and(is_local_outage) {
                    let message = format!("the start of assigned partitions cannot be found: {why}; trying again");
                    self.shared.health.lock().trouble(&self.group_hop, &message, Instant::now());
                }
            }
        }
    }

    /// Facts of the open questions. A topic that is made anew meanwhile stays open: its id and its offsets must be of the same one.
    fn find_jobs(&mut self) -> Result<Vec<Job>, ClientError> {
        let ids: Vec<PartitionId> = self.open.iter().map(|question| question.id.clone()).collect();
        let by_time = match self.start {
            config::Start::Time(start_us) => Some(self.offsets_at(&ids, start_us)?),
            config::Start::Earliest | config::Start::Latest => None,
        };
        let mut found = HashMap::with_capacity(ids.len());
        for id in &ids {
            let (topic, partition) = (&*id.0, id.1);
            let (low, high) = self.client.fetch_watermarks(topic, partition, ANSWER_WITHIN)?;
            let default_offset = match (self.start, &by_time) {
                (_, Some(found)) => match found.find_partition(topic, partition).map(|element| element.offset()) {
                    Some(Offset::Offset(offset)) => offset,
                    _ => high,
                },
                (config::Start::Latest, None) => high,
                (_, None) => low,
            };
            found.insert(id.clone(), (low, high, default_offset));
        }
        let names: BTreeSet<Arc<str>> = ids.iter().map(|id| id.0.clone()).collect();
        let topic_ids = self.topic_ids(&names).map_err(ClientError::MetadataFetch)?;
        let mut jobs = Vec::with_capacity(ids.len());
        for question in std::mem::take(&mut self.open) {
            let (topic, partition) = question.id.clone();
            let seen = self.shared.topic(&topic).seen().0;
            let Some((begin_offset, end_offset, default_offset)) =
                found.remove(&question.id).filter(|_| seen.id == topic_ids.get(&*topic).cloned())
            else {
                self.open.push(question);
                continue;
            };
            let (topic_id, n_partitions) = (seen.id, seen.n_partitions);
            let facts = PartitionFacts { topic, partition, topic_id, begin_offset, end_offset, n_partitions };
            jobs.push(Job { facts, default_offset, is_dropped: question.is_dropped });
        }
        Ok(jobs)
    }

    /// Finds out who has this member's instance id now. Without an answer it is asked again.
    fn look_who_fenced(&self) {
        let listed = match self.client.client().fetch_group_list(Some(&self.group), ANSWER_WITHIN) {
            Ok(listed) => listed,
            Err(error) => return tracing::debug!(%error, "the consumer group cannot be looked at"),
        };
        let groups = listed.groups().iter().filter(|group| group.name() == self.group);
        let members: Vec<(&str, &str)> =
            groups.flat_map(|group| group.members()).map(|member| (member.id(), member.client_id())).collect();
        let (instance_id, client_id) = &self.identity;
        self.shared.is_fenced.store(false, Ordering::Release);
        self.tell(Answer::Fenced { by_another: is_another(instance_id, client_id, &members) });
    }

    /// Finds partitions that the group has given to nobody. With the newer protocol the broker shares them out by itself.
    fn look_for_orphans(&mut self) {
        let topics = self.topics.iter().filter_map(|topic| Some((topic.name.clone(), topic.seen?)));
        let topics: Vec<(Arc<str>, i32)> = topics.collect();
        let n_partitions: i32 = topics.iter().map(|(_, n_partitions)| n_partitions).sum();
        if self.shared.partitions.lock().len() >= n_partitions.max(0) as usize {
            return self.looks.forget();
        }
        let listed = match self.client.client().fetch_group_list(Some(&self.group), ANSWER_WITHIN) {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "the consumer group cannot be looked at");
                return self.looks.forget();
            }
        };
        let stable = listed.groups().iter().find(|group| group.name() == self.group && group.state() == "Stable");
        let held = stable.and_then(|group| {
            let members = group.members().iter().map(|member| assignment(member.assignment().unwrap_or_default()));
            members.collect::<Option<Vec<_>>>()
        });
        match held {
            None => self.looks.forget(),
            Some(held) => {
                if let Some(orphans) = self.looks.look(topics, &held.into_iter().flatten().collect()) {
                    self.tell(Answer::Orphans(orphans));
                }
            }
        }
    }

    fn offsets_at(&self, partitions: &[PartitionId], start_us: i64) -> Result<TopicPartitionList, ClientError> {
        let start_ms = start_us.div_euclid(1_000);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, Offset::Offset(start_ms))?;
        }
        self.client.offsets_for_times(list, ANSWER_WITHIN * 2)
    }
}
