//! Writing messages.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use crate::config::{KafkaConfig, Masked, apply, client_config};
use crate::context::log;
use crate::error::{KafkaError, reason};

/// How to write.
#[derive(Clone)]
pub struct ProducerConfig {
    /// Addresses of some brokers: `host:port`, comma-separated.
    pub bootstrap: String,
    /// librdkafka's own options, verbatim; they win over ours.
    pub options: Vec<(String, String)>,
    /// How long a message waits for others to share a request.
    pub linger: Duration,
    /// Bytes sent and not yet acknowledged.
    pub queue_bytes_max: usize,
    /// Size of the largest message.
    pub message_bytes_max: usize,
}

impl ProducerConfig {
    /// Defaults: 10 ms, 64 MiB, 1 MiB.
    pub fn new(bootstrap: impl Into<String>) -> ProducerConfig {
        ProducerConfig {
            bootstrap: bootstrap.into(),
            options: Vec::new(),
            linger: Duration::from_millis(10),
            queue_bytes_max: 64 << 20,
            message_bytes_max: 1 << 20,
        }
    }

    /// The brokers and options of a consumer.
    pub fn like(config: &KafkaConfig) -> ProducerConfig {
        ProducerConfig {
            options: config.options.clone(),
            message_bytes_max: config.message_bytes_max,
            ..ProducerConfig::new(config.bootstrap.clone())
        }
    }
}

impl fmt::Debug for ProducerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerConfig")
            .field("bootstrap", &self.bootstrap)
            .field("options", &Masked(&self.options))
            .field("linger", &self.linger)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("message_bytes_max", &self.message_bytes_max)
            .finish()
    }
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too much is on its way: wait a little and send it again.
    #[error("the producer's queue is full")]
    QueueFull,
    /// It cannot be sent.
    #[error("topic {topic}: the message cannot be sent: {reason}")]
    Refused {
        /// Its topic.
        topic: String,
        /// Why.
        reason: String,
    },
}

/// Writes messages in the background, idempotently: each arrives once, in order, however often it had to be sent.
///
/// Dropping it drops what is on its way: [`Producer::flush`] first.
pub struct Producer {
    producer: ThreadedProducer<Deliveries>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("deliveries", self.deliveries()).finish_non_exhaustive()
    }
}

impl Producer {
    /// A producer; it connects by itself. *Errors*: `Option`, `Client` when librdkafka refuses the options.
    pub fn new(config: &ProducerConfig) -> Result<Producer, KafkaError> {
        Producer::build(config, false)
    }

    /// One that keeps messages which could not be delivered, for [`Producer::take_undelivered`].
    pub(crate) fn keeping_undelivered(config: &ProducerConfig) -> Result<Producer, KafkaError> {
        Producer::build(config, true)
    }

    fn build(config: &ProducerConfig, keeps_undelivered: bool) -> Result<Producer, KafkaError> {
        let mut client = client_config(&config.bootstrap, None);
        client
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", config.linger.as_millis().to_string())
            .set("batch.size", "1000000")
            .set("message.max.bytes", (config.message_bytes_max.max(1_000) + (64 << 10)).to_string())
            .set("queue.buffering.max.kbytes", (config.queue_bytes_max >> 10).clamp(1, 2_147_483_647).to_string())
            .set("queue.buffering.max.messages", "1000000")
            // A broker that is down for a while loses nothing; the queue's bound says when it is too much.
            .set("message.timeout.ms", "0")
            .set("topic.metadata.propagation.max.ms", "5000");
        let options = config.options.iter().filter(|(name, _)| !is_consumer_option(name)).cloned();
        apply(&mut client, &options.collect::<Vec<_>>());
        let deliveries = Deliveries { keeps_undelivered, ..Deliveries::default() };
        let producer = client.create_with_context(deliveries).map_err(KafkaError::from_creation)?;
        Ok(Producer { producer })
    }

