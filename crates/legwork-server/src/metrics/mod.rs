//! Business metrics: SQL over the engine, evaluated on a schedule and rendered as Prometheus text straight from Arrow.
//!
//! What lives here: the schedule, the last good values, the text. Which metrics there are: [`business`]. The pipeline's own metrics are
//! in a `prometheus::Registry`, which `/metrics` writes in front of these.

mod business;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod text;
#[cfg(test)]
pub(crate) use tests::promtool;

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::StreamExt;
use legwork_query::{Engine, QueryError, Session};
use parking_lot::RwLock;
use tokio::sync::watch;

use business::Metric;

/// A start has better to do than to count what its lanes have not taken up yet.
const FIRST_AFTER: Duration = Duration::from_secs(5);

/// How business metrics are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsOptions {
    /// From one evaluation to the next; scrapes read what the last one found.
    pub every: Duration,
    /// A series for each rep, in place of one for each team.
    pub by_rep: bool,
    /// Series of one metric; those beyond it, the smallest, are summed into one whose labels are `other`.
    pub series_max: usize,
}

impl Default for MetricsOptions {
    fn default() -> MetricsOptions {
        MetricsOptions { every: Duration::from_secs(15), by_rep: false, series_max: 10_000 }
    }
}

/// What a metric had to say last.
#[derive(Clone, Debug, Default)]
struct Last {
    text: String,
    n_errors: u64,
    is_failing: bool,
}

/// Business metrics and their last good values.
#[derive(Debug)]
pub struct BusinessMetrics {
    session: Arc<dyn Session>,
    options: MetricsOptions,
    metrics: Vec<Metric>,
    last: RwLock<Vec<Last>>,
}

impl BusinessMetrics {
    /// Nothing is evaluated before [`Self::run`].
    pub fn new(engine: &dyn Engine, options: MetricsOptions) -> BusinessMetrics {
        let metrics = business::metrics(options.by_rep);
        let last = RwLock::new(vec![Last::default(); metrics.len()]);
        BusinessMetrics { session: engine.session(), options, metrics, last }
    }

    /// Evaluates every `every`, for the first time 5 s after the start at the latest, until `shutdown` becomes true or its sender is gone.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let rounds = async {
            tokio::time::sleep(self.options.every.min(FIRST_AFTER)).await;
            loop {
                let began = Instant::now();
                self.evaluate().await;
                // Large tables are evaluated less often, so that metrics never take more than a tenth of the time.
                let pause = self.options.every.max(Duration::from_millis(1)).saturating_sub(began.elapsed());
                tokio::time::sleep(pause.max(began.elapsed() * 9)).await;
            }
        };
        let ended = async { drop(shutdown.wait_for(|down| *down).await) };
        tokio::select! {
            () = ended => {}
            () = rounds => {}
        }
    }

    /// One evaluation of all, one after the other. What fails keeps its last good values and is counted; it is logged when it begins
    /// to fail and when it works again.
    pub async fn evaluate(&self) {
        for (idx, metric) in self.metrics.iter().enumerate() {
            let outcome = collect(self.session.as_ref(), &metric.sql).await;
            let text = outcome.and_then(|batches| text::render(metric, &batches, self.options.series_max));
            let mut last = self.last.write();
            let last = &mut last[idx];
            match text {
                Ok(text) => {
                    last.text = text;
                    if std::mem::take(&mut last.is_failing) {
                        tracing::info!(metric = metric.name, "the metric works again");
                    }
                }
                Err(error) => {
                    last.n_errors += 1;
                    if !std::mem::replace(&mut last.is_failing, true) {
                        tracing::warn!(metric = metric.name, %error, sqlstate = error.sqlstate, "the metric failed; its last values stay");
                    }
                }
            }
        }
    }

    /// The last good values as Prometheus text 0.0.4.
    pub fn render(&self) -> String {
        let last = self.last.read();
        let mut out: String = last.iter().map(|last| last.text.as_str()).collect();
        out.push_str("# HELP legwork_metrics_errors_total Evaluations of a business metric that failed.\n");
        out.push_str("# TYPE legwork_metrics_errors_total counter\n");
        for (metric, last) in self.metrics.iter().zip(last.iter()) {
            let _ = writeln!(out, "legwork_metrics_errors_total{{metric=\"{}\"}} {}", metric.name, last.n_errors);
        }
        out
    }
}

async fn collect(session: &dyn Session, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
    let mut result = session.query(sql).await?;
    let mut batches = Vec::new();
    while let Some(batch) = result.batches.next().await {
        batches.push(batch?);
    }
    Ok(batches)
}
