//! A histogram of delays that takes whole batches: `prometheus`'s own searches its buckets for each value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto;

/// Upper bounds of the buckets, microseconds, inclusive.
const BOUNDS_US: [i64; 14] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
];

/// Counts by bucket. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct DelayHistogram {
    desc: Desc,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl DelayHistogram {
    pub(crate) fn new(name: &str, help: &str) -> Result<DelayHistogram, prometheus::Error> {
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), Default::default())?;
        Ok(DelayHistogram { desc, shared: Arc::default() })
    }

    /// Counts the delays from each arrival until now; one in the future counts as none. *Shape:* N times, microseconds.
    pub(crate) fn observe(&self, arrival_us: &[i64], now_us: i64) {
        let mut counts = [0_u64; BOUNDS_US.len() + 1];
        let mut sum_us = 0_u64;
        // Messages of a batch arrived together: the bucket of the last one is mostly that of the next.
        let (mut bucket, mut above_us, mut until_us) = (0, i64::MIN, BOUNDS_US[0]);
        for &arrival_us in arrival_us {
            let delay_us = now_us.saturating_sub(arrival_us).max(0);
            if delay_us <= above_us || delay_us > until_us {
                bucket = BOUNDS_US.partition_point(|&bound_us| bound_us < delay_us);
                above_us = if bucket == 0 { i64::MIN } else { BOUNDS_US[bucket - 1] };
                until_us = BOUNDS_US.get(bucket).copied().unwrap_or(i64::MAX);
            }
            counts[bucket] += 1;
            sum_us = sum_us.saturating_add(delay_us.unsigned_abs());
        }
        for (shared, count) in self.shared.counts.iter().zip(counts) {
            shared.fetch_add(count, Ordering::Relaxed);
        }
        self.shared.sum_us.fetch_add(sum_us, Ordering::Relaxed);
    }
}

impl Collector for DelayHistogram {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut histogram = proto::Histogram::default();
        let mut buckets = Vec::with_capacity(BOUNDS_US.len());
        let mut total = 0;
        for (idx, count) in self.shared.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            if let Some(&bound_us) = BOUNDS_US.get(idx) {
                let mut bucket = proto::Bucket::default();
                bucket.set_cumulative_count(total);
                bucket.set_upper_bound(bound_us as f64 * 1e-6);
                buckets.push(bucket);
            }
        }
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total);
        histogram.set_sample_sum(self.shared.sum_us.load(Ordering::Relaxed) as f64 * 1e-6);
        let mut metric = proto::Metric::default();
        metric.set_histogram(histogram);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delay_counts_in_its_bucket() -> Result<(), prometheus::Error> {
        let histogram = DelayHistogram::new("x_seconds", "x")?;
        let now_us = 10_000_000_000;
        let delays = [-5, 0, 5_000, 5_001, 4_000, 30_000_000, i64::MAX / 4, 5_001];
        histogram.observe(&delays.map(|delay| now_us - delay), now_us);
        let counts: Vec<u64> = histogram.shared.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]);
        let registry = prometheus::Registry::new();
        registry.register(Box::new(histogram))?;
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather())?;
        assert!(text.contains("x_seconds_bucket{le=\"0.01\"} 6\n") && text.contains("x_seconds_count 8\n"), "{text}");
        Ok(())
    }
}
