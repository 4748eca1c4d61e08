//! Values that no type can refuse.

use std::collections::HashMap;

use super::load::nearest;
use super::{Config, ConfigError, Span};
use crate::topics;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// librdkafka's options that delivery rests on, and what says the same here. With any of them changed, messages would be skipped or read
/// again without a word.
const OURS: [(&str, &str); 4] = [
    (
        "auto.offset.reset",
        "kafka.start says where lanes without a checkpoint start, and a lane whose offset is gone must halt",
    ),
    ("enable.auto.commit", "offsets are committed after checkpoints"),
    ("auto.commit.enable", "offsets are committed after checkpoints"),
    ("enable.auto.offset.store", "offsets are committed after checkpoints"),
];

/// Refuses what would fail later, or would quietly do something that nobody asks for.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    check_times(config)?;
    check_sizes(config)?;
    check_track(config)?;
    check_names(config)?;
    check_retention(config)?;
    check_topics(config)
}

fn wrong<T>(key: &str, expected: impl std::fmt::Display) -> Result<T, ConfigError> {
    Err(ConfigError(format!("{key} is wrong: expected {expected}")))
}

fn check_times(config: &Config) -> Result<(), ConfigError> {
    if config.time.window.0 < SECOND || DAY % config.time.window.0 != 0 {
        return wrong("time.window", "at least 1s and a divisor of a day, such as 1m, 5m, 15m or 1h");
    }
    let periods = [
        ("registry.timeout", config.registry.timeout),
        ("query.timeout", config.query.timeout),
        ("metrics.every", config.metrics.every),
        ("store.checkpoint_every", config.store.checkpoint_every),
        ("lake.commit_every", config.lake.commit_every),
    ];
    match periods.into_iter().find(|(_, span)| span.0 < SECOND / 10) {
        Some((key, _)) => wrong(key, "at least 100ms"),
        None => Ok(()),
    }
}

fn check_sizes(config: &Config) -> Result<(), ConfigError> {
    if config.kafka.message_bytes_max.0 == 0 || config.kafka.message_bytes_max.0 > 1 << 30 {
        return wrong("kafka.message_bytes_max", "between 1B and 1GiB");
    }
    let least = [
        ("kafka.fetch_bytes_max", config.kafka.fetch_bytes_max.0),
        ("lake.file_bytes_target", config.lake.file_bytes_target.0),
        ("query.concurrency", config.query.concurrency as u64),
        ("query.memory_bytes_max", config.query.memory_bytes_max.0),
        ("query.rows_max", config.query.rows_max),
        ("query.result_bytes_max", config.query.result_bytes_max.0),
        ("query.sql_bytes_max", config.query.sql_bytes_max.0),
        ("metrics.series_max", config.metrics.series_max as u64),
    ];
    match least.into_iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => wrong(key, "more than 0"),
        None => Ok(()),
    }
}

fn check_track(config: &Config) -> Result<(), ConfigError> {
    let track = &config.track;
    let positive = [
        ("track.accuracy_m_max", track.accuracy_m_max),
        ("track.speed_mps_max", track.speed_mps_max),
        ("track.stay_radius_m", track.stay_radius_m),
    ];
    if let Some((key, _)) = positive.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
        return wrong(key, "a number above 0");
    }
    for (key, span) in [("track.gap_max", track.gap_max), ("track.stay_min", track.stay_min)] {
        if span.0 <= 0 || span.0 > 7 * DAY {
            return wrong(key, "more than 0 and at most 7d");
        }
    }
    let not_negative =
        [("track.anchor_m_min", track.anchor_m_min), ("track.anchor_accuracy_factor", track.anchor_accuracy_factor)];
    match not_negative.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
        Some((key, _)) => wrong(key, "a number, 0 or more"),
        None => Ok(()),
    }
}

