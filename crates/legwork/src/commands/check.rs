//! `legwork check`: every hop, one after the other, with what to do about what is wrong.

use std::io::Write;

use anyhow::{Result, bail};
use legwork_kafka::{Admin, Partitioner, Routing, TimestampType, TopicDescription};
use legwork_types::{Kind, Shape};
use serde::Serialize;

use super::check_kept::check_kept;
use crate::args::CheckArgs;
use crate::config::{self, Config, ConfigError};
use crate::exit::{self, Failure};
use crate::topics;

#[derive(Debug, Serialize)]
struct Finding {
    hop: String,
    status: Status,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Vec<Finding>,
    /// Whether trying again cannot help.
    pub(super) is_config: bool,
}

impl Findings {
    pub(super) fn add(&mut self, hop: impl Into<String>, status: Status, message: impl Into<String>) {
        self.found.push(Finding { hop: hop.into(), status, message: message.into() });
    }
}

pub(crate) async fn run(args: CheckArgs) -> Result<()> {
    let config = config::load_quiet(&args.config.overrides(), "error")?;
    super::start_logging(&config)?;
    let mut findings = Findings::default();
    let kafka_options = topics::kafka_options(&config)?;
    if let Err(refused) = legwork_kafka::check_options(&kafka_options) {
        bail!(refused);
    }
    match config.without_effect().as_slice() {
        [] => findings.add("configuration", Status::Ok, "every key is known and every value makes sense"),
        notices => findings.add("configuration", Status::Warning, notices.join("; ")),
    }
    check_registry(&config, &mut findings).await;
    check_kept(&config, &mut findings).await;
    let kafka = config.clone();
    let brokers = tokio::task::spawn_blocking(move || {
        let mut findings = Findings::default();
        check_kafka(&kafka, &mut findings);
        findings
    });
    let brokers = brokers.await?;
    findings.found.extend(brokers.found);
    findings.is_config |= brokers.is_config;
    print(&findings.found, args.json)?;
    let n_failed = findings.found.iter().filter(|finding| finding.status == Status::Failed).count();
    let told = format!("{n_failed} of {} checks failed", findings.found.len());
    match n_failed {
        0 => Ok(()),
        _ if findings.is_config => bail!(Failure::Config(ConfigError(told))),
        _ => bail!(Failure::Temporary(told)),
    }
}

fn print(findings: &[Finding], json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(findings)?)?;
        return Ok(());
    }
    for finding in findings {
        let mark = match finding.status {
            Status::Ok => "ok     ",
            Status::Warning => "warning",
            Status::Failed => "FAILED ",
        };
        writeln!(out, "{mark}  {}: {}", finding.hop, finding.message)?;
    }
    Ok(())
}

