//! Rejected messages, sent on to a topic of their own with the reason.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use legwork_types::Reject;
use parking_lot::Mutex;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Message, OwnedMessage};

use crate::admin::{Admin, TopicSpec};
use crate::config::KafkaConfig;
use crate::error::{ErrorKind, KafkaError};
use crate::producer::{Producer, ProducerConfig, SendError};

/// Nobody waits for a dead letter but a checkpoint, which sends what lingers: few large requests cost the brokers less.
const LINGER: Duration = Duration::from_millis(200);
/// Bytes of dead letters on their way.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// How long [`DeadLetters::send`] waits for room.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long after a failure a topic is tried again, or a message sent again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Dead letters may name nobody, so they are not kept for long: 14 days.
const RETENTION_MS: &str = "1209600000";

/// Why dead letters were not taken. The first `n_sent` of them were.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The brokers do not take them fast enough: send the rest again.
    #[error("dead letters of {topic} do not drain: {waiting} wait for the brokers{}", cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default())]
    Full {
        /// The source topic.
        topic: String,
        /// Messages of the call that were taken.
        n_sent: usize,
        /// Messages that wait to be acknowledged.
        waiting: usize,
        /// The latest failure.
        cause: Option<String>,
    },
    /// The dead-letter topic cannot be had.
    #[error(
        "dead-letter topic {dead_letter_topic}: {reason}: create it, grant CREATE and WRITE on it, or set kafka.dead_letters = false"
    )]
    Topic {
        /// Its name.
        dead_letter_topic: String,
        /// Messages of the call that were taken.
        n_sent: usize,
        /// Why.
        reason: String,
        /// Whether trying again may help.
        kind: ErrorKind,
    },
}

impl DeadLetterError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DeadLetterError::Full { .. } => ErrorKind::Retry,
            DeadLetterError::Topic { kind, .. } => *kind,
        }
    }

    /// Messages of the call that were taken: send the rest again.
    pub fn n_sent(&self) -> usize {
        match self {
            DeadLetterError::Full { n_sent, .. } | DeadLetterError::Topic { n_sent, .. } => *n_sent,
        }
    }
}

#[derive(Clone, Debug)]
enum TopicState {
    Ready,
    Failed { at: Instant, reason: String, kind: ErrorKind },
}

/// Sends rejected messages to `<topic>.dlq`, each with its bytes, key and the headers `legwork.reason`, `legwork.detail`, `legwork.topic`,
/// `legwork.partition`, `legwork.offset` and, where there was one, `legwork.schema_id`. At least once. Shared by all lanes; its calls
/// wait, for a bounded time.
pub struct DeadLetters {
    producer: Producer,
    admin: Admin,
    template: String,
    templates: HashMap<String, String>,
    message_bytes_max: usize,
    topics: Mutex<HashMap<String, TopicState>>,
    retried_at: Mutex<Option<Instant>>,
    n_lost: AtomicU64,
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("template", &self.template)
            .field("producer", &self.producer)
            .finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Dead letters of the topics of `config`; `template` names their topics, with `{topic}` for the source topic. *Errors*: `Option`,
    /// `Client` when librdkafka refuses the options.
    pub fn new(config: &KafkaConfig, template: &str) -> Result<DeadLetters, KafkaError> {
        let producing = ProducerConfig {
            queue_bytes_max: QUEUE_BYTES_MAX.max(2 * config.message_bytes_max),
            // A message is rejected for being too large, too.
            message_bytes_max: 16 * config.message_bytes_max.max(1 << 20),
            linger: LINGER,
            ..ProducerConfig::like(config)
        };
        Ok(DeadLetters {
            producer: Producer::keeping_undelivered(&producing)?,
            admin: Admin::new(&config.bootstrap, &config.options)?,
            template: template.to_owned(),
            templates: HashMap::new(),
            message_bytes_max: config.message_bytes_max,
            topics: Mutex::default(),
            retried_at: Mutex::default(),
            n_lost: AtomicU64::new(0),
        })
    }

