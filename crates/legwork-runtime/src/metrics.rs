//! Metrics of the pipeline itself.

use prometheus::core::Collector;
use prometheus::{Error, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::delay::DelayHistogram;

/// Counters and gauges of one pipeline. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    pub(crate) events_read: IntCounterVec,
    pub(crate) events_rejected: IntCounterVec,
    pub(crate) events_late: IntCounterVec,
    pub(crate) events_duplicate: IntCounterVec,
    pub(crate) events_misrouted: IntCounterVec,
    pub(crate) raw_events_dropped: IntCounterVec,
    pub(crate) lane_lag: IntGaugeVec,
    pub(crate) lane_watermark: GaugeVec,
    pub(crate) last_event: GaugeVec,
    pub(crate) fetch_queue_bytes: IntGaugeVec,
    pub(crate) state_bytes: IntGaugeVec,
    pub(crate) visible_delay: DelayHistogram,
    pub(crate) checkpoint_duration: Histogram,
    pub(crate) checkpoint_last_success: Gauge,
    pub(crate) checkpoint_pause: Histogram,
    pub(crate) lake_commit_duration: Histogram,
    pub(crate) lake_last_success: Gauge,
    pub(crate) lake_waiting_rows: IntGaugeVec,
}

/// Makes metrics and registers them.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn registered<C: Collector + Clone + 'static>(&self, made: Result<C, Error>) -> Result<C, Error> {
        let metric = made?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.registered(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn float(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
        self.registered(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn time(&self, name: &str, help: &str) -> Result<Gauge, Error> {
        self.registered(Gauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, Error> {
        let buckets = prometheus::exponential_buckets(0.001, 2.0, 16)?;
        self.registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }
}

impl PipelineMetrics {
    /// Makes them and registers them.
    ///
    /// *Errors:* when the registry holds metrics of these names already.
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub fn register(registry: &Registry) -> Result<PipelineMetrics, Error> {
        let make = Maker(registry);
        let lane = &["topic", "partition"];
        Ok(PipelineMetrics {
            events_read: make.counter("legwork_events_read_total", "Messages read from a topic.", &["topic"])?,
            events_rejected: make.counter(
                "legwork_events_rejected_total",
                "Messages that could not become events.",
                &["topic", "reason"],
            )?,
            events_late: make.counter(
                "legwork_events_late_total",
                "Events beyond the late horizon of their key.",
                &["topic"],
            )?,
            events_duplicate: make.counter(
                "legwork_events_duplicate_total",
                "Duplicate events dropped.",
                &["topic"],
            )?,
            events_misrouted: make.counter(
                "legwork_events_misrouted_total",
                "Events whose key belongs to another partition.",
                &["topic"],
            )?,
            raw_events_dropped: make.counter(
                "legwork_raw_events_dropped_total",
                "Accepted events no longer in their own table because its space is used up; facts made of them stay.",
                &["topic"],
            )?,
            lane_lag: make.gauge(
                "legwork_lane_lag_records",
                "Messages between a lane and the end of its partition.",
                lane,
            )?,
            lane_watermark: make.float(
                "legwork_lane_watermark_timestamp_seconds",
                "Event time up to which a lane is complete, but for late events.",
                lane,
            )?,
            last_event: make.float(
                "legwork_source_last_event_timestamp_seconds",
                "Newest event time read from a topic.",
                &["topic"],
            )?,
            fetch_queue_bytes: make.gauge("legwork_fetch_queue_bytes", "Bytes fetched and not yet read.", lane)?,
            state_bytes: make.gauge("legwork_lane_state_bytes", "Estimated bytes of operator state.", lane)?,
            visible_delay: make.registered(DelayHistogram::new(
                "legwork_event_visible_delay_seconds",
                "From an event's arrival until it is applied and visible.",
            ))?,
            checkpoint_duration: make.histogram(
                "legwork_checkpoint_duration_seconds",
                "From the beginning of a lane's checkpoint until it is durable.",
            )?,
            checkpoint_last_success: make.time(
                "legwork_checkpoint_last_success_timestamp_seconds",
                "When a checkpoint of any lane last became durable.",
            )?,
            checkpoint_pause: make.histogram(
                "legwork_checkpoint_pause_seconds",
                "How long a lane reads nothing while it takes up what a checkpoint is to hold.",
            )?,
            lake_commit_duration: make
                .histogram("legwork_lake_commit_duration_seconds", "Writing the rows of all lanes into the lake.")?,
            lake_last_success: make.time(
                "legwork_lake_commit_last_success_timestamp_seconds",
                "When the lake last took everything that waited.",
            )?,
            lake_waiting_rows: make.gauge(
                "legwork_lake_waiting_rows",
                "Rows of a lane that the lake does not hold yet.",
                lane,
            )?,
        })
    }

    /// Forgets the gauges of a lane that has gone.
    pub(crate) fn forget_lane(&self, topic: &str, partition: i32) {
        let partition = partition.to_string();
        let labels = [topic, &partition];
        for gauge in [&self.lane_lag, &self.fetch_queue_bytes, &self.state_bytes, &self.lake_waiting_rows] {
            // A lane that never reported has no series: nothing to forget.
            let _ = gauge.remove_label_values(&labels);
        }
        let _ = self.lane_watermark.remove_label_values(&labels);
    }
}