async fn check_registry(config: &Config, findings: &mut Findings) {
    let needs_registry = Kind::ALL.into_iter().any(|kind| {
        let topic = config.topics.of(kind);
        topic.enabled && topic.format == config::Format::Avro
    });
    if !needs_registry {
        findings.add("registry", Status::Ok, "not needed: every topic is JSON");
        return;
    }
    let hop = format!("registry {}", config::without_password(&config.registry.url));
    let health = match topics::registry(config, tokio::runtime::Handle::current()) {
        Ok(client) => client.health().await.map_err(|error| error.to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    match health {
        Ok(()) => findings.add(hop, Status::Ok, "answers"),
        Err(message) => findings.add(hop, Status::Failed, format!("{message}; check registry.url and its credentials")),
    }
}

fn check_kafka(config: &Config, findings: &mut Findings) {
    let hop = format!("broker {}", config.kafka.bootstrap);
    let (admin, found) = match listed(config) {
        Ok(listed) => listed,
        Err(error) => {
            findings.is_config = exit::is_config(&error);
            let hint = if findings.is_config { "" } else { "; check kafka.bootstrap, the network and kafka.options" };
            return findings.add(hop, Status::Failed, format!("{error}{hint}"));
        }
    };
    findings.add(hop, Status::Ok, "answers");
    let wanted = topics::names(config);
    let exists = |name: &str| found.iter().any(|(topic, _)| topic == name);
    if !wanted.iter().any(|(kind, name)| !kind.is_reference() && exists(name)) {
        findings.add("topics", Status::Failed, "no topic of events exists: create them, or set topics.KIND.names");
    }
    for (kind, name) in wanted {
        if exists(&name) {
            match admin.describe(&name) {
                Ok(topic) => {
                    check_topic(config, kind, &topic, findings);
                    check_keys(config, kind, &topic, &admin, findings);
                }
                Err(error) => findings.add(format!("topic {name}"), Status::Failed, error.to_string()),
            }
        } else if topics::is_explicit(config, &name) {
            let message = format!("does not exist: create it or change topics.{kind}.names");
            findings.add(format!("topic {name}"), Status::Failed, message);
        } else {
            findings.add(format!("topic {name}"), Status::Warning, "does not exist; it is read once it does");
        }
    }
}

/// A client with the topics that there are.
fn listed(config: &Config) -> Result<(Admin, Vec<(String, i32)>)> {
    let admin = Admin::new(&config.kafka.bootstrap, &topics::kafka_options(config)?)?;
    let found = admin.list()?;
    Ok((admin, found))
}

fn check_topic(config: &Config, kind: Kind, topic: &TopicDescription, findings: &mut Findings) {
    let hop = format!("topic {}", topic.name);
    let is_compacted = topic.cleanup_policy.as_deref().is_some_and(|policy| policy.contains("compact"));
    if kind.shape() == Shape::Patch && is_compacted {
        findings.add(
            hop,
            Status::Failed,
            "is compacted: its events are patches, and compaction destroys all but the last; set cleanup.policy=delete",
        );
        return;
    }
    if kind.is_reference() && topic.cleanup_policy.is_some() && !is_compacted {
        findings.add(hop, Status::Warning, "is not compacted: reference records vanish when its retention has passed");
        return;
    }
    if kind.shape() == Shape::Patch && topic.cleanup_policy.is_none() {
        let message = "its settings cannot be read: its events are patches, so make sure that cleanup.policy is delete, not compact";
        findings.add(hop, Status::Warning, message);
        return;
    }
    let timestamps = match topic.timestamp_type {
        Some(TimestampType::LogAppendTime) => "arrival is the broker's time",
        _ => "arrival is the earlier of the producer's time and the fetch",
    };
    let partitions =
        format!("{} partitions, {timestamps}, partitioner {:?}", topic.n_partitions, config.kafka.partitioner);
    findings.add(hop, Status::Ok, partitions.to_lowercase());
}

/// A key must stay in its lane: the newest messages must lie where their keys belong.
fn check_keys(config: &Config, kind: Kind, topic: &TopicDescription, admin: &Admin, findings: &mut Findings) {
    let partitioner = match config.kafka.partitioner {
        config::Partitioner::Murmur2 => Partitioner::Murmur2,
        config::Partitioner::Crc32 => Partitioner::Crc32,
        config::Partitioner::Any => return,
    };
    if kind.is_reference() || topic.n_partitions <= 1 {
        return;
    }
    let hop = format!("keys of topic {}", topic.name);
    let (status, message) = match admin.routing(&topic.name, partitioner) {
        Ok(routing) => judge_keys(&routing, partitioner),
        Err(error) => (Status::Failed, error.to_string()),
    };
    findings.add(hop, status, message);
}

fn judge_keys(routing: &Routing, partitioner: Partitioner) -> (Status, String) {
    let (n_sampled, by) = (routing.n_sampled, partitioner.as_str());
    let mut wrong = Vec::new();
    if routing.n_without_key > 0 {
        wrong.push(format!(
            "{} of the newest {n_sampled} messages have no key: producers must set it, or one key's events come in any order",
            routing.n_without_key
        ));
    }
    if routing.n_misrouted > 0 {
        let example = routing
            .example
            .map_or_else(String::new, |(lies, belongs)| format!(" (one in partition {lies} belongs to {belongs})"));
        let way_out = match routing.fits {
            Some(fits) => format!("all fit {}: set kafka.partitioner to it", fits.as_str()),
            None => format!(
                "let all producers partition by the record key with {by} (librdkafka: partitioner=murmur2_random for murmur2), or set \
                 kafka.partitioner; after partitions were added, older messages stay where they were"
            ),
        };
        wrong.push(format!(
            "{} of the newest {n_sampled} messages are not in the partition that {by} gives their key{example}: {way_out}",
            routing.n_misrouted
        ));
    }
    match (wrong.is_empty(), n_sampled) {
        (true, 0) => (Status::Ok, "no messages to look at yet".to_owned()),
        (true, _) => (Status::Ok, format!("the newest {n_sampled} messages are where {by} puts their keys")),
        (false, _) => (Status::Failed, wrong.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strays_fail_with_the_way_out() {
        let well = Routing { n_sampled: 10, ..Routing::default() };
        assert_eq!(judge_keys(&well, Partitioner::Murmur2).0, Status::Ok);
        let strays = Routing { n_misrouted: 2, example: Some((3, 1)), ..well.clone() };
        let (status, message) = judge_keys(&strays, Partitioner::Murmur2);
        assert_eq!(status, Status::Failed);
        assert!(message.contains("one in partition 3 belongs to 1") && message.contains("murmur2_random"), "{message}");
        let other = Routing { fits: Some(Partitioner::Crc32), ..strays };
        assert!(judge_keys(&other, Partitioner::Murmur2).1.contains("all fit crc32: set kafka.partitioner"));
        let keyless = Routing { n_without_key: 10, ..well };
        let (status, message) = judge_keys(&keyless, Partitioner::Murmur2);
        assert!(status == Status::Failed && message.contains("10 of the newest 10 messages have no key"), "{message}");
    }
}
