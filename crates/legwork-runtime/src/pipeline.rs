//! A pipeline: one source, some workers, many lanes; its tables and its health.

mod control;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use legwork_codec::Decoder;
use legwork_operators::operator_for;
use legwork_types::{
    Answer, BatchSnapshot, FreshFuture, Kind, LaneState, LaneStatus, LiveError, LiveTables, Lookup, MissingLane,
    SnapshotFuture, Table, TableSnapshot,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use self::control::Control;
use crate::committer;
use crate::lane::LaneSpec;
use crate::record_log::Space;
use crate::reference::ReferenceTables;
use crate::stream_lane::StreamLane;
use crate::vital::Vital;
use crate::worker::{Command, Reply, Told, Worker};
use crate::{LaneConfig, LogSource, PartitionReader, PipelineMetrics, Standing, TopicConfig, rows};

/// A running pipeline. Dropping it stops it.
pub struct Pipeline {
    shared: Arc<Shared>,
    control: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("n_workers", &self.shared.workers.len()).finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    config: Arc<LaneConfig>,
    topics: HashMap<Arc<str>, TopicConfig>,
    /// Tables that the lanes of a topic fill, and look-ups that they answer.
    fills: HashMap<Arc<str>, HashSet<&'static str>>,
    pub(crate) workers: Vec<Worker>,
    space: Arc<Space>,
    pub(crate) metrics: PipelineMetrics,
    health: Mutex<Health>,
    reference: RwLock<ReferenceTables>,
    pub(crate) is_stopping: AtomicBool,
}

#[derive(Clone, Debug)]
struct Health {
    troubles: BTreeMap<String, String>,
    fatal: Option<String>,
    lanes: HashSet<LaneName>,
    standing: Standing,
    /// Since when the partitions that are being claimed are.
    claiming: HashMap<LaneName, Instant>,
    /// Since when the source does not know which partitions are its own, as long as it does not.
    unassigned_since: Instant,
}

type LaneName = (Arc<str>, i32);

impl Health {
    fn new() -> Health {
        Health {
            troubles: BTreeMap::new(),
            fatal: None,
            lanes: HashSet::new(),
            standing: Standing::default(),
            claiming: HashMap::new(),
            unassigned_since: Instant::now(),
        }
    }

    fn stand(&mut self, standing: Standing, now: Instant) {
        if standing.is_assigned {
            self.unassigned_since = now;
        }
        self.claiming.retain(|lane, _| standing.claiming.contains(lane));
        for lane in &standing.claiming {
            self.claiming.entry(lane.clone()).or_insert(now);
        }
        self.standing = standing;
    }

    /// Why a lane is not there that no worker has; of all lanes of a topic as long as it is not known how many those are.
    fn absent(&self, topic: &Arc<str>, partition: Option<i32>, now: Instant) -> MissingLane {
        let lane = partition.map(|partition| (topic.clone(), partition));
        let claiming_since = lane.as_ref().and_then(|lane| {
            // One that is handed out already is on its way to its worker.
            self.claiming.get(lane).copied().or_else(|| self.lanes.contains(lane).then_some(now))
        });
        let (reason, since) = match claiming_since {
            Some(since) => (CLAIMING, Some(since)),
            None if self.standing.is_assigned => (ELSEWHERE, None),
            None => (UNASSIGNED, Some(self.unassigned_since)),
        };
        let coming_for = since.map(|since| now.duration_since(since));
        MissingLane { topic: topic.clone(), partition, reason: reason.to_owned(), coming_for }
    }
}

/// Why lanes are not there.
const CLAIMING: &str = "not there yet: being claimed";
const UNASSIGNED: &str = "not there yet: the consumer group has not assigned them";
const ELSEWHERE: &str = "not of this instance: another one reads them, or nobody does";

/// Whether a pipeline does its work, and why not.
#[derive(Clone, Debug)]
pub struct PipelineHealth {
    /// Lanes that it owns.
    pub n_lanes: usize,
    /// Partitions that were assigned and whose lanes are not there yet: what is asked now lacks their rows.
    pub n_awaited: usize,
    /// Hops that do not answer, with what to do.
    pub troubles: BTreeMap<String, String>,
    /// It cannot go on at all.
    pub fatal: Option<String>,
    /// Lanes that wait or have halted.
    pub lanes: Vec<LaneStatus>,
}

impl Pipeline {
    /// Starts reading. `n_workers` threads run the lanes.
    ///
    /// *Errors:* when threads cannot be started.
    pub fn start(
        config: LaneConfig,
        topics: Vec<TopicConfig>,
        n_workers: usize,
        source: Box<dyn LogSource>,
        metrics: PipelineMetrics,
    ) -> std::io::Result<Pipeline> {
        let workers = (0..n_workers.max(1))
            .map(|idx| Worker::start(format!("lanes-{idx}")))
            .collect::<std::io::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            space: Space::open(&config.spill, config.delivery.is_some()),
            fills: topics.iter().map(|topic| (topic.name.clone(), fills(topic.kind, &config))).collect(),
            config: Arc::new(config),
            topics: topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect(),
            workers,
            metrics,
            health: Mutex::new(Health::new()),
            reference: RwLock::default(),
            is_stopping: AtomicBool::new(false),
        });
        if let Some(delivery) = &shared.config.delivery {
            let (committing, vital) =
                (committer::run(shared.clone(), delivery.clone()), Vital("what commits to the lake"));
            delivery.runtime.spawn(async move {
                let _vital = vital;
                committing.await;
            });
        }
        let control = Control { shared: shared.clone(), source };
        let control = thread::Builder::new().name("source".to_owned()).spawn(move || {
            let _vital = Vital("what polls the source");
            control.run();
        })?;
        Ok(Pipeline { shared, control: Some(control) })
    }

    /// The tables, for SQL.
    pub fn tables(&self) -> Arc<dyn LiveTables> {
        Arc::new(PipelineTables { shared: self.shared.clone() })
    }

    /// Reference tables that come from files and win over those from topics.
    pub fn set_reference(&self, tables: ReferenceTables) {
        *self.shared.reference.write() = tables;
    }

    /// Something that does the same later.
    pub fn reference_setter(&self) -> impl Fn(ReferenceTables) + Clone + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |tables| *shared.reference.write() = tables
    }

    /// How it does.
    pub fn health(&self) -> PipelineHealth {
        self.shared.health()
    }

    /// Something that asks for the health later.
    pub fn health_probe(&self) -> impl Fn() -> PipelineHealth + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || shared.health()
    }

    /// Stops reading, lets the lanes go, leaves the group.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        if let Some(control) = self.control.take()
            && control.join().is_err()
        {
            tracing::error!("the source's thread ended with a panic");
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop_now();
    }
}