    /// Hands a message over; it is sent in the background. `partition` none: by the key, murmur2, or any without a key. `value` none
    /// is a tombstone. `timestamp_ms` none: now. *Errors*: `QueueFull` when `queue_bytes_max` are on their way; `Refused` for a
    /// partition that does not exist or a message that is too large.
    pub fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
        timestamp_ms: Option<i64>,
    ) -> Result<(), SendError> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        record.partition = partition;
        record.key = key;
        record.payload = value;
        record.timestamp = timestamp_ms;
        if !headers.is_empty() {
            let empty = OwnedHeaders::new_with_capacity(headers.len());
            let add = |all: OwnedHeaders, (key, value): &(&str, &[u8])| all.insert(Header { key, value: Some(*value) });
            record.headers = Some(headers.iter().fold(empty, add));
        }
        self.hand_over(topic, record)
    }

    /// Sends an undelivered message again, to any partition of its topic.
    pub(crate) fn send_again(&self, message: &OwnedMessage) -> Result<(), SendError> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(message.topic());
        record.key = message.key();
        record.payload = message.payload();
        record.timestamp = message.timestamp().to_millis();
        record.headers = message.headers().cloned();
        self.hand_over(message.topic(), record)
    }

    fn hand_over(&self, topic: &str, record: BaseRecord<'_, [u8], [u8]>) -> Result<(), SendError> {
        self.producer.send(record).map_err(|(error, _)| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => SendError::QueueFull,
            _ => SendError::Refused { topic: topic.to_owned(), reason: reason(&error) },
        })
    }

    /// Waits until everything is acknowledged, at most `timeout`. *Returns* how many messages are still on their way.
    pub fn flush(&self, timeout: Duration) -> usize {
        if let Err(error) = self.producer.flush(timeout) {
            tracing::debug!(%error, "flush");
        }
        self.n_unacknowledged()
    }

    /// Messages on their way.
    pub fn n_unacknowledged(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    /// Messages that the brokers acknowledged.
    pub fn n_delivered(&self) -> u64 {
        self.deliveries().n_delivered.load(Ordering::Acquire)
    }

    /// Messages that could not be delivered.
    pub fn n_failed(&self) -> u64 {
        self.deliveries().n_failed.load(Ordering::Acquire)
    }

    /// Why the latest of them could not.
    pub fn last_error(&self) -> Option<String> {
        self.deliveries().last_error.lock().clone()
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer.client().context()
    }

    /// Messages that could not be delivered, and why. Each counts as undelivered until [`Producer::settle_undelivered`].
    pub(crate) fn take_undelivered(&self) -> Vec<(OwnedMessage, RDKafkaErrorCode)> {
        self.deliveries().undelivered.lock().drain(..).collect()
    }

    /// One of them is on its way again, kept, or given up.
    pub(crate) fn settle_undelivered(&self) {
        self.deliveries().n_undelivered.fetch_sub(1, Ordering::AcqRel);
    }

    /// Puts one back.
    pub(crate) fn keep_undelivered(&self, message: OwnedMessage, code: RDKafkaErrorCode) {
        self.deliveries().keep(message, code);
    }

    /// Messages that failed and are not settled.
    pub(crate) fn n_undelivered(&self) -> usize {
        self.deliveries().n_undelivered.load(Ordering::Acquire)
    }
}

/// Options that consumers alone know: a producer that gets them warns of each.
fn is_consumer_option(name: &str) -> bool {
    const STARTS: [&str; 6] = ["group.", "fetch.", "auto.offset.", "queued.", "enable.auto.", "partition.assignment."];
    const NAMES: [&str; 6] = [
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "max.poll.interval.ms",
        "max.partition.fetch.bytes",
        "isolation.level",
        "check.crcs",
    ];
    NAMES.contains(&name) || STARTS.iter().any(|start| name.starts_with(start))
}

/// What became of the messages.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    n_delivered: AtomicU64,
    n_failed: AtomicU64,
    last_error: Mutex<Option<String>>,
    keeps_undelivered: bool,
    undelivered: Mutex<VecDeque<(OwnedMessage, RDKafkaErrorCode)>>,
    n_undelivered: AtomicUsize,
}

impl Deliveries {
    fn keep(&self, message: OwnedMessage, code: RDKafkaErrorCode) {
        // Counted first, so that at no moment the message is neither on its way nor waiting.
        self.n_undelivered.fetch_add(1, Ordering::AcqRel);
        self.undelivered.lock().push_back((message, code));
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer error");
        *self.last_error.lock() = Some(reason.to_owned());
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let (error, message) = match result {
            Ok(_) => {
                self.n_delivered.fetch_add(1, Ordering::AcqRel);
                return;
            }
            Err((error, message)) => (error, message),
        };
        *self.last_error.lock() = Some(format!("topic {}: {}", message.topic(), reason(error)));
        if self.keeps_undelivered {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            self.keep(message.detach(), code);
        }
        self.n_failed.fetch_add(1, Ordering::AcqRel);
    }
}
