//! Threads on which partitions are claimed: a claim may wait for an object store, and one that waits must not hold up the others.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use legwork_runtime::{ClaimPartition, PartitionFacts, StartAt};
use parking_lot::Mutex;

use crate::context::Shared;
use crate::probe::{Answer, Start};

/// Claims at the same time: enough to hide an object store's latency, few enough for its request limits.
const N_THREADS_MAX: usize = 16;

/// A partition to be claimed.
pub(crate) struct Job {
    pub(crate) facts: PartitionFacts,
    /// Where it starts unless the claim says otherwise.
    pub(crate) default_offset: i64,
    pub(crate) is_dropped: Arc<AtomicBool>,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    n_threads: usize,
}

/// Claims partitions on threads that end when nothing is left to claim.
pub(crate) struct Claimer {
    claim: Option<ClaimPartition>,
    shared: Arc<Shared>,
    answer: SyncSender<Answer>,
    jobs: Arc<Mutex<Jobs>>,
}

impl Claimer {
    pub(crate) fn new(claim: Option<ClaimPartition>, shared: Arc<Shared>, answer: SyncSender<Answer>) -> Claimer {
        Claimer { claim, shared, answer, jobs: Arc::default() }
    }

    /// Claims a partition, and answers when that is done.
    pub(crate) fn claim(&self, job: Job) {
        let Some(claim) = &self.claim else {
            answer(&self.answer, &self.shared, job, StartAt::Default);
            return;
        };
        let run = Run {
            claim: claim.clone(),
            shared: self.shared.clone(),
            answer: self.answer.clone(),
            jobs: self.jobs.clone(),
        };
        let mut jobs = self.jobs.lock();
        jobs.waiting.push_back(job);
        if jobs.n_threads == N_THREADS_MAX {
            return;
        }
        match std::thread::Builder::new().name("kafka-claim".to_owned()).spawn(move || run.run()) {
            Ok(_) => jobs.n_threads += 1,
            // One that runs takes it over; the last one that runs takes them all.
            Err(error) if jobs.n_threads > 0 => tracing::warn!(%error, "no further thread to claim partitions on"),
            Err(error) => {
                let message = format!("no thread can be started to claim it on: {error}; raise the limit of threads");
                if let Some(job) = jobs.waiting.pop_back() {
                    answer(&self.answer, &self.shared, job, StartAt::Halt(message));
                }
            }
        }
    }
}

struct Run {
    claim: ClaimPartition,
    shared: Arc<Shared>,
    answer: SyncSender<Answer>,
    jobs: Arc<Mutex<Jobs>>,
}

impl Run {
    fn run(self) {
        loop {
            let mut jobs = self.jobs.lock();
            let Some(job) = jobs.waiting.pop_front() else {
                jobs.n_threads -= 1;
                return;
            };
            drop(jobs);
            if job.is_dropped.load(Ordering::Acquire) {
                let _source_is_gone = self.answer.send(Answer::Dropped((job.facts.topic, job.facts.partition)));
                continue;
            }
            let start = catch_unwind(AssertUnwindSafe(|| (self.claim)(&job.facts)));
            let start = start.unwrap_or_else(|_| {
                StartAt::Halt("claiming it ended with a panic: see the log, report it, start again".to_owned())
            });
            answer(&self.answer, &self.shared, job, start);
        }
    }
}

fn answer(to: &SyncSender<Answer>, shared: &Shared, job: Job, start: StartAt) {
    let facts = job.facts;
    let start = match start {
        StartAt::Offset(offset) => Ok(offset),
        StartAt::Halt(why) => Err(why),
        // A lane with a past has compared it with the number of partitions; one without has nothing to compare.
        StartAt::Default => match shared.topic(&facts.topic).why_not_start(&facts.topic, facts.partition) {
            Some(why) => Err(why),
            None => Ok(job.default_offset),
        },
    };
    // Where nobody listens the source is gone.
    let _ = to.send(Answer::Claimed(Start { facts, start }));
}