impl Shared {
    /// A hop does not answer.
    pub(crate) fn trouble(&self, hop: &str, message: &str) {
        let before = self.health.lock().troubles.insert(hop.to_owned(), message.to_owned());
        if before.as_deref() != Some(message) {
            tracing::warn!(hop, "{message}");
        }
    }

    /// A hop that may have had trouble answers.
    pub(crate) fn recovered(&self, hop: &str) {
        if self.health.lock().troubles.remove(hop).is_some() {
            tracing::info!(hop, "answers again");
        }
    }

    fn health(&self) -> PipelineHealth {
        let health = self.health.lock().clone();
        let (mut lanes, mut n_there) = (Vec::new(), 0);
        for worker in &self.workers {
            let progress = worker.progress.lock();
            n_there += progress.statuses.len();
            lanes.extend(progress.statuses.iter().filter(|lane| lane.state != LaneState::Running).cloned());
        }
        let Health { troubles, fatal, lanes: owned, claiming, .. } = health;
        let n_awaited = claiming.len() + owned.len().saturating_sub(n_there);
        PipelineHealth { n_lanes: owned.len(), n_awaited, troubles, fatal, lanes }
    }

    /// Lanes of one topic are spread over the workers.
    fn worker(&self, partition: i32) -> &Worker {
        &self.workers[partition.unsigned_abs() as usize % self.workers.len()]
    }

