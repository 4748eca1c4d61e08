//! A thread that runs lanes, and answers questions about them between two of their batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use legwork_types::{LaneStatus, Lookup, TableSnapshot};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::stream_lane::StreamLane;

/// A worker without work looks around after this, woken or not.
const PARKED_MAX: Duration = Duration::from_millis(50);

/// Something a worker is asked to do.
pub(crate) enum Command {
    Add(Box<StreamLane>),
    /// Lets go of these partitions; the guard is dropped when that has happened.
    Drop(Vec<(Arc<str>, i32)>, Arc<Done>),
    Snapshot(String, oneshot::Sender<Vec<Arc<dyn TableSnapshot>>>),
    Lookup(Lookup, oneshot::Sender<Vec<RecordBatch>>),
    Statuses(oneshot::Sender<Vec<LaneStatus>>),
    Stop,
}

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
            next_report: Instant::now(),
        };
        let handle = thread::Builder::new().name(name).spawn(move || run.run())?;
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
            for lane in &mut self.lanes {
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
        let mut taken: HashMap<String, Vec<Arc<dyn TableSnapshot>>> = HashMap::new();
        for command in commands {
            match command {
                Command::Add(lane) => self.lanes.push(*lane),
                Command::Drop(partitions, done) => {
                    self.lanes.retain(|lane| {
                        !partitions
                            .iter()
                            .any(|(topic, partition)| *topic == lane.lane.topic && *partition == lane.lane.partition)
                    });
                    self.next_report = Instant::now();
                    drop(done);
                }
                Command::Snapshot(table, reply) => {
                    let snapshots = taken.entry(table.clone()).or_insert_with(|| {
                        self.lanes.iter_mut().filter_map(|lane| lane.lane.snapshot(&table)).collect()
                    });
                    // Whoever asked may have gone meanwhile.
                    let _ = reply.send(snapshots.clone());
                }
                Command::Lookup(lookup, reply) => {
                    let _ = reply.send(self.lanes.iter_mut().filter_map(|lane| lane.lane.lookup(&lookup)).collect());
                }
                Command::Statuses(reply) => {
                    let _ = reply.send(self.lanes.iter().map(StreamLane::status).collect());
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn report(&mut self, now: Instant) {
        if now < self.next_report {
            return;
        }
        self.next_report = now + Duration::from_millis(200);
        let mut progress = self.progress.lock();
        progress.next_offsets = self
            .lanes
            .iter()
            .filter_map(|lane| Some(((lane.lane.topic.clone(), lane.lane.partition), lane.next_offset()?)))
            .collect();
        progress.newest_us = self.lanes.iter().filter_map(|lane| lane.lane.newest_us()).max();
        progress.statuses = self.lanes.iter().map(StreamLane::status).collect();
    }
}
