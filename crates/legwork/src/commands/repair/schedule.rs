//! Repair on its schedule: what came too late and has not been looked at since.
//!
//! What was settled is kept in the store, as the lane that repair writes under: a fingerprint of the late events of each key. It saves work
//! alone: where it is lost, the same is computed again, and comes out the same.

use std::collections::BTreeMap;

use anyhow::Result;
use legwork_runtime::lane_settings;
use legwork_state::{Checkpoint, Claimed, Head, StateStore};
use legwork_types::time::DAY_US;
use legwork_types::{LaneId, StateEntry};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tracing::{info, warn};

use super::super::backfill::settings_of_rows;
use super::load::{LateEvents, Touched};
use super::{Repair, held_from_us, is_repairable};
use crate::config::Config;
use crate::data;
use crate::delivery::Kept;
use crate::service::wall_clock_us;
use crate::topics;

/// What there is to see of repair.
#[derive(Clone, Debug)]
pub(crate) struct RepairMetrics {
    keys_left: IntGauge,
    keys: IntCounterVec,
    rows: IntCounter,
    last_success: Gauge,
}

impl RepairMetrics {
    /// Makes them and registers them. *Errors:* when the registry holds metrics of these names already.
    pub(crate) fn register(registry: &Registry) -> Result<RepairMetrics, prometheus::Error> {
        let metrics = RepairMetrics {
            keys_left: IntGauge::new(
                "legwork_repair_keys_left",
                "Devices and reps that the repair under way has not looked at.",
            )?,
            keys: IntCounterVec::new(
                Opts::new("legwork_repair_keys_total", "Devices and reps with late events that repair has looked at."),
                &["outcome"],
            )?,
            rows: IntCounter::new(
                "legwork_repair_rows_total",
                "Versions of rows that repair has written, retractions included.",
            )?,
            last_success: Gauge::new(
                "legwork_repair_last_success_timestamp_seconds",
                "When repair last came to its end in this instance.",
            )?,
        };
        registry.register(Box::new(metrics.keys_left.clone()))?;
        registry.register(Box::new(metrics.keys.clone()))?;
        registry.register(Box::new(metrics.rows.clone()))?;
        registry.register(Box::new(metrics.last_success.clone()))?;
        Ok(metrics)
    }
}

/// Repairs all days that no lane counts any more and that have late events which no earlier call has settled.
pub(crate) async fn repair_due(config: &Config, kept: &Kept, metrics: &RepairMetrics) -> Result<()> {
    let tell = |touched: &Touched, n_done: usize| {
        info!(lane = %touched.lane, n_done, n_keys = touched.keys.len(), "repairing");
        metrics.keys_left.set((touched.keys.len() - n_done) as i64);
    };
    let mut repair = Repair::open(config, kept, &tell).await?;
    let due = due(&repair).await?;
    if !due.is_empty() {
        let marks = Marks::claim(kept).await?;
        let mut settled = Vec::new();
        for touched in marks.new_among(due).await? {
            let of_lane = repair.lane(&touched).await?;
            settled.extend(of_lane.into_iter().map(|key| (touched.lane.clone(), touched.keys[&key], key)));
        }
        let summary = repair.write().await?.summary;
        marks.set(settled).await?;
        let n_rows: usize = summary.tables.values().map(|(n_written, n_retracted)| n_written + n_retracted).sum();
        let (n_held, n_incomplete) = (summary.n_keys_held, summary.n_keys_incomplete);
        let n_settled = summary.n_keys - n_held - n_incomplete;
        for (outcome, n_keys) in [("settled", n_settled), ("held", n_held), ("incomplete", n_incomplete)] {
            metrics.keys.with_label_values(&[outcome]).inc_by(n_keys as u64);
        }
        metrics.rows.inc_by(n_rows as u64);
        if summary.n_keys > 0 {
            info!(n_settled, n_held, n_incomplete, n_rows, tables = ?summary.tables, "late events were repaired");
        }
    }
    metrics.last_success.set(wall_clock_us() as f64 * 1e-6);
    Ok(())
}

/// Keys with late events in days that their lane counts no more.
async fn due(repair: &Repair<'_>) -> Result<Vec<Touched>> {
    let (config, heads) = (repair.config, &repair.heads);
    let before = |lane: &LaneId| heads.get(lane).map_or(i64::MIN, |head| held_from_us(config, head));
    let all = repair.loader.touched((0, wall_clock_us() + DAY_US), before, false).await?;
    let operators = topics::operators(config);
    let is_due = |touched: &Touched| {
        let is_same = settings_of_rows(&heads[&touched.lane]) == lane_settings(touched.kind, &operators);
        if is_repairable(touched.kind) && !is_same {
            warn!(lane = %touched.lane, "not repaired: its rows were made with other settings");
        }
        is_repairable(touched.kind) && is_same
    };
    Ok(all.into_iter().filter(is_due).collect())
}