    fn add(&self, reader: Box<dyn PartitionReader>) {
        let Some(topic) = self.topics.get(reader.topic()) else {
            tracing::error!(topic = %reader.topic(), "a partition of a topic that was not asked for was assigned; it is not read");
            return;
        };
        let worker = self.worker(reader.partition());
        let id = (topic.name.clone(), reader.partition());
        // The bound is the process's, and it may own all partitions of the topic.
        let mut config = LaneConfig::clone(&self.config);
        config.operators.track.memory_bytes_max /= u64::try_from(reader.n_partitions().max(1)).unwrap_or(1);
        let config = Arc::new(config);
        let spec = LaneSpec {
            kind: topic.kind,
            topic: topic.name.clone(),
            partition: reader.partition(),
            past_us_max: topic.past_max_us,
            config: config.clone(),
            space: self.space.clone(),
            metrics: Some(self.metrics.clone()),
        };
        let decoder = Decoder::new(topic.kind, topic.format.clone(), self.config.message_bytes_max);
        let lane = StreamLane::new(spec, reader, (decoder, &topic.format), config, worker.waker());
        self.health.lock().lanes.insert(id);
        // A worker that has stopped needs no lane.
        worker.send(Command::Add(Box::new(lane)));
    }
}

#[derive(Clone)]
struct PipelineTables {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for PipelineTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PipelineTables")
    }
}

impl Shared {
    /// What the lanes of a table said, and which of them are missing.
    fn answer<T>(&self, table: &str, told: Vec<Told<T>>) -> Answer<T> {
        let known: HashSet<LaneName> = told.iter().map(|lane| lane.id.clone()).collect();
        let (mut found, mut missing) = (Vec::new(), self.absent(table, &known));
        for Told { id, answer, missing: is_missing } in told {
            found.extend(answer);
            missing.extend(is_missing.filter(|_| self.does_fill(&id.0, table)));
        }
        Answer { found, missing }
    }

    fn does_fill(&self, topic: &str, table: &str) -> bool {
        self.fills.get(topic).is_some_and(|tables| tables.contains(table))
    }

    /// Lanes that are being claimed, which no worker has.
    fn add_claimed(&self, statuses: &mut Vec<LaneStatus>) {
        let held: HashSet<LaneName> = statuses.iter().map(|lane| (lane.topic.clone(), lane.partition)).collect();
        let claiming: Vec<LaneName> = self.health.lock().claiming.keys().cloned().collect();
        let status = |(topic, partition): LaneName| LaneStatus {
            state: LaneState::Paused,
            detail: CLAIMING.to_owned(),
            owner: self.config.owner.clone(),
            ..LaneStatus::new(topic, partition)
        };
        statuses.extend(claiming.into_iter().filter(|lane| !held.contains(lane)).map(status));
    }

    /// Lanes that fill `table` and that no worker has: none of these.
    fn absent(&self, table: &str, held: &HashSet<LaneName>) -> Vec<MissingLane> {
        let now = Instant::now();
        let health = self.health.lock();
        let mut absent = Vec::new();
        for topic in self.fills.keys().filter(|topic| self.does_fill(topic, table)) {
            match health.standing.n_partitions.get(topic) {
                Some(&n_partitions) => {
                    let others = (0..n_partitions).filter(|partition| !held.contains(&(topic.clone(), *partition)));
                    absent.extend(others.map(|partition| health.absent(topic, Some(partition), now)));
                }
                None if health.standing.is_assigned => {}
                None => absent.push(health.absent(topic, None, now)),
            }
        }
        absent
    }
}

