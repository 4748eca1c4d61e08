//! What a consumer is configured with, and librdkafka's options that follow from it.

use std::fmt;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::error::KafkaError;

/// Where a partition without a checkpoint starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message there is.
    Earliest,
    /// With the next message.
    Latest,
    /// With the first message whose record timestamp is at or after this time, microseconds since 1970-01-01 UTC; where there is none,
    /// with the next message.
    Time(i64),
}

/// How to reach Kafka and what to read there.
#[derive(Clone)]
pub struct KafkaConfig {
    /// Addresses of some brokers: `host:port`, comma-separated.
    pub bootstrap: String,
    /// Consumer group.
    pub group: String,
    /// `group.instance.id`: a member that comes back within the session time-out finds its partitions again. None: a passing member,
    /// whose partitions go to others the moment it leaves.
    pub instance_id: Option<String>,
    /// Where partitions start.
    pub start: Start,
    /// Memory for what is fetched and not yet read, over all partitions, with what librdkafka and the allocator need beside it.
    pub fetch_bytes_max: usize,
    /// Size of the largest message that is expected, bytes.
    pub message_bytes_max: usize,
    /// Topics.
    pub topics: Vec<String>,
    /// librdkafka's own options, verbatim; they win over ours.
    pub options: Vec<(String, String)>,
}

impl Default for KafkaConfig {
    fn default() -> KafkaConfig {
        KafkaConfig {
            bootstrap: "localhost:9092".to_owned(),
            group: "legwork".to_owned(),
            instance_id: None,
            start: Start::Earliest,
            fetch_bytes_max: 128 << 20,
            message_bytes_max: 1 << 20,
            topics: Vec::new(),
            options: Vec::new(),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap", &self.bootstrap)
            .field("group", &self.group)
            .field("instance_id", &self.instance_id)
            .field("start", &self.start)
            .field("fetch_bytes_max", &self.fetch_bytes_max)
            .field("message_bytes_max", &self.message_bytes_max)
            .field("topics", &self.topics)
            .field("options", &Masked(&self.options))
            .finish()
    }
}

/// Whether the value of this librdkafka option may never be shown.
pub fn is_secret(option: &str) -> bool {
    let name = option.to_ascii_lowercase();
    const PARTS: [&str; 7] = ["password", "secret", "token", "credential", ".pem", "private", "userinfo"];
    const STARTS: [&str; 3] = ["sasl.", "ssl.key", "oauthbearer"];
    // How one logs in is no secret, and the first thing to look at when it fails.
    let shown = matches!(name.as_str(), "sasl.mechanism" | "sasl.mechanisms" | "sasl.oauthbearer.method");
    !shown && (PARTS.iter().any(|part| name.contains(part)) || STARTS.iter().any(|start| name.starts_with(start)))
}

/// Refuses options that librdkafka does not know, and values that it cannot read, without asking any broker.
pub fn check_options(options: &[(String, String)]) -> Result<(), KafkaError> {
    let mut config = client_config("localhost", None);
    apply(&mut config, options);
    config.create_native_config().map(drop).map_err(KafkaError::from_creation)
}

/// What librdkafka's CONFIGURATION.md lists, but for what is deprecated and what only a program can set.
const NAMES: &str = include_str!("option_names.txt");

/// The option that was probably meant.
pub(crate) fn nearest_option(name: &str) -> Option<&'static str> {
    let similarity = |option: &&str| strsim::normalized_damerau_levenshtein(&name.to_ascii_lowercase(), option);
    let nearest = NAMES.lines().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    nearest.filter(|option| similarity(option) > 0.6)
}

/// Options as they may be shown.
pub(crate) struct Masked<'a>(pub(crate) &'a [(String, String)]);

impl fmt::Debug for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| (name, if is_secret(name) { "***" } else { value.as_str() }));
        f.debug_map().entries(shown).finish()
    }
}

/// What a message costs in librdkafka beside its bytes (an `rd_kafka_op_t` from malloc), so that many small messages do not take ten
/// times the memory that was allowed.
const MESSAGE_OVERHEAD_BYTES: usize = 384;

/// The queues get this part of `fetch_bytes_max`. The rest is for pieces under way and for what the allocator keeps of freed messages:
/// with 8 partitions of small messages, queues of 128 MiB raised the process's peak by some 40 to 110 MiB over queues of 64 MiB, and
/// made nothing faster. Much smaller ones make small batches, which cost the lanes more.
const QUEUES_PART: usize = 3;

impl KafkaConfig {
    /// Options of every client.
    fn client(&self) -> ClientConfig {
        client_config(&self.bootstrap, self.instance_id.as_deref())
    }

    /// `group.instance.id` and `client.id`, as the consumer has them.
    pub(crate) fn identity(&self) -> (String, String) {
        let config = self.consumer(1);
        let option = |name: &str| config.get(name).unwrap_or_default().to_owned();
        (option("group.instance.id"), option("client.id"))
    }

    /// A client that only asks.
    pub(crate) fn asking(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("statistics.interval.ms", "1000").set("allow.auto.create.topics", "false");
        apply(&mut config, &self.options);
        // Without a group of its own, whatever the options say: it must not join one.
        for name in ["group.id", "group.instance.id", "group.protocol", "group.remote.assignor"] {
            config.remove(name);
        }
        config
    }

