//! Making and describing topics.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::ClientContext;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use crate::config::{apply, client_config};
use crate::context::log;
use crate::error::KafkaError;
use crate::partitioner::Partitioner;
use crate::routing::{self, Routing};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Partitions; none: the broker's default.
    pub n_partitions: Option<i32>,
    /// Replicas; none: the broker's default.
    pub replication: Option<i32>,
    /// Settings such as `retention.ms`.
    pub config: Vec<(String, String)>,
}

impl TopicSpec {
    /// A topic with the broker's default replication and settings.
    pub fn new(name: impl Into<String>, n_partitions: i32) -> TopicSpec {
        TopicSpec { name: name.into(), n_partitions: Some(n_partitions), replication: None, config: Vec::new() }
    }

    /// Adds a setting.
    pub fn set(mut self, name: &str, value: &str) -> TopicSpec {
        self.config.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Who stamps a topic's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The broker, on arrival.
    LogAppendTime,
}

/// What a topic is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Partitions.
    pub n_partitions: i32,
    /// `message.timestamp.type`; none where the broker does not tell (the embedded one, or without the right to).
    pub timestamp_type: Option<TimestampType>,
    /// `cleanup.policy`, such as `delete` or `compact`; none as above.
    pub cleanup_policy: Option<String>,
    /// `max.message.bytes`; none as above.
    pub message_bytes_max: Option<usize>,
}

/// What a partition holds: offsets from `low` to before `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// Partition.
    pub partition: i32,
    /// Oldest offset.
    pub low: i64,
    /// Offset of the next message.
    pub high: i64,
}

/// Asks and changes topics. Its calls wait for the brokers, 10 s at most.
pub struct Admin {
    client: AdminClient<Quiet>,
    bootstrap: String,
    options: Vec<(String, String)>,
    /// The brokers did not answer when they were asked for settings, as the embedded one does: once is enough.
    is_mute: AtomicBool,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

impl Admin {
    /// A client of these brokers. *Errors*: `Option`, `Client` when librdkafka refuses the options.
    pub fn new(bootstrap: &str, options: &[(String, String)]) -> Result<Admin, KafkaError> {
        let mut config = client_config(bootstrap, None);
        apply(&mut config, options);
        let client = config.create_with_context(Quiet).map_err(KafkaError::from_creation)?;
        Ok(Admin {
            client,
            bootstrap: bootstrap.to_owned(),
            options: options.to_vec(),
            is_mute: AtomicBool::new(false),
        })
    }

