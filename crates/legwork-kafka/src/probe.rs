//! The thread that asks the brokers: whether they answer, which topics there are, at which offsets partitions start. Questions may take
//! seconds, and the thread that polls the consumer must never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config::{KafkaConfig, Start};
use crate::context::{Context, PartitionId, Shared};
use crate::error::{KafkaError, is_local_outage, reason};
use crate::health::Seen;
use crate::source::StartOffset;

const TICK: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const CHECK_EVERY: Duration = Duration::from_secs(10);
const CHECK_AGAIN: Duration = Duration::from_millis(500);

/// Partitions whose start is asked for, under the number of the assignment that they came with.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) assignment: u64,
    pub(crate) partitions: Vec<PartitionId>,
}

/// Where a partition starts.
#[derive(Clone, Debug)]
pub(crate) struct StartsAt {
    pub(crate) id: PartitionId,
    pub(crate) offset: i64,
    pub(crate) end_offset: i64,
}

#[derive(Debug)]
pub(crate) enum Answer {
    /// The brokers answer; the topics have so many partitions.
    Ready { n_partitions: usize },
    /// Where the partitions of an assignment start.
    Starts { assignment: u64, starts: Vec<StartsAt> },
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
        start_offset: Option<StartOffset>,
    ) -> Result<Probe, KafkaError> {
        let context = Context { shared: shared.clone(), seen: Seen::Probe };
        let client: BaseConsumer<Context> =
            config.asking().create_with_context(context).map_err(KafkaError::from_creation)?;
        let (questions, asked) = sync_channel(4);
        let (answer, answers) = sync_channel(4);
        let stop = Arc::new(AtomicBool::new(false));
        let topics = config.topics.iter().map(|topic| Topic { name: topic.as_str().into(), seen: None, n_missing: 0 });
        let asking = Asking {
            topics: topics.collect(),
            start: config.start,
            group_hop: format!("group {}", config.group),
            start_offset,
            client,
            shared,
            asked,
            answer,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("kafka-probe".to_owned())
            .spawn(move || asking.run())
            .map_err(|error| KafkaError::Client { reason: format!("no thread could be started: {error}") })?;
        Ok(Probe { questions, answers, stop, thread: Some(thread) })
    }

    /// Asks where partitions start. False when the thread is busy with many questions: ask again.
    pub(crate) fn ask(&self, question: Question) -> bool {
        self.questions.try_send(question).is_ok()
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
    start: Start,
    group_hop: String,
    start_offset: Option<StartOffset>,
    client: BaseConsumer<Context>,
    shared: Arc<Shared>,
    asked: Receiver<Question>,
    answer: SyncSender<Answer>,
    stop: Arc<AtomicBool>,
}

impl Asking {
    fn run(mut self) {
        let mut check_at = Instant::now();
        let mut is_ready = false;
        while !self.stopped() {
            self.serve();
            if Instant::now() >= check_at {
                let all_answered = self.check_topics();
                if all_answered && !is_ready {
                    is_ready = true;
                    self.tell(Answer::Ready { n_partitions: self.n_partitions() });
                }
                let well = all_answered && !self.shared.health.lock().has_trouble();
                check_at = Instant::now() + if well { CHECK_EVERY } else { CHECK_AGAIN };
            }
            match self.asked.recv_timeout(TICK) {
                Ok(question) => self.answer_question(question),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
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
        for topic_idx in 0..self.topics.len() {
            if self.stopped() {
                return false;
            }
            let name = self.topics[topic_idx].name.clone();
            let metadata = match self.client.fetch_metadata(Some(&name), ANSWER_WITHIN) {
                Ok(metadata) => metadata,
                Err(error) => {
                    tracing::debug!(topic = &*name, %error, "no metadata");
                    self.serve();
                    return false;
                }
            };
            let Some(found) = metadata.topics().first() else { return false };
            match found.error().map(RDKafkaErrorCode::from) {
                None => self.topic_is_well(topic_idx, found.partitions().len() as i32),
                Some(code) => self.topic_has_trouble(topic_idx, code),
            }
        }
        true
    }

    fn topic_is_well(&mut self, topic_idx: usize, n_partitions: i32) {
        let topic = &mut self.topics[topic_idx];
        topic.n_missing = 0;
        topic.seen = Some(n_partitions);
        let facts = self.shared.topic(&topic.name);
        facts.n_partitions.store(n_partitions, Ordering::Release);
        facts.is_gone.store(false, Ordering::Release);
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
                    self.shared.topic(name).is_gone.store(true, Ordering::Release);
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

    /// Asks until there is an answer, or another question.
    fn answer_question(&mut self, mut question: Question) {
        while !self.stopped() {
            match self.asked.try_recv() {
                Ok(newer) => question = newer,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
            self.serve();
            match self.find_starts(&question.partitions) {
                Ok(starts) => {
                    self.shared.health.lock().well(&self.group_hop);
                    self.tell(Answer::Starts { assignment: question.assignment, starts });
                    return;
                }
                Err(error) => {
                    let why = reason(&error);
                    if !error.rdkafka_error_code().is_some_and(is_local_outage) {
                        let message = format!("the start of assigned partitions cannot be found: {why}; trying again");
                        self.shared.health.lock().trouble(&self.group_hop, &message, Instant::now());
                    }
                    self.check_topics();
                    std::thread::sleep(CHECK_AGAIN);
                }
            }
        }
    }

    fn find_starts(&self, partitions: &[PartitionId]) -> Result<Vec<StartsAt>, ClientError> {
        let by_time = match self.start {
            Start::Time(start_us) => Some(self.offsets_at(partitions, start_us)?),
            Start::Earliest | Start::Latest => None,
        };
        let mut starts = Vec::with_capacity(partitions.len());
        for id in partitions {
            let (topic, partition) = (&*id.0, id.1);
            let (low, high) = self.client.fetch_watermarks(topic, partition, ANSWER_WITHIN)?;
            let given = self.start_offset.as_ref().and_then(|start_offset| start_offset(topic, partition));
            let offset = given.unwrap_or_else(|| match (self.start, &by_time) {
                (_, Some(found)) => match found.find_partition(topic, partition).map(|element| element.offset()) {
                    Some(Offset::Offset(offset)) => offset,
                    _ => high,
                },
                (Start::Latest, None) => high,
                (_, None) => low,
            });
            starts.push(StartsAt { id: id.clone(), offset, end_offset: high });
        }
        Ok(starts)
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
