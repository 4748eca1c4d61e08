//! A thread that runs lanes, and answers questions about them between two of their batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use legwork_state::StoreError;
use legwork_types::{FreshRows, LaneId, LaneStatus, LiveError, Lookup, MissingLane, TableSnapshot};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::delivery::{Covered, LanePending};
use crate::stream_lane::StreamLane;
use crate::vital::Vital;

/// A worker without work looks around after this, woken or not.
const PARKED_MAX: Duration = Duration::from_millis(50);

/// Something a worker is asked to do.
pub(crate) enum Command {
    Add(Box<StreamLane>),
    /// Lets go of these partitions, after a last checkpoint unless they are lost already; the guard is dropped when that has happened.
    Drop {
        partitions: Vec<(Arc<str>, i32)>,
        is_lost: bool,
        done: Arc<Done>,
    },
    Snapshot(String, Reply<Told<Arc<dyn TableSnapshot>>>),
    Fresh(String, Reply<Told<FreshRows>>),
    Lookup(Lookup, Reply<Told<RecordBatch>>),
    Statuses(Reply<LaneStatus>),
    /// Asks for what waits for the lake, open rows included or not.
    Pending {
        with_open: bool,
        reply: Reply<LanePending>,
    },
    /// Tells lanes what the lake has taken.
    Covered(Vec<(LaneId, Covered)>),
    /// Makes everything durable; the guard is dropped when it is.
    Flush(Arc<Done>),
    /// Stops, after all lanes have let go.
    Stop,
}

/// What a lane says to a question about a table.
#[derive(Clone, Debug)]
pub(crate) struct Told<T> {
    pub(crate) id: (Arc<str>, i32),
    /// None where it does not fill the table, or has nothing to say.
    pub(crate) answer: Option<T>,
    pub(crate) missing: Option<MissingLane>,
}

/// Answers of all lanes of a worker.
type Answers<T> = Result<Vec<T>, LiveError>;

/// Where they go.
pub(crate) type Reply<T> = oneshot::Sender<Answers<T>>;

/// Runs a closure when its last holder lets go of it.
pub(crate) struct Done(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Done {
    pub(crate) fn new(done: Box<dyn FnOnce() + Send>) -> Arc<Done> {
        Arc::new(Done(Mutex::new(Some(done))))
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(done) = self.0.get_mut().take() {
            done();
        }
    }
}

#[derive(Default)]
struct Mailbox {
    commands: Vec<Command>,
    is_closed: bool,
}

/// What others see of a worker's lanes without asking it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) next_offsets: HashMap<(Arc<str>, i32), i64>,
    pub(crate) newest_us: Option<i64>,
    pub(crate) statuses: Vec<LaneStatus>,
    /// Lanes whose answers lack rows.
    pub(crate) missing: Vec<MissingLane>,
    /// A lane has so much for the lake that it should not be left waiting.
    pub(crate) is_heavy: bool,
}

/// A running worker.
pub(crate) struct Worker {
    mailbox: Arc<Mutex<Mailbox>>,
    pub(crate) progress: Arc<Mutex<Progress>>,
    thread: Thread,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(crate) fn start(name: String) -> std::io::Result<Worker> {
        let mailbox = Arc::new(Mutex::new(Mailbox::default()));
        let progress = Arc::new(Mutex::new(Progress::default()));
        let run = Run {
            mailbox: mailbox.clone(),
            progress: progress.clone(),
            lanes: Vec::new(),
            flushing: Vec::new(),
            next_report: Instant::now(),
        };
        let handle = thread::Builder::new().name(name).spawn(move || {
            let _vital = Vital("what runs the lanes");
            run.run();
        })?;
        Ok(Worker { mailbox, progress, thread: handle.thread().clone(), handle: Mutex::new(Some(handle)) })
    }

    /// Hands it a command. *Returns* false when the worker has stopped; the command is dropped then.
    pub(crate) fn send(&self, command: Command) -> bool {
        let mut mailbox = self.mailbox.lock();
        if mailbox.is_closed {
            return false;
        }
        mailbox.commands.push(command);
        drop(mailbox);
        self.thread.unpark();
        true
    }

    /// Wakes it up from anywhere.
    pub(crate) fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let thread = self.thread.clone();
        Arc::new(move || thread.unpark())
    }

    /// Stops it and waits.
    pub(crate) fn stop(&self) {
        self.send(Command::Stop);
        let handle = self.handle.lock().take();
        if let Some(handle) = handle
            && handle.join().is_err()
        {
            tracing::error!("a worker ended with a panic");
        }
    }
}

struct Run {
    mailbox: Arc<Mutex<Mailbox>>,
    progress: Arc<Mutex<Progress>>,
    lanes: Vec<StreamLane>,
    /// Whoever waits for everything to be durable.
    flushing: Vec<Arc<Done>>,
    next_report: Instant,
}

impl Run {
    fn run(mut self) {
        loop {
            let commands = std::mem::take(&mut self.mailbox.lock().commands);
            if !self.obey(commands) {
                break;
            }
            let now = Instant::now();
            let mut has_more = false;
            if !self.flushing.is_empty() {
                let are_done = self.lanes.iter_mut().map(|lane| lane.flush(now)).collect::<Vec<_>>();
                if are_done.into_iter().all(|is_done| is_done) {
                    self.flushing.clear();
                }
            }
            for lane in &mut self.lanes {
                // While everything is to become durable nothing more is read.
                if !self.flushing.is_empty() {
                    break;
                }
                has_more |= lane.step(now);
                if !self.mailbox.lock().commands.is_empty() {
                    has_more = true;
                    break;
                }
            }
            // A lane that is always busy must not starve those behind it when commands cut the round short.
            if self.lanes.len() > 1 {
                self.lanes.rotate_left(1);
            }
            self.report(now);
            if !has_more {
                let retry = self.lanes.iter().filter_map(StreamLane::retry_at).min();
                thread::park_timeout(retry.map_or(PARKED_MAX, |at| at.saturating_duration_since(now).min(PARKED_MAX)));
            }
        }
        let left = {
            let mut mailbox = self.mailbox.lock();
            mailbox.is_closed = true;
            std::mem::take(&mut mailbox.commands)
        };
        drop(left);
        self.next_report = Instant::now();
        self.report(Instant::now());
    }