    /// The consumer. librdkafka bounds each partition's queue by itself, so `fetch_bytes_max` is divided by `n_partitions`, the
    /// partitions of all subscribed topics: an instance that shares them with others stays below.
    pub(crate) fn consumer(&self, n_partitions: usize) -> ClientConfig {
        let queues_bytes = self.fetch_bytes_max / QUEUES_PART;
        let share_bytes = queues_bytes / n_partitions.max(1);
        let queue_kib = (share_bytes >> 10).clamp(64, 2_097_151);
        // librdkafka asks for another piece while the queue is below this, so half of the share is left for that piece.
        let queue_messages = (share_bytes / 2 / MESSAGE_OVERHEAD_BYTES).clamp(100, 100_000);
        // Pieces of 512 KiB and more are cheap enough for the broker. They come compressed, and small messages take ten times the bytes
        // once they are unpacked, each with what librdkafka adds.
        let piece_bytes = (share_bytes / 16).clamp(64 << 10, 1 << 20);
        let answer_bytes = (queues_bytes / 2).clamp(self.message_bytes_max.max(piece_bytes), 50 << 20);
        let mut config = self.client();
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A lane whose offset is gone halts: starting elsewhere by itself would lose or repeat messages in silence.
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("statistics.interval.ms", "1000")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.error.backoff.ms", "200")
            .set("queued.max.messages.kbytes", queue_kib.to_string())
            .set("queued.min.messages", queue_messages.to_string())
            .set("max.partition.fetch.bytes", piece_bytes.to_string())
            .set("fetch.max.bytes", answer_bytes.to_string());
        if let Some(instance_id) = &self.instance_id {
            config.set("group.instance.id", instance_id);
        }
        let protocol = self.options.iter().rev().find(|(name, _)| name == "group.protocol");
        // With the newer protocol the broker assigns, and librdkafka refuses the classic one's options.
        if protocol.is_none_or(|(_, value)| value.eq_ignore_ascii_case("classic")) {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        apply(&mut config, &self.options);
        config
    }
}

/// Options of every client of ours.
pub(crate) fn client_config(bootstrap: &str, instance_id: Option<&str>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", instance_id.map_or("legwork".to_owned(), |id| format!("legwork-{id}-{}", *PROCESS)))
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "2000")
        .set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Tells this process from others that run, or ran, with the same instance id.
static PROCESS: LazyLock<String> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}", since.as_micros())
});

/// Sets the user's options last, so that they win.
pub(crate) fn apply(config: &mut ClientConfig, options: &[(String, String)]) {
    for (name, value) in options {
        config.set(name, value);
        if name == "debug" {
            config.set_log_level(RDKafkaLogLevel::Debug);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn with(options: &[(&str, &str)]) -> KafkaConfig {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        KafkaConfig { options, ..KafkaConfig::default() }
    }

    #[test]
    fn secrets_are_masked() {
        let options = [
            ("sasl.password", "hunter2"),
            ("sasl.username", "hunter2"),
            ("ssl.key.location", "hunter2"),
            ("ssl.keystore.password", "hunter2"),
            ("ssl.certificate.pem", "hunter2"),
            ("sasl.oauthbearer.client.secret", "hunter2"),
            ("oauthbearer_token", "hunter2"),
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
        ];
        let shown = format!("{:?}", with(&options));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("sasl_ssl") && shown.contains("SCRAM-SHA-512"), "{shown}");
    }

    #[test]
    fn options_win_and_the_newer_protocol_gets_none_of_the_classic_defaults() {
        let config = with(&[("fetch.wait.max.ms", "7")]).consumer(4);
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        config.create_native_config().unwrap();

        let config = with(&[("group.protocol", "consumer")]).consumer(4);
        for name in ["partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"] {
            assert_eq!(config.get(name), None);
        }
        config.create_native_config().unwrap();
    }

    #[test]
    fn a_misspelt_option_is_told_with_the_right_name() {
        let told = |name: &str| check_options(&with(&[(name, "hunter2")]).options).unwrap_err().to_string();
        let unknown = |name: &str, meant: &str| {
            format!(
                "kafka option {name}: there is no such option{meant}; the names in [kafka.options] are librdkafka's own"
            )
        };
        assert_eq!(told("securty.protocol"), unknown("securty.protocol", "; did you mean security.protocol?"));
        assert_eq!(told("sasl.pasword"), unknown("sasl.pasword", "; did you mean sasl.password?"));
        assert_eq!(told("session_timeout_ms"), unknown("session_timeout_ms", "; did you mean session.timeout.ms?"));
        assert_eq!(told("colour"), unknown("colour", ""));
        assert!(told("ssl.truststore.location").contains("ssl.ca.location"));
        assert!(told("security.protocol").contains("Invalid value"));
        check_options(&with(&[("security.protocol", "plaintext")]).options).unwrap();
    }

    #[test]
    fn librdkafka_knows_every_name_that_is_suggested() {
        for name in NAMES.lines() {
            let refused = check_options(&with(&[(name, "0")]).options).err().map(|error| error.to_string());
            assert!(!refused.as_ref().is_some_and(|error| error.contains("no such option")), "{refused:?}");
        }
    }

    #[test]
    fn the_memory_of_fetch_queues_is_divided() {
        let config = KafkaConfig::default();
        let kib = |n_partitions| -> usize {
            config.consumer(n_partitions).get("queued.max.messages.kbytes").unwrap().parse().unwrap()
        };
        assert_eq!(kib(4), (128 << 10) / 3 / 4);
        assert_eq!(kib(16), (128 << 10) / 3 / 16);
        config.consumer(1).create_native_config().unwrap();
        config.consumer(100_000).create_native_config().unwrap();
    }
}
