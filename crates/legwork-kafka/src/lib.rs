//! Kafka: source, producer, dead letters, embedded broker.
//!
//! What lives here: everything that speaks to librdkafka. [`KafkaSource`] is the log that lanes read; [`Producer`] and [`DeadLetters`]
//! write; [`Admin`] makes and describes topics; [`EmbeddedBroker`] is a broker inside the process, for the demo and tests.
//! What does not: what messages mean.
//!
//! **Invariant:** `unsafe` is allowed in the module `ffi` alone.

mod admin;
mod claimer;
mod claims;
mod config;
mod context;
mod dead_letters;
mod embedded;
mod error;
mod ffi;
mod group;
mod health;
mod partitioner;
mod probe;
mod producer;
mod reader;
mod routing;
mod source;
mod topic;

pub use admin::{Admin, PartitionOffsets, TimestampType, TopicDescription, TopicSpec};
pub use config::{KafkaConfig, Start, check_options, is_secret};
pub use dead_letters::{DeadLetterError, DeadLetters};
pub use embedded::EmbeddedBroker;
pub use error::{ErrorKind, KafkaError};
pub use partitioner::{Partitioner, UnknownPartitioner, crc32, murmur2};
pub use producer::{Producer, ProducerConfig, SendError};
pub use routing::Routing;
pub use source::KafkaSource;
