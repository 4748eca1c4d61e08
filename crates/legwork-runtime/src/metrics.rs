//! Metrics of the pipeline itself.

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

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
    pub(crate) lane_watermark: prometheus::GaugeVec,
    pub(crate) last_event: prometheus::GaugeVec,
    pub(crate) fetch_queue_bytes: IntGaugeVec,
    pub(crate) state_bytes: IntGaugeVec,
    pub(crate) visible_delay: DelayHistogram,
    pub(crate) checkpoint_duration: prometheus::Histogram,
    pub(crate) checkpoint_last_success: prometheus::Gauge,
    pub(crate) checkpoint_pause: prometheus::Histogram,
    pub(crate) lake_commit_duration: prometheus::Histogram,
    pub(crate) lake_last_success: prometheus::Gauge,
    pub(crate) lake_waiting_rows: IntGaugeVec,
}

impl PipelineMetrics {
    /// Makes them and registers them.
    ///
    /// *Errors:* when the registry holds metrics of these names already.
    pub fn register(registry: &Registry) -> Result<PipelineMetrics, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let float = |name: &str, help: &str, labels: &[&str]| prometheus::GaugeVec::new(Opts::new(name, help), labels);
        let histogram = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(0.001, 2.0, 16)?;
            prometheus::Histogram::with_opts(prometheus::HistogramOpts::new(name, help).buckets(buckets))
        };
        let lane = &["topic", "partition"];
        let metrics = PipelineMetrics {
            events_read: counter("legwork_events_read_total", "Messages read from a topic.", &["topic"])?,
            events_rejected: counter(
                "legwork_events_rejected_total",
                "Messages that could not become events.",
                &["topic", "reason"],
            )?,
            events_late: counter(
                "legwork_events_late_total",
                "Events beyond the late horizon of their key.",
                &["topic"],
            )?,
            events_duplicate: counter("legwork_events_duplicate_total", "Duplicate events dropped.", &["topic"])?,
            events_misrouted: counter(
                "legwork_events_misrouted_total",
                "Events whose key belongs to another partition.",
                &["topic"],
            )?,
            raw_events_dropped: counter(
                "legwork_raw_events_dropped_total",
                "Accepted events no longer in their own table because its space is used up; facts made of them stay.",
                &["topic"],
            )?,
            lane_lag: gauge("legwork_lane_lag_records", "Messages between a lane and the end of its partition.", lane)?,
            lane_watermark: float(
                "legwork_lane_watermark_timestamp_seconds",
                "Event time up to which a lane is complete, but for late events.",
                lane,
            )?,
            last_event: float(
                "legwork_source_last_event_timestamp_seconds",
                "Newest event time read from a topic.",
                &["topic"],
            )?,
            fetch_queue_bytes: gauge("legwork_fetch_queue_bytes", "Bytes fetched and not yet read.", lane)?,
            state_bytes: gauge("legwork_lane_state_bytes", "Estimated bytes of operator state.", lane)?,
            visible_delay: DelayHistogram::new(
                "legwork_event_visible_delay_seconds",
                "From an event's arrival until it is applied and visible.",
            )?,
            checkpoint_duration: histogram(
                "legwork_checkpoint_duration_seconds",
                "From the beginning of a lane's checkpoint until it is durable.",
            )?,
            checkpoint_last_success: prometheus::Gauge::new(
                "legwork_checkpoint_last_success_timestamp_seconds",
                "When a checkpoint of any lane last became durable.",
            )?,
            checkpoint_pause: histogram(
                "legwork_checkpoint_pause_seconds",
                "How long a lane reads nothing while it takes up what a checkpoint is to hold.",
            )?,
            lake_commit_duration: histogram(
                "legwork_lake_commit_duration_seconds",
                "Writing the rows of all lanes into the lake.",
            )?,
            lake_last_success: prometheus::Gauge::new(
                "legwork_lake_commit_last_success_timestamp_seconds",
                "When the lake last took everything that waited.",
            )?,
            lake_waiting_rows: gauge(
                "legwork_lake_waiting_rows",
                "Rows of a lane that the lake does not hold yet.",
                lane,
            )?,
        };
        let collectors: [Box<dyn Collector>; 18] = [
            Box::new(metrics.events_read.clone()),
            Box::new(metrics.events_rejected.clone()),
            Box::new(metrics.events_late.clone()),
            Box::new(metrics.events_duplicate.clone()),
            Box::new(metrics.events_misrouted.clone()),
            Box::new(metrics.raw_events_dropped.clone()),
            Box::new(metrics.lane_lag.clone()),
            Box::new(metrics.lane_watermark.clone()),
            Box::new(metrics.last_event.clone()),
            Box::new(metrics.fetch_queue_bytes.clone()),
            Box::new(metrics.state_bytes.clone()),
            Box::new(metrics.visible_delay.clone()),
            Box::new(metrics.checkpoint_duration.clone()),
            Box::new(metrics.checkpoint_last_success.clone()),
            Box::new(metrics.checkpoint_pause.clone()),
            Box::new(metrics.lake_commit_duration.clone()),
            Box::new(metrics.lake_last_success.clone()),
            Box::new(metrics.lake_waiting_rows.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(metrics)
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
