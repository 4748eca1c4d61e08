//! Brings what the lanes of a pipeline have into the lake, every so often.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::delivery::{Delivery, commit};
use crate::pipeline::Shared;
use crate::worker::Command;

/// How often it looks whether there is something to do.
const TICK: Duration = Duration::from_millis(100);
/// Hop under which trouble with the lake is told.
const HOP: &str = "lake";

/// Commits until the pipeline stops.
pub(crate) async fn run(shared: Arc<Shared>, delivery: Arc<Delivery>) {
    let (mut last, mut last_open) = (Instant::now(), Instant::now());
    while !shared.is_stopping.load(Ordering::Acquire) {
        tokio::time::sleep(TICK).await;
        let is_heavy = || shared.workers.iter().any(|worker| worker.progress.lock().is_heavy);
        if last.elapsed() < delivery.commit_every && !is_heavy() {
            continue;
        }
        // Until the workers have been told what became of a round, they would hand over the same rows again.
        let _alone = delivery.round.lock().await;
        if shared.is_stopping.load(Ordering::Acquire) {
            return;
        }
        last = Instant::now();
        let with_open = last_open.elapsed() >= delivery.open_rows_every;
        if round(&shared, &delivery, with_open).await && with_open {
            last_open = Instant::now();
        }
    }
}

/// One commit a table of everything that is durable and not in the lake. *Returns* whether the lake has taken all of it.
pub(crate) async fn round(shared: &Shared, delivery: &Delivery, with_open: bool) -> bool {
    let started = Instant::now();
    let mut lanes = Vec::new();
    for worker in &shared.workers {
        let (reply, answer) = oneshot::channel();
        // A worker that has stopped has nothing more.
        if worker.send(Command::Pending { with_open, reply })
            && let Ok(Ok(pending)) = answer.await
        {
            lanes.extend(pending);
        }
    }
    if lanes.is_empty() {
        shared.recovered(HOP);
        return true;
    }
    let (covered, failures) = commit(delivery.lake.as_ref(), lanes, (with_open, delivery.encoded_rows_min)).await;
    let covered: Vec<_> = covered.into_iter().collect();
    for worker in &shared.workers {
        worker.send(Command::Covered(covered.clone()));
    }
    if let Some((table, error)) = failures.first() {
        shared.trouble(
            HOP,
            &format!("table {table} of the lake cannot be written, its rows wait in the lanes' stores: {error}"),
        );
        return false;
    }
    shared.recovered(HOP);
    shared.metrics.lake_commit_duration.observe(started.elapsed().as_secs_f64());
    shared.metrics.lake_last_success.set(crate::stream_lane::wall_clock_us() as f64 * 1e-6);
    true
}
