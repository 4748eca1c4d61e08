//! From the configuration to what lanes, source and decoders need.

use std::sync::Arc;

use anyhow::Result;
use legwork_codec::{Format, RegistryClient, RegistryConfig};
use legwork_kafka::{KafkaConfig, Start};
use legwork_operators::{DedupConfig, OperatorConfig, TrackConfig};
use legwork_runtime::{LaneConfig, RawEvents, SpillConfig, TopicConfig};
use legwork_types::Kind;
use legwork_types::time::{DAY_US, TimeConfig};

use crate::config::{self, Config, ConfigError, Partitioner};

/// Age beyond which pings are rejected.
const GPS_PAST_US_MAX: i64 = 30 * DAY_US;
/// Age beyond which other events are rejected.
const PAST_US_MAX: i64 = 3_650 * DAY_US;

/// The topics to read. Kinds that are switched off are not among them.
pub(crate) fn topics(config: &Config, registry: &RegistryClient) -> Vec<TopicConfig> {
    let topic = |(kind, name): (Kind, String)| {
        let settings = config.topics.of(kind);
        let past_us_max = if kind == Kind::Gps { GPS_PAST_US_MAX } else { PAST_US_MAX };
        TopicConfig {
            name: name.into(),
            kind,
            format: match settings.format {
                config::Format::Avro => Format::Avro(registry.clone()),
                config::Format::Json => Format::Json,
            },
            past_max_us: Some(settings.past_max.map_or(past_us_max, |span| span.0)),
        }
    };
    names(config).into_iter().map(topic).collect()
}

/// Every topic that is to be read, with its kind.
pub(crate) fn names(config: &Config) -> Vec<(Kind, String)> {
    Kind::ALL
        .into_iter()
        .filter(|&kind| config.topics.of(kind).enabled && (!kind.is_reference() || config.reference.topics))
        .flat_map(|kind| {
            let names = config.topics.of(kind).names.unwrap_or_else(|| vec![kind.topic().to_owned()]);
            names.into_iter().map(move |name| (kind, name))
        })
        .collect()
}

/// Whether the topic's absence is a fault: somebody wrote its name down, or it is not reference data.
pub(crate) fn is_explicit(config: &Config, topic: &str) -> bool {
    Kind::ALL.into_iter().any(|kind| {
        config.topics.is_explicit(kind)
            && config.topics.of(kind).names.is_some_and(|names| names.iter().any(|name| name == topic))
    })
}

/// librdkafka's options as text; `NAME_file` is read.
pub(crate) fn kafka_options(config: &Config) -> Result<Vec<(String, String)>, ConfigError> {
    config
        .kafka
        .options
        .0
        .iter()
        .map(|(name, value)| {
            let text = match value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match name.strip_suffix("_file") {
                Some(name) => Ok((name.to_owned(), config::read_secret(text.as_ref())?)),
                None => Ok((name.clone(), text)),
            }
        })
        .collect()
}

/// What the Kafka source is made of.
pub(crate) fn kafka(config: &Config, topics: &[TopicConfig]) -> Result<KafkaConfig, ConfigError> {
    let start = match config.kafka.start.as_str() {
        "earliest" => Start::Earliest,
        "latest" => Start::Latest,
        time => Start::Time(parse_time(time).map_err(|error| {
            ConfigError(format!("kafka.start is wrong: expected earliest, latest or a time; {error}"))
        })?),
    };
    Ok(KafkaConfig {
        bootstrap: config.kafka.bootstrap.clone(),
        group: config.kafka.group.clone(),
        instance_id: Some(config.instance.id.clone()),
        start,
        fetch_bytes_max: config.kafka.fetch_bytes_max.bytes(),
        message_bytes_max: config.kafka.message_bytes_max.bytes(),
        topics: topics.iter().map(|topic| topic.name.to_string()).collect(),
        options: kafka_options(config)?,
    })
}

/// A registry client as configured.
pub(crate) fn registry(config: &Config, handle: tokio::runtime::Handle) -> Result<RegistryClient> {
    let registry = &config.registry;
    let password = match &registry.password_file {
        Some(path) => Some(config::read_secret(path)?),
        None => registry.password.clone(),
    };
    let token = registry.token_file.as_deref().map(config::read_secret).transpose()?;
    let settings = RegistryConfig {
        url: registry.url.clone(),
        username: registry.username.clone(),
        password,
        token,
        ca_file: registry.ca_file.clone(),
        timeout: registry.timeout.duration(),
        ..RegistryConfig::default()
    };
    Ok(RegistryClient::new(settings, handle).map_err(|error| ConfigError(format!("registry: {error}")))?)
}

/// How operators treat time and what they keep.
pub(crate) fn operators(config: &Config) -> OperatorConfig {
    let time = &config.time;
    let track = &config.track;
    OperatorConfig {
        time: TimeConfig {
            window_us: time.window.0,
            reorder_bound_us: time.reorder_bound.0,
            idle_close_us: time.idle_close.0,
            late_horizon_us: time.late_horizon.0,
        },
        dedup: DedupConfig {
            horizon_us: config.dedup.horizon.0,
            memory_bytes_max: config.dedup.memory_bytes_max.bytes(),
        },
        track: TrackConfig {
            accuracy_m_max: track.accuracy_m_max,
            speed_mps_max: track.speed_mps_max,
            anchor_m_min: track.anchor_m_min,
            anchor_accuracy_factor: track.anchor_accuracy_factor,
            stay_radius_m: track.stay_radius_m,
            stay_min_us: track.stay_min.0,
            gap_max_us: track.gap_max.0,
            memory_bytes_max: track.memory_bytes_max.0,
            has_store: false,
        },
        ..OperatorConfig::default()
    }
}

/// What every lane needs to know.
pub(crate) fn lanes(config: &Config) -> LaneConfig {
    LaneConfig {
        operators: operators(config),
        future_skew_us_max: config.time.future_skew_max.0,
        lane_idle_after: config.time.lane_idle_after.duration(),
        revision_every: config.store.checkpoint_every.duration(),
        message_bytes_max: config.kafka.message_bytes_max.bytes(),
        owner: Arc::from(config.instance.id.as_str()),
        partition_of: match config.kafka.partitioner {
            Partitioner::Murmur2 => Some(|key, n| legwork_kafka::Partitioner::Murmur2.partition(key, n)),
            Partitioner::Crc32 => Some(|key, n| legwork_kafka::Partitioner::Crc32.partition(key, n)),
            Partitioner::Any => None,
        },
        raw_events: if config.lake.raw_events { RawEvents::All } else { RawEvents::Only(Vec::new()) },
        spill: SpillConfig {
            dir: config.instance.cache_dir.clone(),
            memory_bytes_max: config.lake.raw_events_memory_max.bytes(),
            disk_bytes_max: config.lake.raw_events_disk_max.0,
        },
        dead_letters: None,
        delivery: None,
    }
}

/// A time as people write it, microseconds since 1970-01-01 UTC.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_micros())
        .or_else(|_| {
            let naive = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").or_else(|_| {
                chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|date| date.and_time(chrono::NaiveTime::MIN))
            });
            naive.map(|time| time.and_utc().timestamp_micros())
        })
        .map_err(|_| format!("{text:?} is no time: expected RFC 3339, such as 2026-01-31T09:00:00Z"))
}
