//! Brokers to test against, and a lane's way of reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use legwork_kafka::{Admin, EmbeddedBroker, KafkaConfig, KafkaSource, Producer, ProducerConfig, TopicSpec};
use legwork_runtime::{BatchLimit, LogSource, PartitionReader, ReadOutcome, SourceEvent};
use legwork_types::MessageBatch;

pub(crate) const WITHIN: Duration = Duration::from_secs(40);
pub(crate) const LIMIT: BatchLimit = BatchLimit { n_messages_max: 1_000, n_bytes_max: 1 << 20 };

/// Brokers.
pub(crate) struct Target {
    pub(crate) bootstrap: String,
    pub(crate) embedded: Option<EmbeddedBroker>,
}

impl Target {
    pub(crate) fn embedded() -> Target {
        let broker = EmbeddedBroker::start(1).unwrap();
        Target { bootstrap: broker.bootstrap().to_owned(), embedded: Some(broker) }
    }

    /// The real one. Its absence is a failure where CI is set, and loud elsewhere.
    pub(crate) fn real() -> Option<Target> {
        match std::env::var("LEGWORK_TEST_KAFKA") {
            Ok(bootstrap) if !bootstrap.is_empty() => Some(Target { bootstrap, embedded: None }),
            _ => {
                assert!(std::env::var_os("CI").is_none(), "LEGWORK_TEST_KAFKA is not set: CI must test a real Kafka");
                eprintln!("SKIPPED, NOT PASSED: LEGWORK_TEST_KAFKA is not set; LEGWORK_TEST_KAFKA=$(scripts/kafka up)");
                None
            }
        }
    }

    /// A new topic.
    pub(crate) fn topic(&self, name: &str, n_partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = unique(name);
        match &self.embedded {
            Some(broker) => broker.create_topic(&name, n_partitions).unwrap(),
            None => {
                let spec = settings.iter().fold(TopicSpec::new(&name, n_partitions), |spec, (k, v)| spec.set(k, v));
                Admin::new(&self.bootstrap, &[]).unwrap().create_topics(&[spec]).unwrap();
            }
        }
        name
    }

    pub(crate) fn producer(&self) -> Producer {
        Producer::new(&ProducerConfig::new(&self.bootstrap)).unwrap()
    }

    pub(crate) fn config(&self, topics: &[&str]) -> KafkaConfig {
        // The embedded broker lets every rebalance but a group's first take as long as a session.
        let short = [("session.timeout.ms", "3000"), ("heartbeat.interval.ms", "300")];
        let options = short.iter().filter(|_| self.embedded.is_some());
        KafkaConfig {
            options: options.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            bootstrap: self.bootstrap.clone(),
            group: unique("group"),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            ..KafkaConfig::default()
        }
    }
}

