//! The thread that polls the source: what it hands over and takes back, and a clean end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use legwork_types::LaneId;

use super::Shared;
use crate::committer;
use crate::delivery::Delivery;
use crate::worker::{Command, Done, Worker};
use crate::{LogSource, SourceEvent};

/// How long one poll of the source waits.
const POLL: Duration = Duration::from_millis(100);
/// How long a clean end takes at most; dead letters and servers take their time besides.
const END_MAX: Duration = Duration::from_millis(6_500);
/// Of that, what is left for the lake, and for claims to be let go of, however long what comes before takes.
const COMMIT_MIN: Duration = Duration::from_millis(1_500);
const RELEASE_MIN: Duration = Duration::from_secs(1);
/// How often offsets are stored for monitoring.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// The thread that polls the source.
pub(super) struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Box<dyn LogSource>,
}

impl Control {
    pub(super) fn run(mut self) {
        let mut last_commit = Instant::now();
        while !self.shared.is_stopping.load(Ordering::Acquire) {
            for event in self.source.poll(POLL) {
                self.handle(event);
            }
            self.shared.health.lock().stand(self.source.standing(), Instant::now());
            if last_commit.elapsed() >= COMMIT_EVERY {
                last_commit = Instant::now();
                self.commit();
            }
        }
        if let Some(delivery) = self.shared.config.delivery.clone() {
            self.deliver_last(&delivery);
        }
        for worker in &self.shared.workers {
            worker.stop();
        }
        self.commit();
        self.source.close();
    }

    /// Makes everything durable, brings it into the lake, open rows too, and lets the claims go; each as far as there is time.
    fn deliver_last(&mut self, delivery: &Delivery) {
        let begun = Instant::now();
        let but_for = |later: Duration| (END_MAX - later).saturating_sub(begun.elapsed());
        // Rounds are over from here on: what the one on its way has left out needs a checkpoint with a number of its own.
        let rounds_over = async { tokio::time::timeout(COMMIT_MIN, delivery.round.lock()).await };
        let _no_rounds = delivery.runtime.block_on(rounds_over);
        if !self.wait_for(but_for(COMMIT_MIN + RELEASE_MIN), |_, done| Command::Flush(done)) {
            tracing::warn!("the last checkpoints are not known to be durable; the next start finds out");
        }
        let committed =
            async { tokio::time::timeout(but_for(RELEASE_MIN), committer::round(&self.shared, delivery, true)).await };
        if delivery.runtime.block_on(committed).is_err() {
            tracing::warn!("the lake did not take the last rows in time; it does after the next start");
        }
        self.commit();
        let all = |worker: &Worker, done| {
            let partitions =
                worker.progress.lock().statuses.iter().map(|lane| (lane.topic.clone(), lane.partition)).collect();
            Command::Drop { partitions, is_lost: false, done }
        };
        self.wait_for(but_for(Duration::ZERO), all);
    }

    /// Gives every worker a command and waits until all guards are dropped. *Returns* whether that happened in time.
    fn wait_for(&self, max: Duration, command: impl Fn(&Worker, Arc<Done>) -> Command) -> bool {
        let (send, ended) = std::sync::mpsc::sync_channel(1);
        let done = Done::new(Box::new(move || {
            let _nobody_waits = send.try_send(());
        }));
        for worker in &self.shared.workers {
            worker.send(command(worker, done.clone()));
        }
        drop(done);
        ended.recv_timeout(max).is_ok()
    }

    fn handle(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assigned(readers) => {
                tracing::info!(n_partitions = readers.len(), "partitions assigned");
                for reader in readers {
                    self.shared.add(reader);
                }
            }
            SourceEvent::Revoked { partitions, lost, done } => {
                tracing::info!(n_partitions = partitions.len(), "partitions revoked");
                self.shared.health.lock().lanes.retain(|lane| !partitions.contains(lane));
                let done = Done::new(done);
                if let Some(delivery) = &self.shared.config.delivery {
                    for (topic, partition) in &partitions {
                        drop(delivery.take_claimed(&LaneId::new(topic.clone(), *partition)));
                    }
                }
                for worker in &self.shared.workers {
                    worker.send(Command::Drop { partitions: partitions.clone(), is_lost: lost, done: done.clone() });
                }
            }
            SourceEvent::Trouble { hop, message } => self.shared.trouble(&hop, &message),
            SourceEvent::Recovered { hop } => self.shared.recovered(&hop),
            SourceEvent::Fatal { message } => {
                tracing::error!("{message}");
                self.shared.health.lock().fatal = Some(message);
            }
        }
    }

    fn commit(&mut self) {
        let offsets: Vec<_> = self
            .shared
            .workers
            .iter()
            .flat_map(|worker| worker.progress.lock().next_offsets.clone())
            .map(|((topic, partition), next_offset)| (topic, partition, next_offset))
            .collect();
        if !offsets.is_empty() {
            self.source.commit(&offsets);
        }
    }
}
