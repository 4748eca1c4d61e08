//! `legwork check`: every hop, one after the other, with what to do about what is wrong.

use std::io::Write;

use anyhow::{Result, bail};
use legwork_kafka::{Admin, TimestampType, TopicDescription};
use legwork_types::{Kind, Shape};
use serde::Serialize;

use crate::args::CheckArgs;
use crate::config::{self, Config};
use crate::exit::Failure;
use crate::topics;

#[derive(Debug, Serialize)]
struct Finding {
    hop: String,
    status: Status,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, hop: impl Into<String>, status: Status, message: impl Into<String>) {
        self.0.push(Finding { hop: hop.into(), status, message: message.into() });
    }
}

pub(crate) async fn run(args: CheckArgs) -> Result<()> {
    let mut config = config::load(&args.config.overrides())?;
    if config.log.level == "info" {
        config.log.level = "error".to_owned();
    }
    super::start_logging(&config)?;
    let mut findings = Findings::default();
    findings.add("configuration", Status::Ok, "every key is known and every value makes sense");
    check_registry(&config, &mut findings).await;
    let kafka = config.clone();
    let brokers = tokio::task::spawn_blocking(move || {
        let mut findings = Findings::default();
        check_kafka(&kafka, &mut findings);
        findings
    });
    findings.0.extend(brokers.await?.0);
    print(&findings, args.json)?;
    let n_failed = findings.0.iter().filter(|finding| finding.status == Status::Failed).count();
    if n_failed > 0 {
        bail!(Failure::Temporary(format!("{n_failed} of {} checks failed", findings.0.len())));
    }
    Ok(())
}

fn print(findings: &Findings, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&findings.0)?)?;
        return Ok(());
    }
    for finding in &findings.0 {
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
    let hop = format!("registry {}", config.registry.url);
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
    let admin = topics::kafka_options(config)
        .map_err(|error| error.to_string())
        .and_then(|options| Admin::new(&config.kafka.bootstrap, &options).map_err(|error| error.to_string()))
        .and_then(|admin| admin.list().map(|found| (admin, found)).map_err(|error| error.to_string()));
    let (admin, found) = match admin {
        Ok(admin) => admin,
        Err(message) => {
            findings.add(
                hop,
                Status::Failed,
                format!("{message}; check kafka.bootstrap, the network and kafka.options"),
            );
            return;
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
                Ok(topic) => check_topic(config, kind, &topic, findings),
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
    let timestamps = match topic.timestamp_type {
        Some(TimestampType::LogAppendTime) => "arrival is the broker's time",
        _ => "arrival is the earlier of the producer's time and the fetch",
    };
    let partitions =
        format!("{} partitions, {timestamps}, partitioner {:?}", topic.n_partitions, config.kafka.partitioner);
    findings.add(hop, Status::Ok, partitions.to_lowercase());
}
