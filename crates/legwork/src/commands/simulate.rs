//! `legwork simulate`: a simulated organisation's events to a Kafka.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use legwork_kafka::{Admin, TopicSpec};
use legwork_sim::deliver::simulated_now;
use legwork_sim::{Organisation, SimConfig};
use legwork_types::time::HOUR_US;
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
        place: Place::beginning(start_us),
        speed: args.speed,
        ends: args.run_for.map(|span| Instant::now() + span.duration()),
    };
    let stop = tokio::spawn(super::stop_signal());
    tokio::select! {
        done = tell(story, &mut publisher, None, &|_| {}) => done?,
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

/// A story, from where and how fast it is told.
pub(crate) struct Story {
    /// At its start.
    pub(crate) organisation: Organisation,
    pub(crate) place: Place,
    pub(crate) speed: f64,
    pub(crate) ends: Option<Instant>,
}

/// Where a story goes on. Times are of the story, microseconds since 1970-01-01 UTC, and do not fall from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What was sent through this time is not sent again ...
    pub(crate) kept_us: i64,
    /// ... what was sent after it through this time is, at once: it may have been lost.
    pub(crate) told_us: i64,
    /// What comes after that and through this time is never sent. From here on the story takes its time.
    pub(crate) from_us: i64,
}

impl Place {
    /// Before the first event of a story that starts then.
    pub(crate) fn beginning(start_us: i64) -> Place {
        let before_us = start_us - 1;
        Place { kept_us: before_us, told_us: before_us, from_us: before_us }
    }
}

/// Who paces a story, and hears how far it is.
struct Teller<'a> {
    publisher: &'a mut Publisher,
    lanes: Option<&'a dyn LiveTables>,
    /// Everything was sent through this time, and read but for a few.
    on_told: &'a (dyn Fn(i64) + Sync),
}

/// Events that are sent together.
const AT_ONCE: usize = 4_096;
/// Messages that may be on their way when somebody paces the story.
const AHEAD_MAX: u64 = 10_000;

/// Sends reference data, then events as their time comes. With `lanes`, of a log that is empty at first, it waits for them to have read what was
/// sent, since a broker that keeps little would drop it. `on_told` hears how far the story is, once all is sent that may have been lost.
pub(crate) async fn tell(
    story: Story,
    publisher: &mut Publisher,
    lanes: Option<&dyn LiveTables>,
    on_told: &(dyn Fn(i64) + Sync),
) -> Result<()> {
    let Story { mut organisation, place, speed, ends } = story;
    let start_us = organisation.config().start_us;
    for (kind, rows) in organisation.reference() {
        let keys = arrow::array::StringArray::from(legwork_sim::reference_keys(kind, &rows));
        publisher.send(kind, &rows, &keys, &vec![start_us; rows.num_rows()]).await?;
    }
    publisher.flush(Duration::from_secs(30))?;
    organisation = skip(organisation, place.kept_us).await?;
    let mut teller = Teller { publisher, lanes, on_told: &|_| {} };
    teller.tell(&mut organisation, place.told_us).await?;
    organisation = skip(organisation, place.from_us).await?;
    teller.on_told = on_told;
    let start_wall_us = wall_clock_us();
    while ends.is_none_or(|ends| Instant::now() < ends) {
        let until_us = simulated_now(place.from_us, start_wall_us, speed, wall_clock_us());
        teller.tell(&mut organisation, until_us).await?;
        tokio::time::sleep(STEP).await;
    }
    Ok(())
}

impl Teller<'_> {
    /// Sends what happens through `until_us`.
    async fn tell(&mut self, organisation: &mut Organisation, until_us: i64) -> Result<()> {
        loop {
            let batches = organisation.advance_some(until_us, AT_ONCE);
            if batches.is_empty() {
                break;
            }
            for batch in &batches {
                self.publisher.send(batch.kind, &batch.rows, &batch.keys, &batch.sent_us).await?;
            }
            if let Some(lanes) = self.lanes {
                wait_for_lanes(lanes, self.publisher.n_sent()).await;
            }
            // More may happen at the very moment that was reached.
            (self.on_told)(organisation.now_us() - 1);
        }
        (self.on_told)(until_us);
        Ok(())
    }
}

/// Lets happen what nobody is told, through `until_us`, beside everything else: a day of 200 reps takes a quarter of a second.
async fn skip(mut organisation: Organisation, until_us: i64) -> Result<Organisation> {
    while organisation.now_us() < until_us {
        // In pieces, so that an end need not wait for all of it.
        let piece_us = until_us.min(organisation.now_us() + HOUR_US);
        let skipped = tokio::task::spawn_blocking(move || {
            while !organisation.advance_some(piece_us, AT_ONCE).is_empty() {}
            organisation
        });
        organisation = skipped.await.context("going on with the story")?;
    }
    Ok(organisation)
}

/// Waits, bounded, until the lanes have read all but a few of the messages sent. What they have read of their logs is told by their offsets:
/// their counts go back to earlier logs.
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
    let Ok(column) = lanes.schema().index_of("next_offset") else { return 0 };
    (0..lanes.n_chunks())
        .flat_map(|chunk_idx| {
            let batch = lanes.chunk(chunk_idx, Some(&[column]));
            batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
        })
        .map(i64::unsigned_abs)
        .sum()
}