fn check_names(config: &Config) -> Result<(), ConfigError> {
    // The log's filter takes any other word for the name of a module, and then says nothing at all.
    let is_level = |word: &str| LEVELS.contains(&word.trim().to_ascii_lowercase().as_str());
    if !config.log.level.split(',').all(|word| word.contains(['=', '[']) || is_level(word)) {
        return wrong(
            "log.level",
            format_args!(
                "error, warn, info, debug, trace, or a filter such as info,legwork_kafka=debug, found {:?}",
                config.log.level
            ),
        );
    }
    if config.kafka.bootstrap.trim().is_empty() {
        return wrong("kafka.bootstrap", "host:port, comma-separated");
    }
    for (key, name) in [("instance.id", &config.instance.id), ("kafka.group", &config.kafka.group)] {
        if name.trim().is_empty() {
            return wrong(key, "a name");
        }
    }
    if let Some((option, why)) = OURS.iter().find(|(option, _)| config.kafka.options.0.contains_key(*option)) {
        return Err(ConfigError(format!("kafka.options.{option} cannot be set: {why}")));
    }
    let currency = &config.business.currency;
    match currency.len() == 3 && currency.bytes().all(|letter| letter.is_ascii_uppercase()) {
        true => Ok(()),
        false => wrong("business.currency", format_args!("a code of ISO 4217 such as USD, found {currency:?}")),
    }
}

fn check_retention(config: &Config) -> Result<(), ConfigError> {
    let tables = super::lake_tables();
    for (table, &Span(kept_us)) in &config.lake.retention {
        if !tables.contains(table) {
            let hint = match nearest(table, &tables) {
                Some(nearest) => format!("did you mean lake.retention.{nearest}?"),
                None => format!("expected one of {}", tables.join(", ")),
            };
            return Err(ConfigError(format!("lake.retention.{table}: the lake has no table called {table}: {hint}")));
        }
        if kept_us < DAY {
            return wrong(&format!("lake.retention.{table}"), "at least 1d, since whole days are dropped");
        }
    }
    Ok(())
}

/// A message is of one kind: two readings of a topic would reject each other's.
fn check_topics(config: &Config) -> Result<(), ConfigError> {
    for (kind, topic) in &config.topics.0 {
        if topic.names.as_ref().is_some_and(|names| names.is_empty() || names.iter().any(|name| name.trim().is_empty()))
        {
            return wrong(&format!("topics.{kind}.names"), "names of topics; enabled = false reads none");
        }
    }
    let mut kinds = HashMap::new();
    for (kind, name) in topics::names(config) {
        if let Some(other) = kinds.insert(name.clone(), kind) {
            return Err(ConfigError(format!(
                "topic {name} stands under both topics.{other} and topics.{kind}: a topic holds one kind, and is named once"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, load};

    #[test]
    fn values_that_cannot_work_are_refused_by_their_key() {
        for set in [
            "time.window=7m",
            "query.timeout=0s",
            "metrics.every=0s",
            "store.checkpoint_every=0s",
            "lake.commit_every=1us",
            "registry.timeout=0s",
            "query.concurrency=0",
            "query.rows_max=0",
            "kafka.fetch_bytes_max=0B",
            "kafka.message_bytes_max=2GiB",
            "track.accuracy_m_max=nan",
            "track.speed_mps_max=-1",
            "track.stay_radius_m=inf",
            "track.anchor_m_min=-1",
            "log.level=verbose",
            "log.level=info,legwork",
            "instance.id=",
            "kafka.group= ",
            "kafka.bootstrap=",
            "business.currency=dollars",
            "kafka.options.auto.offset.reset=earliest",
            "kafka.options.enable.auto.commit=true",
            "lake.retention.gps_pings=1h",
            "lake.retention.gps_ping=1d",
            "topics.gps.names=[]",
            "topics.gps.names=a,",
        ] {
            let (key, value) = set.split_once('=').expect("a pair");
            let refused =
                load(&Overrides { file: None, set: vec![(key.to_owned(), value.to_owned())] }).expect_err(set);
            assert!(refused.0.starts_with(key), "{set}: {refused}");
        }
        for set in [
            "log.level=info,legwork_kafka=debug",
            "track.anchor_m_min=0",
            "lake.maintain_every=0s",
            "topics.gps.names=a,b",
        ] {
            let (key, value) = set.split_once('=').expect("a pair");
            load(&Overrides { file: None, set: vec![(key.to_owned(), value.to_owned())] }).expect(set);
        }
    }

    #[test]
    fn a_topic_is_of_one_kind() {
        let set = |names: &str| vec![("topics.calls.names".to_owned(), names.to_owned())];
        for names in ["field.gps-pings.v1", "a,a"] {
            let refused = load(&Overrides { file: None, set: set(names) }).expect_err(names);
            assert!(refused.0.contains("topics.calls"), "{refused}");
        }
    }
}