    /// Makes topics; those that are there already stay as they are. *Errors*: `Refused` with the first topic that could not be made,
    /// `Unreachable`. The embedded broker refuses: it has [`crate::EmbeddedBroker::create_topic`].
    pub fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), KafkaError> {
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|topic| {
                let replication = TopicReplication::Fixed(topic.replication.unwrap_or(-1));
                let new = NewTopic::new(&topic.name, topic.n_partitions.unwrap_or(-1), replication);
                topic.config.iter().fold(new, |new, (name, value)| new.set(name, value))
            })
            .collect();
        let results = block_on(self.client.create_topics(&new, &options()));
        self.check(results, "to create topics", RDKafkaErrorCode::TopicAlreadyExists)
    }

    /// Deletes topics; those that are not there are fine. *Errors*: `Refused`, `Unreachable`.
    pub fn delete_topics(&self, topics: &[&str]) -> Result<(), KafkaError> {
        let results = block_on(self.client.delete_topics(topics, &options()));
        self.check(results, "to delete topics", RDKafkaErrorCode::UnknownTopicOrPartition)
    }

    fn check(
        &self,
        results: Result<Vec<TopicResult>, ClientError>,
        request: &'static str,
        fine: RDKafkaErrorCode,
    ) -> Result<(), KafkaError> {
        let results = results.map_err(|error| KafkaError::from_request(&self.bootstrap, request, &error))?;
        let failed = results.into_iter().filter_map(Result::err).find(|(_, code)| *code != fine);
        match failed {
            None => Ok(()),
            Some((topic, code)) => Err(KafkaError::Refused {
                bootstrap: self.bootstrap.clone(),
                request,
                reason: format!("{topic}: {code}"),
            }),
        }
    }

    /// Names of all topics and their numbers of partitions, by name. *Errors*: `Unreachable`.
    pub fn list(&self) -> Result<Vec<(String, i32)>, KafkaError> {
        let metadata = self
            .client
            .inner()
            .fetch_metadata(None, ANSWER_WITHIN)
            .map_err(|error| KafkaError::from_request(&self.bootstrap, "to list topics", &error))?;
        let topics = metadata.topics().iter();
        let mut topics: Vec<_> =
            topics.map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32)).collect();
        topics.sort();
        Ok(topics)
    }

    /// What a topic is like. *Errors*: `NoTopic`, `Refused` without the right to describe it, `Unreachable`.
    pub fn describe(&self, topic: &str) -> Result<TopicDescription, KafkaError> {
        let n_partitions = self.n_partitions(topic)?;
        let settings = self.settings(topic);
        let setting = |name: &str| settings.as_ref()?.get(name)?.value.clone();
        Ok(TopicDescription {
            name: topic.to_owned(),
            n_partitions,
            timestamp_type: setting("message.timestamp.type").map(|value| match value.as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            }),
            cleanup_policy: setting("cleanup.policy"),
            message_bytes_max: setting("max.message.bytes").and_then(|value| value.parse().ok()),
        })
    }

    /// A topic's settings; none where the brokers do not tell.
    fn settings(&self, topic: &str) -> Option<ConfigResource> {
        if self.is_mute.load(Ordering::Relaxed) {
            return None;
        }
        let described = block_on(self.client.describe_configs([&ResourceSpecifier::Topic(topic)], &options()));
        self.is_mute.store(described.is_err(), Ordering::Relaxed);
        described.ok()?.pop()?.ok()
    }

    /// Offsets of each partition of a topic. *Errors*: as [`Admin::describe`].
    pub fn offsets(&self, topic: &str) -> Result<Vec<PartitionOffsets>, KafkaError> {
        let partitions = 0..self.n_partitions(topic)?;
        let offsets = partitions.map(|partition| {
            let watermarks = self.client.inner().fetch_watermarks(topic, partition, ANSWER_WITHIN);
            let (low, high) =
                watermarks.map_err(|error| KafkaError::from_request(&self.bootstrap, "for offsets", &error))?;
            Ok(PartitionOffsets { partition, low, high })
        });
        offsets.collect()
    }

    /// A topic's identity, from brokers that tell it: a topic made anew has another. *Errors*: as [`Admin::describe`].
    pub fn topic_id(&self, topic: &str) -> Result<Option<String>, KafkaError> {
        let client = self.client.inner();
        let failed = |error: &ClientError| KafkaError::from_request(&self.bootstrap, "to describe a topic", error);
        let metadata = client.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| failed(&error))?;
        match crate::ffi::topic_ids(client, metadata.orig_broker_id(), &[topic], ANSWER_WITHIN) {
            Ok(mut ids) => Ok(ids.remove(topic)),
            Err(RDKafkaErrorCode::OperationTimedOut) => {
                Err(failed(&ClientError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut)))
            }
            // Brokers before Kafka 3.1 do not know the request.
            Err(_) => Ok(None),
        }
    }

    /// Whether the keys of a topic's newest messages lie where this partitioner puts them. Takes 15 s at most. *Errors*: as
    /// [`Admin::describe`].
    pub fn routing(&self, topic: &str, partitioner: Partitioner) -> Result<Routing, KafkaError> {
        routing::sample(&self.bootstrap, &self.options, topic, &self.offsets(topic)?, partitioner)
    }

    fn n_partitions(&self, topic: &str) -> Result<i32, KafkaError> {
        let refuse = |error: &ClientError| KafkaError::from_request(&self.bootstrap, "to describe a topic", error);
        let metadata =
            self.client.inner().fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| refuse(&error))?;
        let Some(found) = metadata.topics().first() else {
            return Err(KafkaError::NoTopic { topic: topic.to_owned() });
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(found.partitions().len() as i32),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Err(KafkaError::NoTopic { topic: topic.to_owned() }),
            Some(code) => Err(refuse(&ClientError::MetadataFetch(code))),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN))
}

/// Context of a client whose errors come back as results.
#[derive(Clone, Debug)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
    }
}