/// A name that no other test and no earlier run has.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    format!("{name}-{since:x}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A source and its readers, polled and read by one thread.
pub(crate) struct Member {
    pub(crate) source: KafkaSource,
    pub(crate) readers: Vec<Box<dyn PartitionReader>>,
    pub(crate) troubles: Vec<(String, String)>,
    pub(crate) recovered: Vec<String>,
    pub(crate) n_revocations: usize,
    /// Partitions that were lost, not given back.
    pub(crate) n_lost: usize,
    /// Messages by partition: (offset, arrival, key, value).
    pub(crate) messages: BTreeMap<(Arc<str>, i32), Vec<Received>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Received {
    pub(crate) offset: i64,
    pub(crate) arrival_us: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Member {
    pub(crate) fn new(source: KafkaSource) -> Member {
        Member {
            source,
            readers: Vec::new(),
            troubles: Vec::new(),
            recovered: Vec::new(),
            n_revocations: 0,
            n_lost: 0,
            messages: BTreeMap::new(),
        }
    }

    pub(crate) fn of(config: KafkaConfig) -> Member {
        Member::new(KafkaSource::new(config).unwrap())
    }

    pub(crate) fn poll(&mut self, timeout: Duration) {
        for event in self.source.poll(timeout) {
            match event {
                SourceEvent::Assigned(readers) => {
                    // A lane holds its state in memory: it begins anew.
                    for reader in &readers {
                        self.messages.remove(&(reader.topic().clone(), reader.partition()));
                    }
                    self.readers.extend(readers);
                }
                SourceEvent::Revoked { partitions, lost, done } => {
                    self.n_revocations += 1;
                    self.n_lost += if lost { partitions.len() } else { 0 };
                    self.readers.retain(|reader| !partitions.contains(&(reader.topic().clone(), reader.partition())));
                    done();
                }
                SourceEvent::Trouble { hop, message } => self.troubles.push((hop, message)),
                SourceEvent::Recovered { hop } => self.recovered.push(hop),
                SourceEvent::Fatal { message } => panic!("fatal: {message}"),
            }
        }
    }

    pub(crate) fn read(&mut self) -> usize {
        let mut n_read = 0;
        for reader in &mut self.readers {
            let mut batch = MessageBatch::new(reader.topic().clone(), reader.partition());
            if let ReadOutcome::Messages(n) = reader.read(&mut batch, LIMIT) {
                assert_eq!(n, batch.len());
                n_read += n;
            }
            let all = self.messages.entry((reader.topic().clone(), reader.partition())).or_default();
            all.extend(batch.iter().map(|message| Received {
                offset: message.offset,
                arrival_us: message.arrival_us,
                key: message.key.map(<[u8]>::to_vec),
                value: message.value.map(<[u8]>::to_vec),
            }));
        }
        n_read
    }

    /// Partitions held, by topic and number.
    pub(crate) fn held(&self) -> BTreeSet<(Arc<str>, i32)> {
        self.readers.iter().map(|reader| (reader.topic().clone(), reader.partition())).collect()
    }

    /// Why partitions of a topic can be read no further.
    pub(crate) fn gone(&self, topic: &str) -> BTreeMap<i32, String> {
        let of_topic = self.readers.iter().filter(|reader| **reader.topic() == *topic);
        of_topic.filter_map(|reader| Some((reader.partition(), reader.gone_because()?))).collect()
    }

    pub(crate) fn n_messages(&self) -> usize {
        self.messages.values().map(Vec::len).sum()
    }

    /// Polls and reads until `is_enough`.
    pub(crate) fn until(&mut self, what: &str, is_enough: impl Fn(&Member) -> bool) {
        let deadline = Instant::now() + WITHIN;
        while !is_enough(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: {} messages, {} partitions, troubles {:?}, recovered {:?}",
                self.n_messages(),
                self.readers.len(),
                self.troubles,
                self.recovered
            );
            let n_read = self.read();
            self.poll(if n_read > 0 { Duration::ZERO } else { Duration::from_millis(10) });
        }
    }

    pub(crate) fn close(mut self) {
        self.readers.clear();
        self.source.close();
    }
}

/// Sends `n` messages, keys and values numbered, and waits for them to arrive.
pub(crate) fn send_numbered(producer: &Producer, topic: &str, from: usize, n: usize) {
    for number in from..from + n {
        let (key, value) = (format!("key-{}", number % 97), format!("value-{number}"));
        producer.send(topic, None, Some(key.as_bytes()), Some(value.as_bytes()), &[], None).unwrap();
    }
    assert_eq!(producer.flush(WITHIN), 0, "{:?}", producer.last_error());
}

impl Member {
    /// Polls, without reading, until it has so many partitions.
    pub(crate) fn until_assigned(&mut self, n_partitions: usize) {
        let deadline = Instant::now() + WITHIN;
        while self.readers.len() != n_partitions {
            assert!(Instant::now() < deadline, "{} partitions, {:?}", self.readers.len(), self.troubles);
            self.poll(Duration::from_millis(10));
        }
    }
}

impl Target {
    /// Makes a topic of this very name.
    pub(crate) fn create(&self, name: &str, n_partitions: i32) {
        match &self.embedded {
            Some(broker) => broker.create_topic(name, n_partitions).unwrap(),
            None => {
                let spec = TopicSpec::new(name, n_partitions);
                Admin::new(&self.bootstrap, &[]).unwrap().create_topics(&[spec]).unwrap();
            }
        }
    }
}

/// A message with its headers: headers, key, value.
pub(crate) type WithHeaders = (BTreeMap<String, String>, Option<Vec<u8>>, Option<Vec<u8>>);

/// Reads messages with headers by a plain consumer, so that ours is not judge in its own case.
pub(crate) fn with_headers(bootstrap: &str, topic: &str, n: usize) -> Vec<WithHeaders> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::{Headers, Message};
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", unique("plain"))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let deadline = Instant::now() + WITHIN;
    let mut received = Vec::new();
    while received.len() < n {
        assert!(Instant::now() < deadline, "{} of {n} messages in {topic}", received.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let headers = message.headers().unwrap().iter();
            let headers = headers.map(|header| (header.key.to_owned(), text(header.value.unwrap()))).collect();
            received.push((headers, message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec)));
        }
    }
    received
}