/// What was settled before.
struct Marks {
    claimed: Claimed,
}

impl Marks {
    async fn claim(kept: &Kept) -> Result<Marks> {
        let lane = LaneId::new(data::REPAIR, 0);
        Ok(Marks { claimed: kept.store.claim(&lane).await.map_err(data::store_error)? })
    }

    /// Of these the keys whose late events are not those that were settled.
    async fn new_among(&self, due: Vec<Touched>) -> Result<Vec<Touched>> {
        let mut new = Vec::new();
        for Touched { lane, kind, keys } in due {
            let marks = keys.keys().map(|key| mark(&lane, key)).collect();
            let known = self.claimed.lane.read(marks).await.map_err(data::store_error)?;
            let keys = keys.into_iter().zip(known);
            let is_new = |late: &LateEvents, known: Option<Vec<u8>>| known.is_none_or(|known| known != value(late));
            let keys: BTreeMap<String, LateEvents> =
                keys.filter_map(|((key, late), known)| is_new(&late, known).then_some((key, late))).collect();
            if !keys.is_empty() {
                new.push(Touched { lane, kind, keys });
            }
        }
        Ok(new)
    }

    /// Notes what is settled now, and lets go.
    async fn set(self, settled: Vec<(LaneId, LateEvents, String)>) -> Result<()> {
        let Marks { claimed: Claimed { lane: store, head, .. } } = self;
        if !settled.is_empty() {
            let entry = |(lane, late, key): (LaneId, LateEvents, String)| StateEntry {
                key: mark(&lane, &key),
                value: Some(value(&late)),
            };
            let number = head.map_or(0, |head| head.number) + 1;
            let head = Head { number, newest_us: i64::MIN, lake_through: number, ..Head::default() };
            let cold = settled.into_iter().map(entry).collect();
            store.commit(Checkpoint { head, cold, ..Checkpoint::default() }).await.map_err(data::store_error)?;
        }
        store.release().await.map_err(data::store_error)
    }
}

/// Where the mark of a key stands.
fn mark(lane: &LaneId, key: &str) -> Vec<u8> {
    format!("late/{lane}\0{key}").into_bytes()
}

fn value(late: &LateEvents) -> Vec<u8> {
    [late.fingerprint.to_le_bytes(), (late.n as u64).to_le_bytes()].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use legwork_types::Kind;

    use super::*;

    fn kept(folder: &std::path::Path) -> Config {
        let mut config = Config::default();
        config.store.url = format!("file://{}", folder.display());
        config
    }

    fn late(offsets: &[i64]) -> LateEvents {
        offsets.iter().fold(LateEvents::NONE, |mut late, offset| {
            late.add(*offset, 5);
            late
        })
    }

    fn touched(keys: &[(&str, &[i64])]) -> Touched {
        let keys = keys.iter().map(|(key, offsets)| ((*key).to_owned(), late(offsets))).collect();
        Touched { lane: LaneId::new("t", 3), kind: Kind::Gps, keys }
    }

    #[test]
    fn late_events_are_told_from_others_in_any_order() {
        assert_eq!(late(&[1, 2, 3]), late(&[3, 1, 2]));
        assert_ne!(late(&[1, 2, 3]), late(&[1, 2, 4]));
        assert_ne!(late(&[1, 2]), late(&[1, 2, 2]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_settled_is_known_until_more_comes_late() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(&kept(folder.path())).await.unwrap().unwrap();
        let all = touched(&[("a", &[1, 2]), ("b", &[5])]);
        let new_among = async |due: &Touched| {
            let marks = Marks::claim(&kept).await.unwrap();
            let new = marks.new_among(vec![due.clone()]).await.unwrap();
            (new.into_iter().flat_map(|new| new.keys.into_keys()).collect(), marks)
        };
        let (new, marks): (Vec<String>, _) = new_among(&all).await;
        assert_eq!(new, ["a", "b"]);
        marks.set(vec![(all.lane.clone(), all.keys["a"], "a".to_owned())]).await.unwrap();
        let (new, marks): (Vec<String>, _) = new_among(&all).await;
        assert_eq!(new, ["b"]);
        marks.set(Vec::new()).await.unwrap();
        let (new, marks): (Vec<String>, _) = new_among(&touched(&[("a", &[1, 2, 9])])).await;
        assert_eq!(new, ["a"]);
        marks.set(vec![(all.lane.clone(), late(&[1, 2, 9]), "a".to_owned())]).await.unwrap();
        let other = Touched { lane: LaneId::new("t", 4), ..touched(&[("a", &[1, 2, 9])]) };
        assert_eq!(new_among(&other).await.0, ["a"], "the key of another lane");
        let lanes = kept.store.lanes().await.unwrap();
        let [(_, Ok(head))] = &lanes[..] else { panic!("one lane: {lanes:?}") };
        assert!(head.newest_us == i64::MIN && head.number == 2);
    }
}