    /// Names the dead-letter topic of one source topic differently.
    pub fn with_template(mut self, source_topic: &str, template: &str) -> DeadLetters {
        self.templates.insert(source_topic.to_owned(), template.to_owned());
        self
    }

    /// Name of the dead-letter topic of a topic.
    pub fn topic_of(&self, source_topic: &str) -> String {
        self.templates.get(source_topic).unwrap_or(&self.template).replace("{topic}", source_topic)
    }

    /// Sends rejected messages of one partition on their way; waits for room, 5 s at most. They have arrived once
    /// [`DeadLetters::n_unacknowledged`] is zero. *Errors*: `Full`, `Topic`, with the number of those that were taken.
    pub fn send(&self, source_topic: &str, partition: i32, rejects: &[Reject]) -> Result<(), DeadLetterError> {
        if rejects.is_empty() {
            return Ok(());
        }
        let dead_letter_topic = self.topic_of(source_topic);
        self.ensure(&dead_letter_topic)?;
        self.send_undelivered_again();
        let deadline = Instant::now() + WAIT_MAX;
        let partition = partition.to_string();
        for (reject_idx, reject) in rejects.iter().enumerate() {
            let mut pause = Duration::from_millis(5);
            loop {
                match self.send_one(&dead_letter_topic, source_topic, &partition, reject) {
                    Ok(()) => break,
                    Err(SendError::QueueFull) if Instant::now() < deadline => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(200));
                        self.send_undelivered_again();
                    }
                    Err(SendError::QueueFull) => {
                        return Err(DeadLetterError::Full {
                            topic: source_topic.to_owned(),
                            n_sent: reject_idx,
                            waiting: self.n_waiting(),
                            cause: self.producer.last_error(),
                        });
                    }
                    Err(SendError::Refused { reason, .. }) => {
                        return Err(DeadLetterError::Topic {
                            dead_letter_topic,
                            n_sent: reject_idx,
                            reason,
                            kind: ErrorKind::Config,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn send_one(
        &self,
        dead_letter_topic: &str,
        source_topic: &str,
        partition: &str,
        reject: &Reject,
    ) -> Result<(), SendError> {
        // Undelivered messages are memory too: none are added while many wait.
        if self.producer.n_undelivered() >= 10_000 {
            return Err(SendError::QueueFull);
        }
        let offset = reject.offset.to_string();
        let schema_id = reject.schema_id.map(|id| id.to_string());
        let mut headers: Vec<(&str, &[u8])> = vec![
            ("legwork.reason", reject.reason.as_str().as_bytes()),
            ("legwork.detail", reject.detail.as_bytes()),
            ("legwork.topic", source_topic.as_bytes()),
            ("legwork.partition", partition.as_bytes()),
            ("legwork.offset", offset.as_bytes()),
        ];
        if let Some(schema_id) = &schema_id {
            headers.push(("legwork.schema_id", schema_id.as_bytes()));
        }
        let key = reject.key.as_deref();
        // Stamped now: with the time of an old message, retention would take it away the moment it arrives.
        self.producer.send(dead_letter_topic, None, key, Some(&reject.payload), &headers, None)
    }

    /// Makes the dead-letter topic where it is missing.
    fn ensure(&self, topic: &str) -> Result<(), DeadLetterError> {
        // Held while asking: other lanes wait for the answer instead of asking too.
        let mut topics = self.topics.lock();
        let refuse = |reason: &str, kind| DeadLetterError::Topic {
            dead_letter_topic: topic.to_owned(),
            n_sent: 0,
            reason: reason.to_owned(),
            kind,
        };
        match topics.get(topic) {
            Some(TopicState::Ready) => return Ok(()),
            Some(TopicState::Failed { at, reason, kind }) if at.elapsed() < RETRY_AFTER => {
                return Err(refuse(reason, *kind));
            }
            _ => {}
        }
        match self.make(topic) {
            Ok(()) => {
                topics.insert(topic.to_owned(), TopicState::Ready);
                Ok(())
            }
            Err(error) => {
                let (reason, kind) = (error.to_string(), error.kind());
                let refused = refuse(&reason, kind);
                topics.insert(topic.to_owned(), TopicState::Failed { at: Instant::now(), reason, kind });
                Err(refused)
            }
        }
    }

    fn make(&self, topic: &str) -> Result<(), KafkaError> {
        match self.admin.describe(topic) {
            Ok(_) => return Ok(()),
            Err(KafkaError::NoTopic { .. }) => {}
            Err(error) => return Err(error),
        }
        // Room for headers around the largest message.
        let bytes_max = (self.message_bytes_max * 2).max(2 << 20).to_string();
        let spec = TopicSpec { name: topic.to_owned(), n_partitions: None, replication: None, config: Vec::new() }
            .set("retention.ms", RETENTION_MS)
            .set("max.message.bytes", &bytes_max);
        match self.admin.create_topics(&[spec]) {
            // The embedded broker cannot be asked to, and makes a topic when it is written to.
            Err(KafkaError::Refused { reason, .. }) if reason.contains(UNSUPPORTED) => Ok(()),
            other => other,
        }
    }

    /// Sends again what could not be delivered, not too often. What no broker will ever take is counted as lost; it stays in
    /// `rejected_events`.
    fn send_undelivered_again(&self) {
        if self.producer.n_undelivered() == 0 {
            return;
        }
        let mut retried_at = self.retried_at.lock();
        if retried_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return;
        }
        *retried_at = Some(Instant::now());
        for (message, code) in self.producer.take_undelivered() {
            self.send_again(&message, code);
            self.producer.settle_undelivered();
        }
    }

    fn send_again(&self, message: &OwnedMessage, code: RDKafkaErrorCode) {
        let topic = message.topic();
        let is_hopeless = matches!(
            code,
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidRecord
        );
        if is_hopeless {
            self.n_lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(topic, %code, "a dead letter cannot be delivered; it is in rejected_events only");
            return;
        }
        if code == RDKafkaErrorCode::UnknownTopicOrPartition || code == RDKafkaErrorCode::UnknownTopic {
            // It was deleted: make it again.
            self.topics.lock().remove(topic);
            if let Err(error) = self.ensure(topic) {
                tracing::warn!(topic, %error, "dead letters wait");
            }
        }
        if self.producer.send_again(message).is_err() {
            self.producer.keep_undelivered(message.clone(), code);
        }
    }

    /// Dead letters that the brokers have not acknowledged yet; those that failed are sent again by this call, too.
    pub fn n_unacknowledged(&self) -> usize {
        self.send_undelivered_again();
        self.n_waiting()
    }

    fn n_waiting(&self) -> usize {
        self.producer.n_unacknowledged() + self.producer.n_undelivered()
    }

    /// Waits until all are acknowledged, at most `timeout`. *Returns* how many are not.
    pub fn flush(&self, timeout: Duration) -> usize {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.producer.flush(left.min(Duration::from_millis(500)));
            let waiting = self.n_unacknowledged();
            if waiting == 0 || left.is_zero() {
                return waiting;
            }
            std::thread::sleep(Duration::from_millis(20).min(left));
        }
    }

    /// Dead letters that were acknowledged.
    pub fn n_delivered(&self) -> u64 {
        self.producer.n_delivered()
    }

    /// Dead letters that no broker takes, such as ones beyond the topic's `max.message.bytes`.
    pub fn n_lost(&self) -> u64 {
        self.n_lost.load(Ordering::Relaxed)
    }

    /// The latest failure.
    pub fn last_error(&self) -> Option<String> {
        self.producer.last_error()
    }
}

/// How librdkafka says that a broker does not know a request.
const UNSUPPORTED: &str = "UnsupportedFeature";
