//! Canonical rows to Kafka: Avro in our own schemas, keyed, paced by whoever calls.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, RecordBatch, StringArray};
use legwork_codec::RegistryClient;
use legwork_codec::encode::Encoder;
use legwork_kafka::{Producer, ProducerConfig, SendError};
use legwork_types::Kind;

use crate::config::Config;
use crate::exit::Failure;
use crate::topics;

/// How long the producer's queue may stay full.
const QUEUE_FULL_MAX: Duration = Duration::from_secs(60);

/// Sends rows of any kind.
pub(crate) struct Publisher {
    producer: Producer,
    registry: RegistryClient,
    encoders: HashMap<Kind, (String, u32, Encoder)>,
    topic_of: HashMap<Kind, String>,
    n_sent: u64,
}

impl Publisher {
    pub(crate) fn new(config: &Config, bootstrap: &str, registry: RegistryClient) -> Result<Publisher> {
        let options = topics::kafka_options(config)?;
        let producer = Producer::new(&ProducerConfig { options, ..ProducerConfig::new(bootstrap) })?;
        let topic_of = Kind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind, config.topics.of(kind).names?.first()?.clone())))
            .collect();
        Ok(Publisher { producer, registry, encoders: HashMap::new(), topic_of, n_sent: 0 })
    }

    /// The topic that a kind is sent to.
    pub(crate) fn topic(&self, kind: Kind) -> String {
        self.topic_of.get(&kind).cloned().unwrap_or_else(|| kind.topic().to_owned())
    }

    /// Messages sent so far.
    pub(crate) fn n_sent(&self) -> u64 {
        self.n_sent
    }

    /// Sends every row of a batch. *Shape:* N rows, N keys, N record timestamps in microseconds.
    pub(crate) async fn send(
        &mut self,
        kind: Kind,
        rows: &RecordBatch,
        keys: &StringArray,
        timestamp_us: &[i64],
    ) -> Result<()> {
        let topic = self.topic(kind);
        if !self.encoders.contains_key(&kind) {
            let subject = format!("{topic}-value");
            let id = self
                .registry
                .register(&subject, kind.avro())
                .await
                .with_context(|| format!("registering {subject}"))?;
            self.encoders.insert(kind, (topic.clone(), id, Encoder::new(kind)));
        }
        let Some((topic, id, encoder)) = self.encoders.get_mut(&kind) else { return Ok(()) };
        let mut framed: Vec<Vec<u8>> = Vec::with_capacity(rows.num_rows());
        encoder.encode(rows, *id, &mut |_, bytes| framed.push(bytes.to_vec()));
        for (row, value) in framed.iter().enumerate() {
            let key = keys.is_valid(row).then(|| keys.value(row).as_bytes());
            let full_since = std::time::Instant::now();
            loop {
                match self.producer.send(topic, None, key, Some(value), &[], Some(timestamp_us[row] / 1_000)) {
                    Ok(()) => break,
                    Err(SendError::QueueFull) if full_since.elapsed() < QUEUE_FULL_MAX => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(error) => return Err(error).with_context(|| format!("sending to {topic}")),
                }
            }
        }
        self.n_sent += rows.num_rows() as u64;
        Ok(())
    }

    /// Waits until everything is acknowledged.
    ///
    /// *Errors:* when some of it is not, in that time.
    pub(crate) fn flush(&self, timeout: Duration) -> Result<()> {
        let n_left = self.producer.flush(timeout);
        if n_left > 0 {
            let cause = self.producer.last_error().map(|error| format!(": {error}")).unwrap_or_default();
            bail!(Failure::Temporary(format!("{n_left} messages have not been acknowledged{cause}")));
        }
        Ok(())
    }
}
