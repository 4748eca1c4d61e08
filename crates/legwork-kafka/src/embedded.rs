//! A Kafka broker inside this process: librdkafka's mock cluster.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaType;

use crate::admin::Quiet;
use crate::error::{KafkaError, reason};
use crate::ffi;

/// Brokers on loopback that any Kafka client can talk to, gone with this value.
///
/// They keep everything in memory and start empty. Of each partition they keep the newest 5 MiB (as sent, compressed) in at most 100,000
/// batches; a reader that falls behind that loses its place, so producers must wait for it. They know groups (classic protocol),
/// idempotent producers, headers and compression; they do not know the topic admin requests (use [`EmbeddedBroker::create_topic`]), topic
/// settings, LogAppendTime, offsets by time (such a start begins at the end), security. A topic that a producer names is made by that,
/// with 4 partitions.
pub struct EmbeddedBroker {
    client: Client<Quiet>,
    bootstrap: String,
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

impl EmbeddedBroker {
    /// Bytes of a partition that are kept.
    pub const PARTITION_BYTES_MAX: usize = 5 << 20;

    /// Starts so many brokers on free ports. *Errors*: `Client` when librdkafka cannot.
    pub fn start(n_brokers: usize) -> Result<EmbeddedBroker, KafkaError> {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", n_brokers.max(1).to_string()).set_log_level(RDKafkaLogLevel::Error);
        let native = config.create_native_config().map_err(KafkaError::from_creation)?;
        let client =
            Client::new(&config, native, RDKafkaType::RD_KAFKA_PRODUCER, Quiet).map_err(KafkaError::from_creation)?;
        ffi::no_group_delay(&client);
        let bootstrap = cluster(&client)?.bootstrap_servers();
        Ok(EmbeddedBroker { client, bootstrap })
    }

    /// Addresses: `127.0.0.1:port`, comma-separated.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Makes a topic. *Errors*: `Client` when it exists already.
    pub fn create_topic(&self, name: &str, n_partitions: i32) -> Result<(), KafkaError> {
        cluster(&self.client)?.create_topic(name, n_partitions, 1).map_err(|error| failed(&error))
    }

    /// All brokers close their connections and accept no more, until [`EmbeddedBroker::up`].
    pub fn down(&self) -> Result<(), KafkaError> {
        cluster(&self.client)?.broker_down(-1).map_err(|error| failed(&error))
    }

    /// All brokers accept connections again.
    pub fn up(&self) -> Result<(), KafkaError> {
        cluster(&self.client)?.broker_up(-1).map_err(|error| failed(&error))
    }

    /// Delays every answer.
    pub fn set_delay(&self, delay: Duration) -> Result<(), KafkaError> {
        cluster(&self.client)?.broker_round_trip_time(-1, delay).map_err(|error| failed(&error))
    }
}

fn cluster(client: &Client<Quiet>) -> Result<MockCluster<'_, Quiet>, KafkaError> {
    client.mock_cluster().ok_or_else(|| KafkaError::Client { reason: "librdkafka made no embedded broker".to_owned() })
}

fn failed(error: &ClientError) -> KafkaError {
    KafkaError::Client { reason: format!("embedded broker: {}", reason(error)) }
}