    /// *Returns* false when the worker is to stop.
    fn obey(&mut self, commands: Vec<Command>) -> bool {
        // Questions for the same table that came together get the same snapshot.
        let mut taken: HashMap<String, Answers<Told<Arc<dyn TableSnapshot>>>> = HashMap::new();
        for command in commands {
            // Whoever asked may have gone meanwhile: a reply that nobody takes is dropped.
            match command {
                Command::Add(lane) => {
                    let (topic, partition) = (lane.lane.topic.clone(), lane.lane.partition);
                    // A partition that comes anew replaces what is left of it.
                    self.lanes.retain(|old| old.lane.topic != topic || old.lane.partition != partition);
                    self.lanes.push(*lane);
                }
                Command::Drop { partitions, is_lost, done } => {
                    let is_gone = |lane: &StreamLane| {
                        partitions
                            .iter()
                            .any(|(topic, partition)| *topic == lane.lane.topic && *partition == lane.lane.partition)
                    };
                    let (gone, kept) = std::mem::take(&mut self.lanes).into_iter().partition(is_gone);
                    self.lanes = kept;
                    close(gone, is_lost, &done);
                    self.next_report = Instant::now();
                }
                Command::Snapshot(table, reply) => {
                    let snapshots =
                        taken.entry(table.clone()).or_insert_with(|| self.ask(|lane| lane.snapshot(&table)));
                    let _ = reply.send(snapshots.clone());
                }
                Command::Fresh(table, reply) => drop(reply.send(self.ask(|lane| lane.fresh(&table)))),
                Command::Lookup(lookup, reply) => drop(reply.send(self.ask(|lane| lane.lookup(&lookup)))),
                Command::Statuses(reply) => {
                    let _ = reply.send(Ok(self.lanes.iter().map(StreamLane::status).collect()));
                }
                Command::Pending { with_open, reply } => {
                    let _ = reply.send(Ok(self.lanes.iter().filter_map(|lane| lane.pending(with_open)).collect()));
                }
                Command::Covered(covered) => self.cover(covered),
                Command::Flush(done) => self.flushing.push(done),
                Command::Stop => {
                    close(std::mem::take(&mut self.lanes), false, &Done::new(Box::new(|| {})));
                    return false;
                }
            }
        }
        true
    }

    /// Asks every lane.
    fn ask<T>(
        &mut self,
        mut question: impl FnMut(&mut StreamLane) -> Result<Option<T>, LiveError>,
    ) -> Answers<Told<T>> {
        let now = Instant::now();
        let told = |lane: &mut StreamLane| {
            let answer = question(lane)?;
            let id = (lane.lane.topic.clone(), lane.lane.partition);
            // Being asked may have cost it its claim.
            Ok(Told { id, answer, missing: lane.missing(now) })
        };
        self.lanes.iter_mut().map(told).collect()
    }

    fn cover(&mut self, covered: Vec<(LaneId, Covered)>) {
        let now = Instant::now();
        for (id, covered) in covered {
            let is_it = |lane: &&mut StreamLane| lane.lane.topic == id.topic && lane.lane.partition == id.partition;
            if let Some(lane) = self.lanes.iter_mut().find(is_it) {
                lane.cover(covered, now);
            }
        }
    }

    fn report(&mut self, now: Instant) {
        let missing: Vec<MissingLane> = self.lanes.iter().filter_map(|lane| lane.missing(now)).collect();
        let mut progress = self.progress.lock();
        // Whoever waits for a lane that comes, and whoever asks after one has gone, should know it at once.
        let is_news = missing.len() != progress.missing.len() || self.lanes.len() != progress.statuses.len();
        if now < self.next_report && !is_news {
            return;
        }
        self.next_report = now + Duration::from_millis(200);
        progress.missing = missing;
        progress.next_offsets = self
            .lanes
            .iter()
            .filter_map(|lane| Some(((lane.lane.topic.clone(), lane.lane.partition), lane.durable_offset()?)))
            .collect();
        progress.is_heavy = self.lanes.iter().any(StreamLane::is_heavy);
        progress.newest_us = self.lanes.iter().filter_map(|lane| lane.lane.newest_us()).max();
        progress.statuses = self.lanes.iter().map(StreamLane::status).collect();
    }
}

/// Lets lanes go; `done` is held until their last checkpoints are durable and their claims are let go of.
fn close(lanes: Vec<StreamLane>, is_lost: bool, done: &Arc<Done>) {
    for lane in lanes {
        let (id, runtime) = (lane.lane.id(), lane.runtime());
        let (Some(closing), Some(runtime)) = (lane.close(is_lost, Instant::now()), runtime) else { continue };
        let done = done.clone();
        runtime.spawn(async move {
            match closing.await {
                Ok(()) => {}
                Err(error @ StoreError::Fenced { .. }) => tracing::warn!("{error}: this one has let go and writes nothing more"),
                Err(error) => {
                    tracing::warn!(lane = %id, %error, "the lane's last checkpoint is not known to be durable; its next owner finds out");
                }
            }
            drop(done);
        });
    }
}