/// Tables that lanes of a kind fill, and look-ups that they answer.
fn fills(kind: Kind, config: &LaneConfig) -> HashSet<&'static str> {
    let mut tables: HashSet<&'static str> = operator_for(kind, &config.operators).tables().into_iter().collect();
    if !kind.is_reference() {
        tables.extend([Table::RejectedEvents.name(), Table::LateEvents.name()]);
        tables.extend(config.raw_events.keeps(kind).then_some(kind.table()));
    }
    if kind == Kind::Gps {
        tables.extend(Lookup::TABLES);
    }
    tables
}

impl PipelineTables {
    /// Asks every worker and waits for all answers.
    fn ask<T: Send + 'static>(
        &self,
        command: &dyn Fn(Reply<T>) -> Command,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<T>, LiveError>> + Send>> {
        let replies: Vec<_> = self
            .shared
            .workers
            .iter()
            .map(|worker| {
                let (sender, receiver) = oneshot::channel();
                worker.send(command(sender)).then_some(receiver)
            })
            .collect();
        Box::pin(async move {
            let mut answers = Vec::new();
            for reply in replies {
                let reply = reply.ok_or(LiveError::ShuttingDown)?;
                answers.extend(reply.await.map_err(|_| LiveError::ShuttingDown)??);
            }
            Ok(answers)
        })
    }

    /// Asks every lane a question about a table.
    fn ask_lanes<T: Send + 'static>(
        &self,
        table: &str,
        command: &dyn Fn(Reply<Told<T>>) -> Command,
    ) -> Pin<Box<dyn Future<Output = Result<Answer<T>, LiveError>> + Send>> {
        let (told, shared, table) = (self.ask(command), self.shared.clone(), table.to_owned());
        Box::pin(async move { Ok(shared.answer(&table, told.await?)) })
    }
}

impl LiveTables for PipelineTables {
    fn snapshot(&self, table: &str) -> SnapshotFuture {
        if let Some(snapshot) = self.shared.reference.read().get(table) {
            return Box::pin(std::future::ready(Ok(vec![snapshot].into())));
        }
        if table == Table::PipelineLanes.name() {
            let (statuses, shared) = (self.ask(&Command::Statuses), self.shared.clone());
            return Box::pin(async move {
                let mut statuses = statuses.await?;
                shared.add_claimed(&mut statuses);
                statuses.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
                Ok(vec![of_batch(rows::pipeline_lanes(&statuses))].into())
            });
        }
        self.ask_lanes(table, &|reply| Command::Snapshot(table.to_owned(), reply))
    }

    fn fresh(&self, table: &str) -> FreshFuture {
        self.ask_lanes(table, &|reply| Command::Fresh(table.to_owned(), reply))
    }

    fn lookup(&self, lookup: Lookup) -> SnapshotFuture {
        let answer = self.ask_lanes(&lookup.table, &|reply| Command::Lookup(lookup.clone(), reply));
        Box::pin(async move {
            let Answer { found, missing } = answer.await?;
            Ok(Answer { found: found.into_iter().map(of_batch).collect(), missing })
        })
    }

    fn missing(&self, table: &str) -> Vec<MissingLane> {
        if self.shared.reference.read().get(table).is_some() {
            return Vec::new();
        }
        let (mut held, mut missing) = (HashSet::new(), Vec::new());
        for worker in &self.shared.workers {
            let progress = worker.progress.lock();
            held.extend(progress.statuses.iter().map(|lane| (lane.topic.clone(), lane.partition)));
            missing.extend(progress.missing.iter().filter(|lane| self.shared.does_fill(&lane.topic, table)).cloned());
        }
        missing.extend(self.shared.absent(table, &held));
        missing
    }

    fn newest_event_time_us(&self) -> Option<i64> {
        self.shared.workers.iter().filter_map(|worker| worker.progress.lock().newest_us).max()
    }
}

/// A snapshot of one batch.
pub(crate) fn of_batch(batch: arrow::array::RecordBatch) -> Arc<dyn TableSnapshot> {
    Arc::new(BatchSnapshot::new(batch.schema(), vec![batch]))
}
