//! `legwork simulate`: a simulated organisation's events to a Kafka.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use legwork_kafka::{Admin, TopicSpec};
use legwork_sim::deliver::simulated_now;
use legwork_sim::{Organisation, SimConfig};
use legwork_types::{Kind, LiveTables};

use super::publish::Publisher;
use crate::args::SimulateArgs;
use crate::service::wall_clock_us;
use crate::{config, topics};

/// The story is told in steps of this wall time.
const STEP: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: SimulateArgs) -> Result<()> {
    let config = config::load(&args.config.overrides())?;
    super::start_logging(&config)?;
    let bootstrap = args.bootstrap.clone().unwrap_or_else(|| config.kafka.bootstrap.clone());
    let registry = topics::registry(&config, tokio::runtime::Handle::current())?;
    let mut publisher = Publisher::new(&config, &bootstrap, registry)?;
    let admin = Admin::new(&bootstrap, &topics::kafka_options(&config)?)?;
    let names: Vec<(Kind, String)> = Kind::ALL.into_iter().map(|kind| (kind, publisher.topic(kind))).collect();
    create_topics(&admin, &names, args.partitions, false)?;
    let start_us = wall_clock_us() - args.since.0;
    let organisation = Organisation::new(SimConfig::new(args.seed, args.reps, start_us));
    let story = Story {
        organisation,
        start_us,
        speed: args.speed,
        ends: args.run_for.map(|span| Instant::now() + span.duration()),
    };
    let stop = tokio::spawn(super::stop_signal());
    tokio::select! {
        done = tell(story, &mut publisher, None) => done?,
        stopped = stop => stopped??,
    }
    publisher.flush(Duration::from_secs(8))?;
    tracing::info!(n_sent = publisher.n_sent(), "simulation ends");
    Ok(())
}

/// Makes the topics that do not exist; reference topics are compacted and have one partition. `keeps_all`: records are old, and a broker
/// would delete what is beyond its retention.
pub(crate) fn create_topics(admin: &Admin, names: &[(Kind, String)], n_partitions: i32, keeps_all: bool) -> Result<()> {
    let known = admin.list().context("listing topics")?;
    let specs: Vec<TopicSpec> = names
        .iter()
        .filter(|(_, name)| !known.iter().any(|(topic, _)| topic == name))
        .map(|(kind, name)| {
            let spec = TopicSpec::new(name, if kind.is_reference() { 1 } else { n_partitions });
            match (kind.is_reference(), keeps_all) {
                (true, _) => spec.set("cleanup.policy", "compact"),
                (false, true) => spec.set("retention.ms", "-1"),
                (false, false) => spec,
            }
        })
        .collect();
    if specs.is_empty() { Ok(()) } else { admin.create_topics(&specs).context("creating topics") }
}

/// A story and how fast it is told.
pub(crate) struct Story {
    pub(crate) organisation: Organisation,
    pub(crate) start_us: i64,
    pub(crate) speed: f64,
    pub(crate) ends: Option<Instant>,
}

/// Messages that may be on their way when somebody paces the story.
const AHEAD_MAX: u64 = 10_000;

/// Sends reference data, then events as their time comes. With `lanes` it waits for them to have read what was sent, since a broker
/// that keeps little would drop it.
pub(crate) async fn tell(mut story: Story, publisher: &mut Publisher, lanes: Option<&dyn LiveTables>) -> Result<()> {
    for (kind, rows) in story.organisation.reference() {
        let keys = arrow::array::StringArray::from(legwork_sim::reference_keys(kind, &rows));
        publisher.send(kind, &rows, &keys, &vec![story.start_us; rows.num_rows()]).await?;
    }
    publisher.flush(Duration::from_secs(30))?;
    let start_wall_us = wall_clock_us();
    while story.ends.is_none_or(|ends| Instant::now() < ends) {
        let until_us = simulated_now(story.start_us, start_wall_us, story.speed, wall_clock_us());
        loop {
            let batches = story.organisation.advance_some(until_us, 4_096);
            if batches.is_empty() {
                break;
            }
            for batch in &batches {
                publisher.send(batch.kind, &batch.rows, &batch.keys, &batch.sent_us).await?;
            }
            if let Some(lanes) = lanes {
                wait_for_lanes(lanes, publisher.n_sent()).await;
            }
        }
        tokio::time::sleep(STEP).await;
    }
    Ok(())
}

/// Waits, bounded, until the lanes have read all but a few of the messages sent.
async fn wait_for_lanes(lanes: &dyn LiveTables, n_sent: u64) {
    for _ in 0..3_000 {
        let n_read = match lanes.snapshot("pipeline_lanes").await {
            Ok(answer) => answer.found.iter().map(|snapshot| n_read(snapshot.as_ref())).sum(),
            Err(_) => return,
        };
        if n_sent.saturating_sub(n_read) <= AHEAD_MAX {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::warn!("the lanes do not keep up: messages may be lost by the embedded broker");
}

fn n_read(lanes: &dyn legwork_types::TableSnapshot) -> u64 {
    use arrow::array::AsArray;
    let Ok(column) = lanes.schema().index_of("n_read") else { return 0 };
    (0..lanes.n_chunks())
        .flat_map(|chunk_idx| {
            let batch = lanes.chunk(chunk_idx, Some(&[column]));
            batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
        })
        .map(i64::unsigned_abs)
        .sum()
}
